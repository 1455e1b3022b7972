"""Artifacts between the home and stores, one after the other, and what became of each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from .. import pack, share
from ..builder import compare
from ..disk import disk_errors
from ..errors import ArtcacheError, Corrupt, ObjectNotFound, Refused, StoreDenied, StoreUnavailable
from ..manifest import Manifest
from ..publish import compression_for, note_rate
from ..repository import Published
from ..restore import restore
from ..tree import Scan
from . import already, copy
from .choose import Chosen

if TYPE_CHECKING:
    from ..cache import Cache
    from ..home import Entry
    from ..key import Key
    from ..tier import Tier

COPIED, PRESENT, DIFFERS, PLANNED = "copied", "present", "differs", "planned"
REFUSED, FAILED = "refused", "failed"
_ENOUGH = 2
"""Artifacts that fail one after the other since a store does not answer: the rest is not tried."""


@dataclass(frozen=True, slots=True)
class Moved:
    """What became of one artifact."""

    key: Key
    source: str
    """`home` or a store's URL."""
    target: str
    state: str
    """`copied`; `present`: it was there; `differs`: another of the same key was there, and
    stays; `planned`: a dry run would copy it; `refused`: it was not named, and its licence
    forbids it; `failed`: see `error`."""
    size: int = 0
    """Bytes of its files; 0 if unknown."""
    seconds: float = 0.0
    differing: tuple[str, ...] = ()
    """The paths whose files differ from those at the target."""
    durable: bool = True
    """False where the bytes may still wait on this machine (a mounted Drive)."""
    error: ArtcacheError | None = None


def push(
    cache: Cache,
    chosen: Sequence[Chosen],
    target: Tier,
    *,
    dry_run: bool = False,
    phase: str = "push",
) -> Iterator[Moved]:
    """Publish artifacts of the home, or of another store, in `target`. One that fails
    does not stop the others.

    Args:
        phase: What the observer is told of each.

    Raises:
        StoreDenied: the target can only be read.
        StoreUnavailable, UsageError: it cannot be opened.
    """
    if not target.repository.store.traits.writable:
        raise StoreDenied(f"{target.url} can only be read", hint="name another with --to")

    warned: set[str] = set()

    def move(one: Chosen) -> Moved:
        if refusal := _refusal(cache, one.key.recipe, target):
            if one.named:
                raise Refused(refusal)
            if refusal not in warned:
                cache.observer.warn(refusal)
            warned.add(refusal)
            return Moved(one.key, _where(one), target.url, REFUSED)
        cache.observer.phase(phase, f"{one.key.recipe} {one.key.hash[:12]} to {target.url}")
        try:
            moved = _to_store(cache, one, target, dry_run)
            if not moved.durable:
                cache.tell_pending(target.repository.store)
            return moved
        finally:
            cache.tell_problems(target)

    return _each(cache, chosen, target.url, move)


def pull(cache: Cache, chosen: Sequence[Chosen], *, dry_run: bool = False) -> Iterator[Moved]:
    """Bring artifacts of stores into the home. One that fails does not stop the others."""
    return _each(cache, chosen, "home", lambda one: _to_home(cache, one, dry_run))


def _each(
    cache: Cache, chosen: Sequence[Chosen], target: str, move: Callable[[Chosen], Moved]
) -> Iterator[Moved]:
    silent = 0
    for one in chosen:
        start = time.perf_counter()
        moved = Moved(one.key, _where(one), target, FAILED)
        try:
            if silent >= _ENOUGH:
                raise StoreUnavailable("not tried, since the ones before it failed")
            moved = move(one)
            silent = 0
        except ArtcacheError as error:
            silent += isinstance(error, StoreUnavailable)
            moved = replace(moved, error=error)
        finally:
            if one.place:
                cache.tell_problems(one.place)
        yield replace(moved, seconds=time.perf_counter() - start)


# -- into a store -------------------------------------------------------------------------


def _to_store(cache: Cache, one: Chosen, target: Tier, dry_run: bool) -> Moved:
    if one.place is None:
        return _home_to_store(cache, one, target, dry_run)
    found = one.place.repository.find(one.key)
    if not found:
        raise _gone(one)
    manifest = found.manifest
    if dry_run:
        return _moved(one, manifest, target.url, already(manifest, target.repository))
    total = sum(pack.length for pack in manifest.packs)
    with (
        cache.home.staging() as staging,
        disk_errors(cache.home.root, doing="copy the packs", needed=total),
    ):
        progress = _progress(cache, total)
        done = copy(found, one.place.repository, target.repository, staging, progress=progress)
    return _moved(one, manifest, target.url, done)


def _home_to_store(cache: Cache, one: Chosen, target: Tier, dry_run: bool) -> Moved:
    entry = _verified(cache, one, verify=not dry_run)
    manifest = entry.manifest()
    there = already(manifest, target.repository)
    if there or dry_run:
        return _moved(one, manifest, target.url, there)
    with (
        cache.home.staging() as staging,
        disk_errors(cache.home.root, doing="pack the tree", needed=manifest.size),
    ):
        packed = _packed(cache, entry, manifest, staging / "pack", target)
        done = share.publish(target.repository, packed, staging / "pack")
        note_rate(cache, target)
    return _moved(one, packed, target.url, done)


def _verified(cache: Cache, one: Chosen, *, verify: bool) -> Entry:
    try:
        entry = cache.home.lookup(one.key, verify=verify)
    except Corrupt as error:
        where, recipe = cache.home.quarantine(one.key), one.key.recipe
        raise Corrupt(
            f"{error}; it was moved to {where}", hint=f"make it anew: artcache fetch {recipe}"
        ) from None
    if not entry:
        raise _gone(one)
    return entry


def _packed(cache: Cache, entry: Entry, manifest: Manifest, out: Path, target: Tier) -> Manifest:
    """Pack a tree of the home. The manifest stays as it was if the pack comes out as before.

    Raises:
        Corrupt: a file is not what the manifest says.
    """
    files = tuple((file.path, file.mode, file.size) for file in manifest.files)
    with out.open("wb") as file:
        packed = pack.write(
            entry.path,
            Scan(files, manifest.links, manifest.dirs),
            file,
            compression=compression_for(cache, [target]),
            progress=_progress(cache, manifest.size),
        )
    if differing := compare(packed.files, manifest.files):
        raise Corrupt(f"{entry.path} changed while it was packed: {', '.join(differing[:5])}")
    packs = (packed.pack,) if packed.frames else ()
    return manifest._replace(packs=packs, frames=packed.frames)


def _refusal(cache: Cache, name: str, target: Tier) -> str:
    """Why the artifacts of a recipe must not go there; '' if they may."""
    if not target.public:
        return ""
    return target.refuses(cache.recipe(name))


# -- into the home ------------------------------------------------------------------------


def _to_home(cache: Cache, one: Chosen, dry_run: bool) -> Moved:
    assert one.place
    found = one.place.repository.find(one.key)
    if not found:
        raise _gone(one)
    with cache.home.lock(one.key, waiting=cache.waiting):
        if entry := cache.from_home(one.key):
            there = Published("home", False, entry.manifest(), True)
            return _moved(one, found.manifest, "home", there)
        if not dry_run:
            restore(cache, one.place, found)
    done = None if dry_run else Published("home", True, found.manifest, True)
    return _moved(one, found.manifest, "home", done)


def _moved(one: Chosen, manifest: Manifest, target: str, done: Published | None) -> Moved:
    """Of what was published, or found there, or (None) would be published."""
    moved = Moved(one.key, _where(one), target, PLANNED, manifest.size)
    if done is None:
        return moved
    if done.first:
        return replace(moved, state=COPIED, durable=done.durable)
    theirs = done.winner
    differing = tuple(compare(manifest.files, theirs.files))
    if not differing and manifest.links != theirs.links:
        differing = tuple(sorted({link.path for link in set(manifest.links) ^ set(theirs.links)}))
    return replace(moved, state=DIFFERS if differing else PRESENT, differing=differing)


def _gone(one: Chosen) -> ObjectNotFound:
    """Another process removed it since it was chosen."""
    where = one.place.url if one.place else "the home"
    return ObjectNotFound(f"{where} has no {one.key.recipe} {one.key.hash[:12]} any more")


def _where(one: Chosen) -> str:
    return one.place.url if one.place else "home"


def _progress(cache: Cache, total: int) -> pack.Progress:
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        cache.observer.progress(done, total)

    return progress
