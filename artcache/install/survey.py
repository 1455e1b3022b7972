"""What is in a prefix now: snapshots for `plan`, and the real place of every path.

Symlinked folders inside a prefix (`lib64 -> lib`) are followed, since machines
have them; one that leads out of the prefix is refused.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from .. import digest
from ..errors import Refused
from .plan import STATE, Entry, Record, Seen, Want, unmodified

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Facts:
    """All that `make_plan` asks for, with every path in its real place."""

    wants: Mapping[str, Want]
    empty: frozenset[str]
    ours: Record
    others: Sequence[Record]
    seen: Mapping[str, Seen]
    missing: frozenset[str]


class Survey:
    """Looks at one prefix while its lock is held."""

    def __init__(self, prefix: Path, ours: Record, others: Sequence[Record]) -> None:
        """Args:
        prefix: A real path: no symlink in it.
        """
        self._prefix = prefix
        self._root = os.fspath(prefix)
        self._ours = ours
        self._missing: set[str] = set()
        self._places = {"": ""}
        self.ours = self._in_place(ours)
        self.others = [self._in_place(record) for record in others]

    def facts(self, wants: Mapping[str, Want], empty: Iterable[str], new_prefix: bool) -> Facts:
        """Raises:
        Refused: a folder of the tree is a file here, or leads out of the prefix.
        """
        placed = {self._place(path): path for path in wants}
        if len(placed) != len(wants):
            twice = next(path for path in wants if placed[self._place(path)] != path)
            raise Refused(
                f"{self._prefix / twice} and {self._prefix / placed[self._place(twice)]} are "
                "one file here, since a folder is a symlink to another",
                hint="choose another folder",
            )
        found = {place: self._checked(place, wants[path], path) for place, path in placed.items()}
        folders = frozenset(self._folder(path) for path in empty)
        expected = [self.ours, *self.others]
        seen = {
            place: self._look(
                place,
                [record.entries[place] for record in expected if place in record.entries],
                found.get(place),
            )
            for place in {*found, *self.ours.entries}
        }
        missing = frozenset({*self._missing, "."} if new_prefix else self._missing)
        return Facts(found, folders, self.ours, self.others, seen, missing)

    def _checked(self, place: str, want: Want, path: str) -> Want:
        moved = posixpath.dirname(place) != posixpath.dirname(path)
        if moved and want.target.startswith("../"):
            raise Refused(
                f"{self._prefix / path} would be a symlink to {want.target}, which means another "
                f"file here, since {self._prefix / posixpath.dirname(path)} is a symlink itself",
                hint="choose another folder",
            )
        return want

    def _in_place(self, record: Record) -> Record:
        """Follow folders that were moved aside and symlinked since; forget what left."""
        entries = {}
        for path, entry in record.entries.items():
            try:
                entries[self._place(path)] = entry
            except Refused:
                continue
        return replace(record, entries=entries)

    def _place(self, path: str) -> str:
        return posixpath.join(self._folder(posixpath.dirname(path)), posixpath.basename(path))

    def _folder(self, path: str) -> str:
        """The real place of a folder, which may be one that has to be made."""
        if path not in self._places:
            place = self._place(path)
            self._places[path] = self._follow(place)
        return self._places[path]

    def _follow(self, place: str) -> str:
        now = self._look(place, [])
        if now.kind == "absent" or self._gives_way(place):
            self._missing.add(place)
            return place
        if now.kind == "folder":
            return place
        real = Path(os.path.realpath(self._prefix / place))  # a loop is no error here
        if now.kind != "link" or not real.is_dir():
            raise Refused(
                f"{self._prefix / place} is a file, but a folder has to be there",
                hint="choose another folder, or move that file away",
            )
        inside = posixpath.relpath(real, self._root)
        if inside == ".." or inside.startswith("../") or inside.split("/", 1)[0] == STATE:
            raise Refused(
                f"{self._prefix / place} is a symlink that leads out of the folder, to {real}",
                hint="choose another folder, or remove that symlink",
            )
        return "" if inside == "." else inside

    def _gives_way(self, place: str) -> bool:
        """An older version's file or link, where this version has a folder."""
        entry = self._ours.entries.get(place)
        return entry is not None and unmodified(entry, self._look(place, [entry]))

    def _look(self, place: str, expected: Sequence[Entry], want: Want | None = None) -> Seen:
        if posixpath.dirname(place) in self._missing:
            return Seen()  # and not what an old link in its stead leads to
        full = os.path.join(self._root, place)
        try:
            there = os.lstat(full)
        except (FileNotFoundError, NotADirectoryError):
            return Seen()
        if stat.S_ISLNK(there.st_mode):
            return Seen("link", target=os.readlink(full))
        if stat.S_ISDIR(there.st_mode):
            return Seen("folder", below=tuple(self._below(place)) if want else ())
        if not stat.S_ISREG(there.st_mode):
            return Seen("other")
        known = {(entry.size, entry.mtime_ns): entry.xxh3 for entry in reversed(expected)}
        xxh3 = known.get((there.st_size, there.st_mtime_ns), "")
        sizes = {entry.size for entry in expected} | ({want.size} if want else set())
        if not xxh3 and there.st_size in sizes:
            xxh3 = _file_xxh3(full)
        return Seen("file", there.st_size, there.st_mtime_ns, xxh3)

    def _below(self, place: str) -> Iterable[str]:
        for folder, folders, files in os.walk(self._prefix / place):
            inside = posixpath.relpath(folder, self._root)
            yield from (posixpath.join(inside, name) for name in (*folders, *files))


def _file_xxh3(path: str) -> str:
    hasher = digest.xxh3_hasher()
    with open(path, "rb", buffering=0) as file:
        while block := file.read(_CHUNK):
            hasher.update(block)
    return hasher.hexdigest()
