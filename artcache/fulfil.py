"""Building what other machines missed, from the wanted lists of the stores. For the faces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Literal, NamedTuple

from .compat import AFTER_JIT, RUNS
from .errors import (
    ArtcacheError,
    BuildFailed,
    NewerFormat,
    NotPublished,
    StoreUnavailable,
    UsageError,
)
from .layout import FLEXIBLE, siblings_folder
from .match import judge
from .toolchain import GpuArch
from .transfer.choose import Chosen
from .transfer.send import push
from .wanted import Record, Wanted, drop

if TYPE_CHECKING:
    from .builder import Built
    from .cache import Cache
    from .key import Key
    from .manifest import Manifest
    from .recipe import Recipe, Request, Variant

Outcome = Literal["built", "served", "kept", "failed"]


class Fulfilled(NamedTuple):
    """What became of one record."""

    wanted: Wanted
    outcome: Outcome
    """`built` and `served` (it was there): the record is gone. `kept`: it stays, and
    `failed`: so it does, since the build failed."""
    reason: str
    built: Built | None = None


def fulfil(cache: Cache, wanted: Wanted, *, any_source: bool = False) -> Fulfilled:
    """Build what a record asks for, publish it, and remove the record if that serves who asked.

    Args:
        any_source: Also where the record names a source or commit of its own: whoever
            may write the store then chooses what runs here.

    Raises:
        NotPublished: the write policy asks for a store that did not take it.
    """
    record = wanted.record
    if record is None:
        return Fulfilled(wanted, "kept", f"it cannot be read: {wanted.problem}")
    if wanted.tier.down:
        return Fulfilled(wanted, "kept", "that store does not answer")
    try:
        return _fulfil(cache, wanted, record, any_source)
    except NotPublished:
        raise
    except BuildFailed as error:
        return Fulfilled(wanted, "failed", str(error))
    except StoreUnavailable as error:
        cache.give_up(wanted.tier, error)
        return Fulfilled(wanted, "kept", str(error))


def _fulfil(cache: Cache, wanted: Wanted, record: Record, any_source: bool) -> Fulfilled:
    if by := _server(wanted, record, [record.key]):
        drop(wanted)
        return Fulfilled(wanted, "served", f"{by.hash[:12]} is there")
    if not wanted.tier.writes:
        return Fulfilled(wanted, "kept", "that store is not written from here")
    own = record.request.ref or record.request.source or ""
    if not any_source and (record.request.ref or "/" in own):
        return Fulfilled(wanted, "kept", f"it names its own source, {own}: see --any-source")
    try:
        recipe = cache.recipe(wanted.recipe)
        variants = _variants(cache, recipe, record)
    except ArtcacheError as error:
        return Fulfilled(wanted, "kept", str(error))
    keys = [variant.key for variant in variants]
    if by := _server(wanted, record, keys):
        drop(wanted)
        return Fulfilled(wanted, "served", f"{by.hash[:12]} is there")
    if there := wanted.tier.repository.find(keys[0]):
        return Fulfilled(wanted, "kept", _why_not(there.manifest, record))
    if entry := cache.from_home(keys[0]):
        for moved in push(cache, [Chosen(keys[0], None)], wanted.tier):
            if moved.error:
                return Fulfilled(wanted, "kept", str(moved.error))
        if _server(wanted, record, keys):
            drop(wanted)
            return Fulfilled(wanted, "served", "copied from the home")
        return Fulfilled(wanted, "kept", _why_not(entry.manifest(), record))
    built = cache.build_variants(recipe, variants, reuse=True)
    if _server(wanted, record, keys):
        drop(wanted)
        return Fulfilled(wanted, "built", "", built)
    problem = built.unpublished.get(wanted.tier.url)
    reason = f"it was built and not published: {problem}" if problem else ""
    reason = reason or _why_not(built.fetched.entry.manifest(), record)
    return Fulfilled(wanted, "kept", reason, built)


def request_of(record: Record) -> Request:
    """The request with which another machine makes it: what the asking machine's own facts
    decided is said."""
    key, asked = record.key, record.request
    arch, cuda, cudnn = key.get("arch"), key.get("cuda"), key.get("cudnn")
    return asked._replace(
        archs=GpuArch.parse_list(arch) if isinstance(arch, tuple) and arch else asked.archs,
        cuda=cuda if isinstance(cuda, str) else asked.cuda,
        cudnn=cudnn if isinstance(cudnn, str) else asked.cudnn,
    )


def _variants(cache: Cache, recipe: Recipe, record: Record) -> list[Variant]:
    """What this machine would build for the record: that very artifact, or one that differs
    only in what `compat` judges.

    Raises:
        UsageError: neither; it says in what they differ.
    """
    variants = cache.variants(recipe, request_of(record))
    hashes = {record.key.hash, *record.others}
    if exact := [variant for variant in variants if variant.key.hash in hashes]:
        return exact
    if siblings_folder(variants[0].key) == siblings_folder(record.key) and record.match != "exact":
        return variants[:1]
    told = "; ".join(str(found) for found in record.key.differences(variants[0].key))
    raise UsageError(f"this machine makes another one: {told}")


def _server(wanted: Wanted, record: Record, keys: Sequence[Key]) -> Key | None:
    """The artifact in the record's store that serves who asked: of `keys`, or in their place."""
    repository = wanted.tier.repository
    siblings: Iterable[Key] = ()
    if record.match != "exact":
        siblings = repository.siblings(record.key)
    for key in [*keys, *siblings]:
        try:
            found = repository.find(key)
        except NewerFormat:
            continue
        if found and _serves(found.manifest, record):
            return key
    return None


def _serves(manifest: Manifest, record: Record) -> bool:
    if manifest.key.hash in (record.key.hash, *record.others):
        return True
    outcomes = {"exact": (), "compatible": (RUNS,), "jit": (RUNS, AFTER_JIT)}[record.match]
    return judge(manifest, record.host).outcome in outcomes


def _why_not(manifest: Manifest, record: Record) -> str:
    differing = [one for one in record.key.differences(manifest.key) if one.field in FLEXIBLE]
    reasons = [*map(str, differing), *judge(manifest, record.host).reasons]
    return f"{manifest.key.hash[:12]} does not serve who asked: {'; '.join(reasons)}"
