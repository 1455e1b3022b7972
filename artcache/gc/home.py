"""What goes from the home: artifacts, least recently used first, and what commands left behind."""

from __future__ import annotations

import contextlib
import fcntl
import json
import math
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .. import pins
from ..cache import Cache
from ..disk import disk_errors, remove_tree
from ..errors import Busy, Corrupt
from ..home import SUPPLIED, Entry, Home
from ..memory import ALIAS_SECONDS
from ..partial import KEPT as PARTIAL_KEPT
from ..units import DAY, human_age
from . import KEPT_LITTER, Item, Removal, Rules, doomed


class _Left(NamedTuple):
    """A file or folder that a command left."""

    path: Path
    size: int
    modified: float
    """When anything of it was last written or read."""


class _Spare(NamedTuple):
    """Something that is kept for a while in case it is wanted."""

    kind: str
    left: _Left
    kept: float
    """Seconds."""


def collect(
    cache: Cache, rules: Rules, *, dry_run: bool, now: float | None = None
) -> Iterator[Removal]:
    """Remove what the rules say from the home, each thing when it is yielded.

    An artifact that somebody holds the lock of is left alone.

    Raises:
        LocalDisk: something there cannot be removed.
    """
    now = time.time() if now is None else now
    with disk_errors(cache.home.root, doing="collect garbage"):
        yield from _Collector(cache, rules, dry_run, now).collect()


class _Collector:
    def __init__(self, cache: Cache, rules: Rules, dry_run: bool, now: float) -> None:
        self.cache, self.home, self.rules = cache, cache.home, rules
        self.dry_run, self.now = dry_run, now
        self.entries: list[Entry] = []
        self.total = 0

    def collect(self) -> Iterator[Removal]:
        yield from self._temporary()
        yield from self._old("logs", "log", KEPT_LITTER)
        yield from self._old("aliases", "memo", ALIAS_SECONDS)
        items = sorted(self._items(), key=lambda item: item.when)
        spares = sorted(self._spares(), key=lambda spare: spare.left.modified)
        self.total = sum(item.size for item in items) + sum(spare.left.size for spare in spares)
        yield from self._remove_spares(spares)
        for item, why in doomed(items, self.rules, now=self.now, total=lambda: self.total):
            for removal in self._artifact(item, why):
                self.total -= item.size
                yield removal
        yield from self._pins()
        yield from self._locks()

    def _remove(self, kind: str, left: _Left, why: str) -> Removal:
        if not self.dry_run:
            if left.path.is_dir() and not left.path.is_symlink():
                remove_tree(left.path)
            else:
                left.path.unlink(missing_ok=True)
        return Removal(kind, str(left.path), why, left.size)

    # -- artifacts ------------------------------------------------------------------------

    def _items(self) -> Iterator[Item]:
        used = {}
        for entry in self.home.entries():
            if isinstance(entry, Corrupt):
                self.cache.observer.warn(f"{entry}; the next fetch replaces it")
                continue
            with contextlib.suppress(FileNotFoundError):  # another command removed it
                used[_name(entry)] = entry.used
                self.entries.append(entry)
        held = pins.pinned(pins.place(self.home), self.now)
        for entry in self.entries:  # what a program loads is as recent and as pinned as it is
            for supplier in _suppliers(self.home, entry):
                used[supplier] = max(used.get(supplier, 0.0), used[_name(entry)])
                if until := held.get(_name(entry)):
                    held[supplier] = max(held.get(supplier, 0.0), until)
        self.entries.sort(key=lambda entry: -entry.made)
        ranks: dict[str, int] = {}
        for number, entry in enumerate(self.entries):
            recipe, hash_ = name = _name(entry)
            ranks[recipe] = ranks.get(recipe, 0) + 1
            yield Item(recipe, hash_, entry.size, used[name], ranks[recipe], name in held, number)

    def _artifact(self, item: Item, why: str) -> Iterator[Removal]:
        removal = Removal(
            "artifact",
            f"{item.recipe} {item.hash[:12]}",
            f"{why}; last used {human_age(self.now - item.when)} ago",
            item.size,
            recipe=item.recipe,
            hash=item.hash,
        )
        if self.dry_run:
            yield removal
            return
        key = self.entries[item.number].key
        try:
            with self.home.lock(key, waiting=lambda holder: None, wait=False):
                held = pins.is_pinned(pins.place(self.home), key.recipe, key.hash, self.now)
                if not held and self.home.remove(key):
                    yield removal
        except Busy as error:
            self.cache.observer.note(f"{error}; it stays")

    def _pins(self) -> Iterator[Removal]:
        place = pins.place(self.home)
        for pin in pins.pins(place):
            gone = not (self.home.folder("entries") / pin.recipe / pin.hash).exists()
            if gone or pin.until <= self.now:
                if not self.dry_run:
                    place.delete(pin.name)
                yield Removal("pin", pin.name, "its artifact is gone" if gone else "it has ended")

    # -- what commands left ---------------------------------------------------------------

    def _temporary(self) -> Iterator[Removal]:
        """Folders of killed makers: those that nobody holds a lock on."""
        for left in _children(self.home.folder("tmp")):
            if self.now - left.modified >= 60 and _free(left.path):
                yield self._remove("temporary", left, "whoever made it is gone")

    def _old(self, folder: str, kind: str, kept: float) -> Iterator[Removal]:
        for left in _files(self.home.folder(folder)):
            if (age := self.now - left.modified) >= kept:
                yield self._remove(kind, left, f"{human_age(age)} old")

    def _spares(self) -> Iterator[_Spare]:
        for left in _children(self.home.folder("quarantine")):
            with contextlib.suppress(ValueError):  # its name ends with the time
                left = left._replace(modified=int(left.path.name.rpartition(".")[2], 16) / 1e9)
            yield _Spare("quarantine", left, KEPT_LITTER)
        for left in _files(self.home.folder("downloads")):
            yield _Spare("download", left, KEPT_LITTER)
        for left in _children(self.home.folder("partial")):
            left = left._replace(size=_allocated(left.path))
            yield _Spare("partial", left, PARTIAL_KEPT)

    def _remove_spares(self, spares: list[_Spare]) -> Iterator[Removal]:
        """What time alone removes goes before any artifact where room is asked for."""
        asked = math.inf if self.rules.older_than is None else self.rules.older_than
        for kind, left, kept in spares:
            age = self.now - left.modified
            over = self.rules.max_size is not None and self.total > self.rules.max_size
            if age >= self.rules.grace and (age >= min(kept, asked) or over) and _free(left.path):
                self.total -= left.size
                yield self._remove(kind, left, f"not used for {human_age(age)}")

    def _locks(self) -> Iterator[Removal]:
        for left in _files(self.home.folder("locks")):
            if self.now - left.modified >= DAY:
                with _held(left.path) as held:  # whoever waits for it sees that it was replaced
                    if held:
                        yield self._remove("lock", left, "nobody holds it")


def _name(entry: Entry) -> tuple[str, str]:
    return entry.key.recipe, entry.key.hash


def _suppliers(home: Home, entry: Entry) -> Iterator[tuple[str, str]]:
    """The entries that an entry's shared libraries come from, see `supply`."""
    top = f"{home.folder('entries')}/"
    with contextlib.suppress(OSError, ValueError, TypeError):
        for source in json.loads(Path(entry.entry_folder, SUPPLIED).read_bytes()):
            if source.startswith(top):
                recipe, hash_, *_ = source.removeprefix(top).split("/")
                yield recipe, hash_


def _children(folder: Path) -> Iterator[_Left]:
    """What lies in a folder, each with all its bytes and its newest modification."""
    with contextlib.suppress(FileNotFoundError):
        for path in sorted(folder.iterdir()):
            with contextlib.suppress(FileNotFoundError):  # somebody else cleans up too
                own = path.lstat()
                inside = list(_files(path))
                newest = max([own.st_mtime, *(left.modified for left in inside)])
                size = sum(left.size for left in inside) if path.is_dir() else own.st_size
                yield _Left(path, size, newest)


def _files(folder: Path) -> Iterator[_Left]:
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                path = Path(top, name)
                found = path.lstat()
                yield _Left(path, found.st_size, max(found.st_mtime, found.st_atime))


def _allocated(folder: Path) -> int:
    """Bytes on the disk: more than were written where room was set aside (`disk.reserve`)."""
    total = 0
    for left in _files(folder):
        with contextlib.suppress(OSError):
            total += max(left.size, 512 * left.path.lstat().st_blocks)
    return total


def _free(path: Path) -> bool:
    with _held(path) as held:
        return held


@contextlib.contextmanager
def _held(path: Path) -> Iterator[bool]:
    """Hold a file's or folder's lock if nobody does; False: somebody does, or it is gone."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        yield False
        return
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        yield False
    else:
        yield True
    finally:
        os.close(handle)
