"""One builder across machines: whose turn it is to build, waiting for it, being waited for.

For `builder` only. A lease that cannot be had is no reason not to build.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, cast

from .cache import Cache
from .errors import ArtcacheError, NewerFormat, StoreDenied, StoreUnavailable
from .repository import Found
from .store import SwapStore
from .tier import Tier

if TYPE_CHECKING:
    from .key import Key
    from .stores.lease import Holder, Lease

_POLL = (0.5, 3.0)
"""Seconds between two looks: the first, and the longest."""


class Made(NamedTuple):
    """What another machine published while we waited."""

    tier: Tier
    found: Found


@contextlib.contextmanager
def turn(cache: Cache, key: Key, tiers: Sequence[Tier]) -> Iterator[Made | None]:
    """Yield None when it is our turn to build; or what whoever had it made meanwhile.

    Args:
        tiers: Stores that will get what is built; the first that can lend the turn does.
    """
    with contextlib.ExitStack() as stack:
        made = None
        if tier := _lender(tiers):
            try:
                made = _wait(cache, key, tier, stack)
            except StoreDenied:
                pass  # that it can't be written is told by whoever writes
            except StoreUnavailable as error:
                cache.observer.note(f"building without a look at who else does: {error}")
            finally:
                cache.tell_problems(tier)
        yield made


@contextlib.contextmanager
def held(cache: Cache, keys: Sequence[Key], tiers: Sequence[Tier]) -> Iterator[None]:
    """Build without waiting: say who builds the same, and have those who miss it wait for us.

    Args:
        tiers: As for `turn`.
    """
    with contextlib.ExitStack() as stack:
        if tier := _lender(tiers):
            try:
                for key in keys:
                    _hold(cache, key, tier, stack)
            except StoreDenied:
                pass  # as above
            except StoreUnavailable as error:
                cache.observer.note(f"nobody will wait for this build: {error}")
        yield


def _hold(cache: Cache, key: Key, tier: Tier, stack: contextlib.ExitStack) -> None:
    lease = _lease(tier, key)
    if holder := lease.take():
        cache.observer.note(
            f"{holder.name} builds the same {key.recipe} {key.hash[:12]}, {_state(holder)};"
            " building it here all the same"
        )
        return
    tier.took = True
    stack.push(lambda kind, error, trace: _release(lease, error))


def _lender(tiers: Sequence[Tier]) -> Tier | None:
    for tier in tiers:
        with contextlib.suppress(ArtcacheError):
            if tier.reads and not tier.down and tier.repository.store.traits.swaps:
                return tier
    return None


def _lease(tier: Tier, key: Key) -> Lease:
    from .stores.lease import Lease

    name = f"v1/leases/{key.recipe}/{key.hash}.json"
    return Lease(cast(SwapStore, tier.repository.store), name)


def _wait(cache: Cache, key: Key, tier: Tier, stack: contextlib.ExitStack) -> Made | None:
    repository, lease = tier.repository, _lease(tier, key)
    told, pause = "", _POLL[0]
    while True:
        holder = lease.take()
        if holder is None:
            tier.took = True
            stack.push(lambda kind, error, trace: _release(lease, error))
        # A newer version's artifact is none to us: we build, as everybody does on a miss.
        with contextlib.suppress(NewerFormat):
            if found := repository.find(key):
                return Made(tier, found)
        if holder is None:
            return None
        if holder.failed:
            cache.observer.note(f"the build by {holder.name} failed ({holder.failed}); trying here")
            return None
        if holder.name != told:
            told, words = holder.name, f"{_state(holder)}{_usual(cache, tier, key)}"
            cache.observer.phase("wait", f"for {told}, which builds the same, {words}")
        cache.observer.line(_state(holder))
        time.sleep(pause * random.uniform(0.7, 1.3))
        pause = min(pause * 1.5, _POLL[1])


def _release(lease: Lease, error: BaseException | None) -> bool:
    words = " ".join(str(error).split())[:300] or type(error).__name__ if error else ""
    lease.release(failed=words if isinstance(error, ArtcacheError) else "")
    return False


def _state(holder: Holder) -> str:
    """E.g. `at it for 35 s`, and that it may be gone."""
    words = f"at it for {holder.held + holder.silent:.0f} s"
    if holder.silent > 12:
        words += f", no sign of life for {holder.silent:.0f} s"
    return words


def _usual(cache: Cache, tier: Tier, key: Key) -> str:
    """How long the last build of such a thing took, if that is easily known."""
    seconds = 0.0
    for entry in cache.home.entries(key.recipe):
        if not isinstance(entry, Exception):
            seconds = entry.build_seconds or seconds
    with contextlib.suppress(ArtcacheError):
        for sibling in tier.repository.siblings(key):
            if found := tier.repository.find(sibling):
                seconds = found.manifest.build_seconds
                break
    return f"; the last such build took {seconds:.0f} s" if seconds else ""
