"""What goes from a store: artifacts, the packs that no manifest names, and litter.

Others publish and fetch meanwhile, and no lock holds them off. docs/stores.md
has the protocol and why it is safe; in short:

- A pack is first moved to the trash, where readers still find it, and deleted
  by a run after the grace period.
- After it moved packs, a run lists the manifests once more and brings back what
  was named meanwhile; a publisher looks for its packs once its manifest is there.
  Whichever was later sees the other.
- Ages are by the store's own clock.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import NamedTuple

from .. import pins
from ..cache import Cache
from ..errors import (
    ArtcacheError,
    LocalDisk,
    ObjectExists,
    ObjectNotFound,
    OverLimit,
    StoreFull,
    UsageError,
)
from ..key import canonical_json
from ..layout import PACKS, PROBES, RECENT, SIBLINGS, TRASH, WANTED, Listed, pack_name
from ..listing import each
from ..manifest import MAX_BYTES
from ..store import Littered, StoredObject
from ..tier import Tier
from ..units import DAY, human_age
from . import KEPT_LITTER, Removal, Rules, doomed
from .ledger import Dropped, Ledger, Pack, Trashed

MARKS = "v1/gc"
_SHORT = 600.0
"""Seconds that a writer's file and what another run moved stay, whatever the grace."""
_DIGEST = re.compile(r"[0-9a-f]{64}")
_DOUBLE = re.compile(r"([0-9a-f]{64})(?: ?\(\d+\)\.pack|\.pack ?\(\d+\))")
_TRASHED = re.compile(r"(\d{1,12})-([0-9a-f]{16})\.pack")
_OLD = (
    ("v1/leases", "lease", _SHORT),
    (PROBES, "probe", DAY),
    ("v1/quarantine", "quarantine", KEPT_LITTER),
    (WANTED, "wanted", 90 * DAY),
)


class _Named(NamedTuple):
    """A manifest and the packs that it names."""

    listed: Listed
    packs: list[str]
    known: bool = True
    """False: it may name others too."""


def collect(cache: Cache, tier: Tier, rules: Rules, *, dry_run: bool) -> Iterator[Removal]:
    """Remove what the rules say from a store, each thing when it is yielded.

    Raises:
        UsageError: the store cannot be listed.
        StoreUnavailable: it does not answer, or refuses. What was done so far is whole.
        LocalDisk: no room for a temporary file.
    """
    if not tier.repository.store.traits.lists:
        raise UsageError(
            f"{tier.url} cannot be listed, so nothing can be collected there",
            hint="name it by its gs:// or s3:// URL",
        )
    collector = _Collector(cache, tier, rules, dry_run)
    try:
        yield from collector.collect()
    except sqlite3.Error as error:
        raise LocalDisk(
            f"the table of what {tier.url} holds cannot be kept here: {error}",
            hint="set SQLITE_TMPDIR to a folder with more room",
        ) from error
    finally:
        collector.end()


class _Collector:
    def __init__(self, cache: Cache, tier: Tier, rules: Rules, dry_run: bool) -> None:
        self.cache, self.rules, self.dry_run = cache, rules, dry_run
        self.repository, self.store = tier.repository, tier.repository.store
        self.ledger = Ledger()
        self.run = os.urandom(8).hex()
        self.now = time.time()
        self.others: dict[str, float] = {}
        self.doubles: list[tuple[StoredObject, str]] = []
        self.unreadable = 0
        self.pinned: pins.Pinned = {}

    def collect(self) -> Iterator[Removal]:
        if next(self.store.list("v1"), None) is None:
            self.cache.observer.note(f"{self.repository.url} holds nothing")
            return  # a folder that is no store doesn't become one
        self._mark()
        self._survey()
        yield from self._artifacts()
        if self.unreadable:
            self.cache.observer.warn(
                f"{self.repository.url}: {self.unreadable} manifests are of a newer artcache or too"
                " large, so nobody knows here which packs they name: all packs stay"
            )
        else:
            yield from self._packs()
        yield from self._gone(self._trash())
        for _ in self._gone(self._hints(ours=True)):
            pass  # it goes with its artifact
        yield from self._gone(self._hints(ours=False))
        yield from self._gone(self._litter())
        yield from self._leftovers()
        self._tell_lacking()

    def end(self) -> None:
        self.ledger.close()
        if not self.dry_run:
            with contextlib.suppress(ArtcacheError):
                self.store.delete(f"{MARKS}/{self.run}.json")

    # -- looking --------------------------------------------------------------------------

    def _mark(self) -> None:
        """Write down that a run is under way; when, the store says. A dry run writes nothing,
        a full store takes nothing: then this machine's clock counts."""
        if self.dry_run:
            return
        body = {"gc": 1, "grace": int(self.rules.grace)}
        try:
            self.store.create(f"{MARKS}/{self.run}.json", canonical_json(body))
        except StoreFull as error:
            self.cache.observer.warn(
                f"{error}; this run cannot say that it is under way: start no other until it ends"
            )

    def _survey(self) -> None:
        """List everything; the manifests last, so that what was seen before them is judged
        by all that were there at that moment."""
        for found in self.store.list(TRASH):
            blake3, _, rest = found.name.removeprefix(f"{TRASH}/").partition("/")
            if match := _TRASHED.fullmatch(rest):
                trashed = Trashed(found.name, blake3, float(match[1]), match[2], found.size)
                self.ledger.add_trash(trashed)
        for found in self.store.list(MARKS):
            run = found.name.rpartition("/")[2].removesuffix(".json")
            if run == self.run:
                self.now = found.modified
            else:
                self.others[run] = found.modified
        for found in self.store.list(PACKS):
            file = found.name.rpartition("/")[2]
            blake3 = file.removesuffix(".pack")
            if _DIGEST.fullmatch(blake3) and found.name == pack_name(blake3):
                self.ledger.add_pack(blake3, found.size, found.modified)
            elif match := _DOUBLE.fullmatch(file):
                self.doubles.append((found, match[1]))
        for found in chain(self.store.list(SIBLINGS), self.store.list(RECENT)):
            _, _, recipe, *_, file = found.name.split("/")
            hash_ = file.removesuffix(".json")[-32:]  # before it may stand when it was published
            self.ledger.add_hint(found.name, recipe, hash_, found.modified, found.size)
        self.pinned = pins.pinned(self.store, self.now)
        self._read_new()

    def _read_new(self) -> None:
        """Read every manifest that the ledger does not have."""
        listed = (one for one in self.repository.manifests() if not self.ledger.knows(one))
        for named in each(self.repository, self._named, listed):
            if named:
                self.unreadable += not named.known
                self.ledger.add_manifest(named.listed, named.packs)

    def _named(self, one: Listed) -> _Named | None:
        """The packs that a manifest names, taken at its word: rather too many than too few.
        None: it is gone."""
        try:
            body = json.loads(self.store.get(one.name, limit=MAX_BYTES))
            rows, format_ = body["packs"], body["artcache"]
            packs = [row[0] for row in rows if _DIGEST.fullmatch(row[0])]
            return _Named(one, packs, format_ == 1 and len(packs) == len(rows))
        except ObjectNotFound:
            return None
        except OverLimit:
            return _Named(one, [], known=False)
        except (ValueError, TypeError, KeyError, IndexError, RecursionError):
            self.cache.observer.warn(
                f"{self.repository.url}: {one.name} is corrupt; the next fetch moves it away"
            )
            return _Named(one, [])

    # -- artifacts ------------------------------------------------------------------------

    def _artifacts(self) -> Iterator[Removal]:
        items = self.ledger.items(self.pinned)
        chosen = doomed(items, self.rules, now=self.now, total=lambda: self.ledger.total)
        dropped = (self.ledger.drop(item, why) for item, why in chosen)
        for one, gone in each(self.repository, self._remove_artifact, dropped):
            if not gone:
                self.ledger.take_back(one)
                continue
            at_once = not self.rules.grace
            item = one.item
            yield Removal(
                "artifact",
                f"{item.recipe} {item.hash[:12]}",
                f"{one.why}; made {human_age(self.now - item.when)} ago",
                one.size + (one.pack_bytes if at_once else 0),
                0 if at_once else one.pack_bytes,
                item.recipe,
                item.hash,
            )

    def _remove_artifact(self, one: Dropped) -> tuple[Dropped, bool]:
        """Unless somebody pinned it meanwhile."""
        if not self.dry_run:
            if pins.is_pinned(self.store, one.item.recipe, one.item.hash, self.now):
                return one, False
            for name in one.names:
                self.store.delete(name)
        return one, True

    # -- packs ----------------------------------------------------------------------------

    def _packs(self) -> Iterator[Removal]:
        """Move what no manifest names to the trash, then bring back what one names by now."""
        at_once = not self.rules.grace
        orphans = self.ledger.orphans(self.now - self.rules.grace)
        for pack, name in each(self.repository, self._move_away, orphans):
            if name and not self.dry_run:
                self.ledger.moved(pack.blake3, name)
            if name and not pack.dropped:  # else it was told with its artifact
                why = f"no manifest names it, {human_age(self.now - pack.modified)} old"
                sizes = (pack.size, 0) if at_once else (0, pack.size)
                yield Removal("pack", pack_name(pack.blake3), why, *sizes)
        if self.dry_run:
            return
        self._read_new()
        for blake3, name in self.ledger.moved_away(named=True):
            self._bring_back(blake3, name)
        left = self.ledger.moved_away(named=False)
        if self.unreadable:  # one was published just now
            for blake3, name in left:
                self._bring_back(blake3, name)
        elif at_once:
            for _ in self._gone(Removal("trash", name, "") for _, name in left):
                pass

    def _move_away(self, pack: Pack) -> tuple[Pack, str]:
        """To the trash, under a name that no other run makes or deletes; '' if it is gone."""
        name = f"{TRASH}/{pack.blake3}/{int(self.now)}-{self.run}.pack"
        if not self.dry_run:
            try:
                self.store.move(pack_name(pack.blake3), name)
            except ObjectNotFound:
                return pack, ""
        return pack, name

    def _bring_back(self, blake3: str, name: str) -> None:
        """Unless it is there again: whoever named it looked, and stored it anew."""
        with contextlib.suppress(ObjectNotFound, ObjectExists):
            try:
                self.store.size(pack_name(blake3))
            except ObjectNotFound:
                self.store.move(name, pack_name(blake3))

    def _trash(self) -> Iterator[Removal]:
        """What earlier runs moved: some of it may be named again, the old rest goes."""
        for one, named, stored in self.ledger.trash():
            age = self.now - one.since
            if one.run in self.others and age < _SHORT:
                continue  # that run is at work with it
            if named and not stored:
                if not self.dry_run:
                    self._bring_back(one.blake3, one.name)
            elif age >= self.rules.grace and not self.unreadable:
                yield Removal(
                    "trash", one.name, f"no manifest named it for {human_age(age)}", one.size
                )

    # -- litter ---------------------------------------------------------------------------

    def _gone(self, removals: Iterable[Removal]) -> Iterator[Removal]:
        """Delete the objects of these names."""
        return each(self.repository, self._delete, removals)

    def _delete(self, removal: Removal) -> Removal:
        if not self.dry_run:
            self.store.delete(removal.name)
        return removal

    def _hints(self, *, ours: bool) -> Iterator[Removal]:
        """To manifests that are gone; `ours`: that this run removed."""
        for name, size in self.ledger.lost_hints(self.now - self.rules.grace, dropped=ours):
            yield Removal("hint", name, "its manifest is gone", size)

    def _litter(self) -> Iterator[Removal]:
        grace = self.now - self.rules.grace
        for folder, kind, kept in _OLD:
            for found in self.store.list(folder):
                if (age := self.now - found.modified) >= max(kept, self.rules.grace):
                    yield Removal(kind, found.name, f"{human_age(age)} old", found.size)
        for run, since in self.others.items():
            if (age := self.now - since) >= max(DAY, self.rules.grace):
                why = f"a run that did not end, {human_age(age)} ago"
                yield Removal("mark", f"{MARKS}/{run}.json", why)
        for found, blake3 in self.doubles:
            if found.modified <= grace and self.ledger.is_stored(blake3):
                why = "two machines stored one pack at once"
                yield Removal("double", found.name, why, found.size)
        for pin in pins.pins(self.store):
            gone = not self.ledger.has(pin.recipe, pin.hash)
            if pin.until <= self.now or (gone and pin.made <= grace):
                why = "its artifact is gone" if gone else "it has ended"
                yield Removal("pin", pin.name, why)

    def _leftovers(self) -> Iterator[Removal]:
        if not isinstance(self.store, Littered):
            return
        for found in self.store.leftovers():
            if (age := self.now - found.modified) >= max(self.rules.grace, _SHORT):
                if not self.dry_run:
                    self.store.discard(found.name)
                why = f"whoever wrote it ended {human_age(age)} ago"
                yield Removal("temporary", found.name, why, found.size)

    def _tell_lacking(self) -> None:
        count, example = self.ledger.lacking()
        if count:
            self.cache.observer.warn(
                f"{self.repository.url}: {count} packs are named and not there (by {example}, for"
                " one); the next fetch of such an artifact makes it anew"
            )
