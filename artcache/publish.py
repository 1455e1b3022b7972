"""Writing to stores: which should have a build, whether they take it, and which of them must.

For `builder`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .compression import Compression, for_link
from .errors import ArtcacheError, NotPublished, StoreDenied
from .frames import threads

if TYPE_CHECKING:
    from .builder import Built
    from .cache import Cache
    from .recipe import Recipe
    from .tier import Tier


def compression_for(cache: Cache, tiers: Iterable[Tier]) -> Compression:
    """How hard to compress what these stores get: as was asked, or as suits the slowest."""
    if cache.compression != "auto":
        return cache.compression
    known = [rate for tier in tiers if (rate := cache.home.memory.rate(tier.url))]
    return for_link(min(known, default=0.0), threads())


def note_rate(cache: Cache, tier: Tier) -> None:
    """Remember how quickly the store took the pack that was just published."""
    if rate := tier.repository.upload_rate:
        cache.home.memory.remember_rate(tier.url, rate)


class Targets:
    """The stores that should get what a build makes."""

    def __init__(self, cache: Cache, recipe: Recipe, *, publish: bool = True) -> None:
        """Args:
        publish: Whether there are any.
        """
        self._cache = cache
        allowed = []
        for tier in cache.tiers:
            if tier.writes and publish and not (refusal := tier.refuses(recipe)):
                allowed.append(tier)
            elif tier.writes and publish:
                cache.observer.warn(refusal)
        self._needed = _needed(cache, allowed)
        self.all = [
            tier
            for tier in allowed
            if tier in self._needed or not (tier.down or tier.denied)
        ]  # fmt: skip
        """In order. One that is needed is tried although it did not answer before."""

    def probe(self) -> None:
        """Find out, before a build, which of them cannot be written, and say so.

        Raises:
            NotPublished: the write policy asks for one of those.
        """
        for tier in self.all:
            if tier.took:
                continue
            try:
                tier.repository.probe()
                tier.took = True
            except StoreDenied as error:
                if tier in self._needed:
                    raise NotPublished(
                        f"{error}; nothing was built, since the write policy"
                        f" {self._cache.write_policy!r} asks for that store",
                        hint=_advice(error, "go on without it by --write-policy ignore"),
                    ) from error
                tier.denied = True
                self._cache.observer.warn(
                    f"{error}; what is built will not be there"
                    + (f" ({error.hint})" if error.hint else "")
                )
            except ArtcacheError:
                continue  # it may answer when there is something to publish, which tells
        self.all = [tier for tier in self.all if not tier.denied]

    def give_up(self, tier: Tier, error: ArtcacheError) -> None:
        """One warning, or later the error of `demand`."""
        if tier in self._needed:
            tier.down = True
        else:
            self._cache.give_up(tier, error)

    def demand(self, builts: Iterable[Built]) -> None:
        """Raises `NotPublished` if the write policy asks for a store that took none of them."""
        needed = [tier.url for tier in self._needed]
        for built in builts:
            if missing := [url for url in needed if url in built.unpublished]:
                key = built.fetched.key
                commands = [f"`artcache push {key.hash[:12]} --to {url}`" for url in missing]
                raise NotPublished(
                    f"{key.recipe} {key.hash[:12]} was built and is in the home, but the write"
                    f" policy {self._cache.write_policy!r} asks for it in "
                    + "; ".join(f"{url}: {built.unpublished[url]}" for url in missing),
                    hint=f"the same fetch finds it there; publish it with {', '.join(commands)}",
                )


def _needed(cache: Cache, allowed: Sequence[Tier]) -> list[Tier]:
    if cache.write_policy == "ignore":
        return []
    writable = [tier for tier in allowed if _is_writable(tier)]
    return writable if cache.write_policy == "all" else writable[:1]


def _is_writable(tier: Tier) -> bool:
    """False for a store that can only be read by its nature (https)."""
    try:
        return tier.repository.store.traits.writable
    except ArtcacheError:
        return True


def _advice(error: ArtcacheError, more: str) -> str:
    return f"{error.hint}; or {more}" if error.hint else more
