"""Asking the stores, in order, and restoring from the first that has it.

For `cache` and `builder`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from .cache import Cache, Served
from .disk import disk_errors
from .errors import Corrupt, NewerFormat, OverLimit, StoreUnavailable

if TYPE_CHECKING:
    from .home import Entry
    from .match import Match
    from .recipe import Variant
    from .repository import Found
    from .tier import Tier


def from_stores(
    cache: Cache, variant: Variant, newer: list[NewerFormat | OverLimit]
) -> Served | None:
    """Exactly this variant, from the first store that has it.

    Args:
        newer: Gets the errors of artifacts that this version can't read.
    """
    for tier in cache.readers():
        try:
            if found := tier.repository.find(variant.key):
                return _restored(cache, tier, found), tier.url, variant.note
        except (NewerFormat, OverLimit) as error:
            newer.append(error)
            cache.observer.warn(f"{error}" + (f"; {error.hint}" if error.hint else ""))
        except StoreUnavailable as error:
            cache.give_up(tier, error)
        except Corrupt:
            continue  # its problems are told below
        finally:
            cache.tell_problems(tier)
    return None


def stand_in(cache: Cache, variants: list[Variant], match: Match) -> Served | None:
    """The best artifact that provably runs here in place of a variant."""
    from .match import best

    for variant in variants:
        chosen = best(cache, variant.key, match)
        if chosen is None:
            continue
        note = "; ".join(filter(None, [variant.note, chosen.note]))
        if chosen.entry:
            return chosen.entry, "home", note
        if chosen.tier and chosen.found:
            with contextlib.suppress(Corrupt):
                try:
                    return _restored(cache, chosen.tier, chosen.found), chosen.tier.url, note
                finally:
                    cache.tell_problems(chosen.tier)
    return None


def _restored(cache: Cache, tier: Tier, found: Found) -> Entry:
    key = found.manifest.key
    with cache.home.lock(key, waiting=cache.waiting):
        if entry := cache.from_home(key):  # whom we waited for restored it
            return entry
        return restore(cache, tier, found)


def restore(cache: Cache, tier: Tier, found: Found) -> Entry:
    """Bring an artifact into the home; its lock is held by the caller."""
    manifest = found.manifest
    cache.observer.phase("restore", f"{manifest.key.recipe} from {tier.url}")
    done = 0

    def progress(count: int) -> None:
        nonlocal done
        done += count
        cache.observer.progress(done, manifest.size)

    with (
        cache.home.staging() as staging,
        disk_errors(cache.home.root, doing="restore", needed=manifest.size),
    ):
        staged = staging / "entry"
        staged.mkdir()
        tier.repository.restore(found, staging, progress).rename(staged / "tree")
        return cache.home.commit(staged, manifest, tier.url)
