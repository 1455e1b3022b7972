"""Which artifacts of the home or a store are meant. For callers of `send` and `archive`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..compat import NO
from ..errors import (
    ArtcacheError,
    Corrupt,
    NewerFormat,
    OverLimit,
    StoreUnavailable,
    UnknownRecipe,
    UsageError,
)
from ..match import judge
from ..supply import lacking, recorded
from ..survey import is_digits, only_one

if TYPE_CHECKING:
    from ..cache import Cache
    from ..key import Key
    from ..manifest import Manifest
    from ..recipe import Request, Supplier
    from ..tier import Tier


_Answer = TypeVar("_Answer")


class Chosen(NamedTuple):
    key: Key
    place: Tier | None
    """Where it is; None: in the home."""
    named: bool = True
    """The user named this very one."""


def choose(
    cache: Cache,
    places: Sequence[Tier | None],
    targets: Sequence[str],
    request: Request,
    *,
    recipe: str | None = None,
) -> list[Chosen]:
    """The artifacts that `targets` name, each in the first of `places` that has it.

    Args:
        targets: Recipes (what a fetch with `request` would use) or the first digits of
            hashes; none: all artifacts.
        recipe: Of all, those of this recipe.

    Raises:
        UsageError: a target names none, or several; or the only place cannot be listed.
        StoreUnavailable: the only place does not answer; of several it is a warning.
    """
    if targets:
        found = [_named(cache, places, target, request) for target in targets]
    else:
        asked = _asked(cache, places, lambda at: list(keys_in(cache, at, recipe)))
        found = [Chosen(key, at, named=False) for at, keys in asked for key in keys]
        found.sort(key=lambda one: (one.key.recipe, one.key.hash))
    return list({one.key: one for one in reversed(found)}.values())[::-1]


def _asked(
    cache: Cache, places: Sequence[Tier | None], ask: Callable[[Tier | None], _Answer]
) -> Iterator[tuple[Tier | None, _Answer]]:
    """What each place says; of several, one that does not answer is one warning."""
    for place in places:
        try:
            if not (place and place.down):
                yield place, ask(place)
        except (StoreUnavailable, UsageError) as error:
            if place is None or len(places) == 1:
                raise
            if isinstance(error, StoreUnavailable):
                cache.give_up(place, error)
            else:
                cache.observer.warn(str(error))


def keys_in(
    cache: Cache, place: Tier | None, recipe: str | None = None, digits: str = ""
) -> Iterator[Key]:
    """The keys of the artifacts in one place; a warning for each that cannot be read."""
    if place is None:
        for entry in cache.home.entries(recipe):
            if isinstance(entry, Corrupt):
                cache.observer.warn(f"{entry}; the next fetch replaces it")
            elif entry.key.hash.startswith(digits):
                yield entry.key
        return
    if not place.repository.store.traits.lists:
        raise UsageError(
            f"{place.url} cannot be listed", hint="name recipes: what is there is found by its key"
        )
    for listed in place.repository.manifests(recipe):
        if listed.hash.startswith(digits):
            try:
                if manifest := place.repository.read(listed):
                    yield manifest.key
            except (NewerFormat, OverLimit) as error:
                cache.observer.warn(str(error))
    cache.tell_problems(place)


def _named(cache: Cache, places: Sequence[Tier | None], target: str, request: Request) -> Chosen:
    if is_digits(target):
        asked = _asked(cache, places, lambda at: list(keys_in(cache, at, digits=target)))
        found = [Chosen(key, at) for at, keys in asked for key in keys]
        only_one(target, {one.key.hash for one in found})
        return found[0]
    variants = cache.variants(target, request)
    keys = [variant.key for variant in variants]
    if None in places and (alias := cache.home.memory.alias(keys[0])):
        keys.append(alias[0])
    for key in keys:
        for place, manifest in _asked(cache, places, partial(manifest_in, cache, key=key)):
            if manifest:
                return Chosen(key, place)
    where = ", ".join(place.url if place else "the home" for place in places)
    raise UsageError(
        f"there is no {target} {keys[0].hash[:12]} in {where}",
        hint=f"see `artcache explain {target}` and `artcache ls {target}`",
    )


def manifest_in(cache: Cache, place: Tier | None, key: Key) -> Manifest | None:
    """What a place has under this key. Raises `StoreUnavailable`, `NewerFormat`."""
    if place is None:
        entry = cache.from_home(key)
        return entry.manifest() if entry else None
    found = place.repository.find(key)
    cache.tell_problems(place)
    return found.manifest if found else None


# -- what it needs to run -----------------------------------------------------------------


def with_libraries(cache: Cache, chosen: Sequence[Chosen], *, here: bool = False) -> list[Chosen]:
    """With the artifacts of the same place whose shared libraries these need.

    What is needed and is not there is noted, and missing at the other end.

    Args:
        here: They are meant for this machine, and what it has by itself is left out.
    """
    found = {one.key: one for one in chosen}
    todo = list(chosen)
    while todo:
        one = todo.pop()
        for key in _libraries(cache, one, here):
            if key not in found:
                found[key] = Chosen(key, one.place, named=False)
                todo.append(found[key])
    return list(found.values())


def _libraries(cache: Cache, one: Chosen, here: bool) -> Iterator[Key]:
    manifest = manifest_in(cache, one.place, one.key)
    if not manifest or not manifest.needs.sonames:
        return
    needed, seen = set(manifest.needs.sonames), set()
    if here:
        runs = judge(manifest, cache.host).outcome != NO
        needed = lacking(cache, manifest)[1] if runs else set()
    if one.place is None and (entry := cache.from_home(one.key)):
        for key in recorded(cache, entry):
            seen.add(key.recipe)
            yield key
    for name in sorted(needed):
        supplier = _supplier(cache, one.key, name)
        if not supplier or supplier.recipe in seen:
            continue
        seen.add(supplier.recipe)
        there = [key for key in _keys(cache, supplier) if manifest_in(cache, one.place, key)]
        yield from there[:1]
        if not there:
            where = one.place.url if one.place else "the home"
            cache.observer.note(
                f"{one.key.recipe} {one.key.hash[:12]} needs {name} of {supplier.recipe},"
                f" which is not in {where}"
            )


def _supplier(cache: Cache, key: Key, soname: str) -> Supplier | None:
    try:
        return cache.recipe(key.recipe).supplier(soname, key)
    except UnknownRecipe:
        return None


def _keys(cache: Cache, supplier: Supplier) -> list[Key]:
    try:
        return [one.key for one in cache.variants(supplier.recipe, supplier.request)]
    except ArtcacheError:  # nothing that this machine could use
        return []
