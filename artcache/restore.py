"""Asking the stores, in order, and restoring from the first that has it.

For `cache` and `builder`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from .cache import Cache, Served, Wish
from .disk import disk_errors, free_bytes, write_at
from .errors import ArtcacheError, Corrupt, NewerFormat, OverLimit, StoreUnavailable
from .manifest import Manifest, Pack
from .opening import Fetch
from .partial import Partial, resumable
from .race import BUILT, FETCHED, first

if TYPE_CHECKING:
    from .home import Entry
    from .key import Key
    from .race import Contest
    from .recipe import Recipe, Variant
    from .repository import Found
    from .tier import Tier


def from_stores(cache: Cache, wish: Wish, variant: Variant) -> Served | None:
    """Exactly this variant, from the first store that has it."""
    for tier in cache.readers():
        try:
            if found := tier.repository.find(variant.key, wish.admit):
                return *_restored(cache, wish, tier, found, variant), variant.note
        except (NewerFormat, OverLimit) as error:
            wish.newer.append(error)
            cache.observer.warn(f"{error}" + (f"; {error.hint}" if error.hint else ""))
        except StoreUnavailable as error:
            cache.give_up(tier, error)
        except Corrupt:
            continue  # its problems are told below
        finally:
            cache.tell_problems(tier)
    return None


def stand_in(cache: Cache, wish: Wish) -> Served | None:
    """The best artifact that provably runs here in place of a variant."""
    from .match import best

    for variant in wish.variants:
        chosen = best(cache, variant.key, wish.match)
        if chosen is None:
            continue
        note = "; ".join(filter(None, [variant.note, chosen.note(wish.request)]))
        if chosen.entry:
            return chosen.entry, "home", note
        if chosen.tier and chosen.found:
            with contextlib.suppress(Corrupt):
                try:
                    return *_restored(cache, wish, chosen.tier, chosen.found, None), note
                finally:
                    cache.tell_problems(chosen.tier)
    return None


def _restored(
    cache: Cache, wish: Wish, tier: Tier, found: Found, variant: Variant | None
) -> tuple[Entry, str]:
    """The entry, and where it came from: the store, or a build that was quicker.

    Args:
        variant: What a build would make of it; None: it could not make this one.
    """
    key = found.manifest.key
    before = cache.tiers[: cache.tiers.index(tier)]
    lacking = [one for one in before if _is_filled(cache, one, wish.backfill)]
    packs = sum(pack.length for pack in found.manifest.packs)
    if lacking and free_bytes(cache.home.root) < packs + found.manifest.size:
        cache.observer.warn(f"no room for {key.recipe}'s packs: it is not copied to other stores")
        lacking = []
    with contextlib.ExitStack() as stack:
        kept = stack.enter_context(cache.home.staging()) if lacking else None
        with cache.home.lock(key, waiting=cache.waiting):
            if entry := cache.from_home(key):  # whom we waited for restored it
                origin = tier.url
            else:
                entry, origin = first(
                    cache, wish, tier, found, variant,
                    lambda contest: restore(cache, contest.tier, found, kept, contest),
                )  # fmt: skip
        if kept and origin == tier.url:
            _fill(cache, wish.recipe, found, tier, lacking, kept)
        return entry, origin


def restore(
    cache: Cache,
    tier: Tier,
    found: Found,
    kept: Path | None = None,
    contest: Contest | None = None,
) -> Entry:
    """Bring an artifact into the home; its lock is held by the caller.

    Args:
        kept: A folder that gets the packs as they are read, for other stores.
        contest: With a build of the same.
    """
    manifest = found.manifest
    cache.observer.phase("restore", f"{manifest.key.recipe} from {tier.url}")
    done, size = 0, manifest.size  # which is a sum over all files

    def progress(count: int) -> None:
        nonlocal done
        done += count
        cache.observer.progress(done, size)

    with (
        cache.home.staging() as staging,
        disk_errors(cache.home.root, doing="restore", needed=manifest.size),
        resumable(cache.home.folder("partial"), manifest) as partial,
    ):
        _tell_partial(cache, manifest, partial)
        staged = staging / "entry"
        staged.mkdir()
        if contest:
            contest.pace.total = _missing(manifest, partial)

        def arrived(count: int) -> None:
            if contest:
                contest.pace.arrived(count)

        def around(fetch: Fetch) -> Fetch:
            fetch = _keeping(fetch, kept) if kept else fetch
            return contest.fetch(fetch) if contest else fetch

        try:
            tree = tier.repository.restore(found, partial, progress, around=around, arrived=arrived)
            if contest:
                contest.claim(FETCHED)
        except ArtcacheError:
            if contest and contest.winner == BUILT:
                partial.remove()  # nobody will go on with it
            raise
        tree.rename(staged / "tree")
        return cache.home.commit(staged, manifest, tier.url, data=found.data, stamps=partial.stamps)


def _missing(manifest: Manifest, partial: Partial) -> int:
    """Stored bytes that are still to be read."""
    frames = zip(manifest.frames, partial.done)  # noqa: B905
    return sum(frame.stored for frame, there in frames if not there)


def _tell_partial(cache: Cache, manifest: Manifest, partial: Partial) -> None:
    whole = sum(frame.stored for frame in manifest.frames)
    here = whole - _missing(manifest, partial)
    if here:
        cache.observer.note(
            f"continuing: {here / 1e6:.0f} of {whole / 1e6:.0f} MB are here already"
        )


# -- filling other stores -----------------------------------------------------------------


def _keeping(fetch: Fetch, folder: Path) -> Fetch:
    """`fetch` that also writes what it read where the pack's file has it."""

    def keeping(pack: Pack, offset: int, length: int) -> bytes | memoryview:
        data = fetch(pack, offset, length)
        with contextlib.suppress(OSError):  # then the file is not whole, and that is seen
            write_at(folder / pack.blake3, offset, data)
        return data

    return keeping


def fill_others(cache: Cache, recipe: Recipe, key: Key) -> None:
    """Copy what is in the home to every store that may be written and lacks it: as a store
    has it, or else from the home. What goes wrong is a warning."""
    lacking, source = [], None
    for tier in cache.tiers:
        if tier.down:
            continue
        try:
            found = tier.repository.find(key)
        except ArtcacheError as error:
            cache.give_up(tier, error)
            continue
        finally:
            cache.tell_problems(tier)
        if found and tier.reads and not source:
            source = (tier, found)
        elif not found and _is_filled(cache, tier, True):
            lacking.append(tier)
    if lacking and source:
        with cache.home.staging() as kept:
            tier, found = source
            _fill(cache, recipe, found, tier, lacking, kept)
        return
    from .transfer.choose import Chosen
    from .transfer.send import push

    for tier in lacking:
        for moved in push(cache, [Chosen(key, None, named=False)], tier):
            name = f"{key.recipe} {key.hash[:12]}"
            if moved.error:
                cache.observer.warn(f"{name} was not copied to {tier.url}: {moved.error}")
            else:
                cache.observer.note(f"{name} {moved.state} from the home to {tier.url}")


def _is_filled(cache: Cache, tier: Tier, asked: bool | None) -> bool:
    if asked is None:
        asked = cache.backfill if tier.backfill is None else tier.backfill
    return asked and tier.writes and not (tier.down or tier.denied)


def _fill(
    cache: Cache,
    recipe: Recipe,
    found: Found,
    source: Tier,
    lacking: Iterable[Tier],
    kept: Path,
) -> None:
    """What goes wrong is one warning a store: the tree is in the home already.

    Args:
        kept: A folder that may have the packs already, and gets them else.
    """
    from .transfer import copy

    key = found.manifest.key
    name = f"{key.recipe} {key.hash[:12]}"
    for tier in lacking:
        if refusal := tier.refuses(recipe):
            cache.observer.warn(refusal)
            continue
        cache.observer.phase("backfill", f"{name} from {source.url} to {tier.url}")
        try:
            with disk_errors(cache.home.root, doing="copy packs"):
                done = copy(found, source.repository, tier.repository, kept)
            if done.first:
                cache.observer.note(f"{name} copied from {source.url} to {tier.url}")
        except ArtcacheError as error:
            cache.observer.warn(f"{name} was not copied to {tier.url}: {error}")
        finally:
            cache.tell_problems(source)
            cache.tell_problems(tier)
