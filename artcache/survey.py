"""What is where: listing, explaining a miss, verifying, removing. For the faces and `cache`.

Unlike a fetch, these may list a store.
"""

from __future__ import annotations

import contextlib
import heapq
import statistics
import time
from collections.abc import Iterable, Iterator, Set
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from . import pins
from .errors import ArtcacheError, Corrupt, NewerFormat, StoreUnavailable, UsageError
from .key import Difference, Key

if TYPE_CHECKING:
    from .cache import Cache, Tier
    from .compat import Verdict
    from .layout import Listed
    from .manifest import Manifest
    from .recipe import Recipe, Request, Variant
    from .store import Store

_MOST_READ = 500
"""Manifests of one store that an explanation reads at most, the newest first."""
_MOST_LISTED = 10_000
"""Names among which it looks for these: a bucket sends a thousand at a time."""


@dataclass(frozen=True, slots=True)
class Row:
    """One artifact in one place."""

    where: str
    """`home`, or the store's URL."""
    key: Key
    size: int
    """Bytes of its files."""
    made: float
    """Seconds since the epoch."""
    build_seconds: float
    used: float | None = None
    """Seconds since the epoch; only the home knows."""
    path: Path | None = None
    manifest: Manifest | None = None
    pinned: float | None = None
    """Until when `gc` leaves it alone, in seconds since the epoch; `math.inf`: forever."""


@dataclass(frozen=True, slots=True)
class Near:
    """An artifact that a request did not match, and why."""

    row: Row
    differences: tuple[Difference, ...]
    verdict: Verdict | None = None
    """Whether it could run here all the same; None if nobody looked."""

    def __str__(self) -> str:
        told = "; ".join(str(difference) for difference in self.differences)
        return f"{self.row.key.hash[:12]} in {self.row.where} differs: {told}"


class Look(NamedTuple):
    """What one place said about one key."""

    where: str
    state: str
    """`hit`, `miss`, `corrupt`, `newer`, `unavailable`."""
    detail: str = ""


@dataclass(slots=True)
class Explanation:
    """Why the next fetch of a request would hit or miss."""

    variant: Variant
    looks: list[Look]
    near: list[Near] = field(default_factory=list)
    stand_in: Near | None = None
    """What a fetch would take in its place, since it provably runs here."""
    build_seconds: float | None = None
    """What a build would cost: the median of the recorded ones of this recipe."""

    @property
    def hit(self) -> str:
        """Where the fetch would find it, or ''."""
        return next((look.where for look in self.looks if look.state == "hit"), "")


def rows(cache: Cache, recipe: str | None = None, *, most: int | None = None) -> Iterator[Row]:
    """Every artifact in the home and in each store that answers.

    Args:
        most: Read at most so many manifests of a store, the newest.
    """
    yield from home_rows(cache, recipe)
    for tier in cache.readers():
        yield from store_rows(cache, tier, recipe, most=most)


def home_rows(cache: Cache, recipe: str | None = None) -> Iterator[Row]:
    held = pins.pinned(pins.place(cache.home))
    for entry in cache.home.entries(recipe):
        if isinstance(entry, Corrupt):
            cache.observer.warn(f"{entry}; the next fetch replaces it")
            continue
        yield Row(
            "home",
            entry.key,
            entry.size,
            entry.made,
            entry.build_seconds,
            entry.used,
            entry.path,
            pinned=held.get((entry.key.recipe, entry.key.hash)),
        )


def store_rows(
    cache: Cache,
    tier: Tier,
    recipe: str | None = None,
    *,
    most: int | None = None,
    prefix: str = "",
) -> Iterator[Row]:
    """A store's artifacts as they are read, several at once where reading means waiting.

    Args:
        most: Read at most so many manifests, the newest of those that come first.
        prefix: Only those whose hash begins so; no other manifest is read.
    """
    try:
        from .listing import read_all

        repository = tier.repository
        listed: Iterable[Listed] = (
            one for one in repository.manifests(recipe) if one.hash.startswith(prefix)
        )
        if most is not None:
            listed = heapq.nlargest(
                most, islice(listed, _MOST_LISTED), key=lambda found: found.modified
            )
        held = pins.pinned(repository.store)
        for found, manifest in read_all(repository, listed):
            if isinstance(manifest, ArtcacheError):
                cache.observer.warn(str(manifest))
            elif manifest:
                yield Row(
                    tier.url,
                    manifest.key,
                    manifest.size,
                    found.modified,
                    manifest.build_seconds,
                    manifest=manifest,
                    pinned=held.get((found.recipe, found.hash)),
                )
        cache.tell_problems(tier)
    except StoreUnavailable as error:
        cache.give_up(tier, error)


def nearest(cache: Cache, key: Key, *, most: int) -> list[Near]:
    """The artifacts of the same recipe with the fewest differing fields, one a key."""
    found: dict[str, Near] = {}
    for row in rows(cache, key.recipe, most=_MOST_READ):
        if row.key != key:
            found.setdefault(row.key.hash, Near(row, key.differences(row.key)))
    return sorted(found.values(), key=lambda near: (len(near.differences), -near.row.made))[:most]


def explain(
    cache: Cache, recipe: str | Recipe, request: Request, *, most: int = 3
) -> list[Explanation]:
    """For each variant that could serve the request: who has it, and what comes near."""
    told = []
    for variant in cache.variants(recipe, request):
        looks = [_look_home(cache, variant.key)]
        looks += [_look_store(tier, variant.key) for tier in cache.readers()]
        explanation = Explanation(variant, looks)
        if not explanation.hit:
            _explain_miss(cache, explanation, most, strict=bool(request.archs or request.cuda))
        told.append(explanation)
    return told


def _explain_miss(cache: Cache, explanation: Explanation, most: int, *, strict: bool) -> None:
    from .match import best, judge

    key = explanation.variant.key
    near = nearest(cache, key, most=_MOST_READ)
    costs = [one.row.build_seconds for one in near if one.row.build_seconds]
    explanation.build_seconds = statistics.median(costs) if costs else None
    for one in near[:most]:
        with contextlib.suppress(Corrupt):
            judged = judge(manifest_of(cache, one.row), cache.host)
            explanation.near.append(Near(one.row, one.differences, judged))
    if not strict and (chosen := best(cache, key, "compatible")):
        other = chosen.manifest.key
        found = [one for one in near if one.row.key == other]
        if found:
            explanation.stand_in = Near(found[0].row, found[0].differences, chosen.verdict)


def _look_home(cache: Cache, key: Key) -> Look:
    try:
        entry = cache.home.lookup(key)
    except Corrupt as error:
        return Look("home", "corrupt", str(error))
    return Look("home", "hit", str(entry.path)) if entry else Look("home", "miss")


def _look_store(tier: Tier, key: Key) -> Look:
    try:
        found = tier.repository.find(key)
    except NewerFormat as error:
        return Look(tier.url, "newer", str(error))
    except ArtcacheError as error:
        return Look(tier.url, "unavailable", str(error))
    if problems := tier.repository.problems:
        detail = "; ".join(problems)
        problems.clear()
        return Look(tier.url, "corrupt", detail)
    return Look(tier.url, "hit", found.name) if found else Look(tier.url, "miss")


# -- one artifact by name -----------------------------------------------------------------


def matching(cache: Cache, target: str, request: Request) -> list[Row]:
    """The rows that `target` names: a hash or at least 4 digits of it, or a recipe.

    A recipe names the artifact that a fetch with this request would use.

    Raises:
        UsageError: several artifacts begin with these digits, or none does.
    """
    if is_digits(target):
        found = list(_with_hash(cache, None, target))
        only_one(target, {row.key.hash for row in found})
        return found
    variants = cache.variants(target, request)
    for variant in variants:
        key = variant.key
        if found := [row for row in _with_hash(cache, key.recipe, key.hash) if row.key == key]:
            return found
    raise UsageError(
        f"there is no {target} {variants[0].key.hash[:12]} here or in a store",
        hint=f"see `artcache explain {target}`",
    )


def _with_hash(cache: Cache, recipe: str | None, prefix: str) -> Iterator[Row]:
    for row in home_rows(cache, recipe):
        if row.key.hash.startswith(prefix):
            yield row
    for tier in cache.readers():
        yield from store_rows(cache, tier, recipe, prefix=prefix)


def places_of(cache: Cache, *, stores: bool) -> list[tuple[str, Store]]:
    """What may be pinned or collected in: the home, or each of the stores.

    Raises:
        UsageError: a store is configured as read-only.
    """
    if not stores:
        return [("home", pins.place(cache.home))]
    for tier in cache.tiers:
        if not tier.writes:
            raise UsageError(f"{tier.url} is read-only here", hint=f"--store {tier.url}")
    return [(tier.url, tier.repository.store) for tier in cache.tiers]


def located(
    cache: Cache, target: str, request: Request, *, stores: bool
) -> list[tuple[Row, Store]]:
    """As `matching`, in the home only or in the stores only, each with where its pins are kept.

    Raises:
        UsageError: it is not there.
    """
    found = matching(cache, target, request)
    kept = dict(places_of(cache, stores=stores))
    if chosen := [(row, kept[row.where]) for row in found if row.where in kept]:
        return chosen
    row, wanted = found[0], "a store that was named" if stores else "the home"
    raise UsageError(
        f"{row.key.recipe} {row.key.hash[:12]} is not in {wanted}; it is in {row.where}",
        hint="leave out --store" if stores else f"add --store {row.where}",
    )


def is_digits(target: str) -> bool:
    """Whether it is a hash or its beginning, and not a recipe."""
    return 4 <= len(target) <= 32 and not set(target) - set("0123456789abcdef")


def only_one(target: str, hashes: Set[str]) -> None:
    """Raises `UsageError` unless the digits `target` begin one hash."""
    if len(hashes) > 1:
        raise UsageError(
            f"{target} begins {len(hashes)} artifacts' hashes",
            hint="give more digits: " + ", ".join(name[:12] for name in sorted(hashes)[:5]),
        )
    if not hashes:
        raise UsageError(f"no artifact's hash begins with {target}", hint="see `artcache ls`")


def manifest_of(cache: Cache, row: Row) -> Manifest:
    """Raises `Corrupt`."""
    if row.manifest:
        return row.manifest
    entry = cache.home.lookup(row.key)
    if not entry:
        raise Corrupt(f"{row.key.hash[:12]} went away")
    return entry.manifest()


# -- verify, remove -----------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Check:
    """The result of checking one artifact in one place."""

    row: Row
    problem: str = ""
    seconds: float = 0.0


def verify(cache: Cache, chosen: Iterable[Row], *, deep: bool) -> Iterator[Check]:
    """Check every byte of trees in the home and, if `deep`, of packs in stores.

    What is broken is quarantined: the next fetch makes it anew.
    """
    tiers = {tier.url: tier for tier in cache.tiers}
    for row in chosen:
        start = time.perf_counter()
        if row.where == "home":
            problem = _verify_home(cache, row)
        elif deep:
            problem = _verify_store(tiers[row.where], row)
        else:
            continue
        yield Check(row, problem, time.perf_counter() - start)


def _verify_home(cache: Cache, row: Row) -> str:
    try:
        if cache.home.lookup(row.key, verify=True):
            return ""
        return "it is gone"
    except Corrupt as error:
        return f"{error}; moved to {cache.home.quarantine(row.key)}"


def _verify_store(tier: Tier, row: Row) -> str:
    from .repository import pack_name

    assert row.manifest
    try:
        bad = tier.repository.bad_packs(row.manifest)
    except StoreUnavailable as error:
        return str(error)
    for pack, why in bad.items():
        tier.repository.set_aside(pack_name(pack.blake3), why)
    if bad and (found := tier.repository.find(row.key)):
        tier.repository.set_aside(found.name, "its pack is corrupt")
    problems = "; ".join(tier.repository.problems)
    tier.repository.problems.clear()
    return problems


def remove(cache: Cache, row: Row) -> list[str]:
    """Remove one artifact from one place; returns what was removed.

    Raises:
        StoreUnavailable: the store refused or does not answer.
    """
    if row.where == "home":
        return [str(row.path)] if cache.home.remove(row.key) else []
    tier = next(tier for tier in cache.tiers if tier.url == row.where)
    return [f"{tier.url}/{name}" for name in tier.repository.remove(row.key)]
