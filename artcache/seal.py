"""The local record by which a tree in the home is trusted again without reading it.

A seal holds each file's size and modification time, and the boot in which the
tree was written. A restored tree is not flushed to disk, which would cost more
than restoring it: after a crash or power cut the boot has changed, and the
first use reads the whole tree against its digests once (`Trust.READ_ALL`).

This room is the warm hit: it uses strings and os calls, and imports nothing
that a hit does not need.
"""

from __future__ import annotations

import contextlib
import enum
import json
import os
import stat
from typing import TYPE_CHECKING, Any, NamedTuple

from .disk import boot_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from .manifest import Manifest

FORMAT = 1
NAME = "seal.json"
_MEMBERS = frozenset(
    "seal fields origin size needs milliseconds boot durable always folders files".split()
)
_ALWAYS = 1 << 20
"""Bytes from which a file is looked at on every hit, like every executable."""


_SAMPLED = 64
"""One file of so many is looked at again before its seal is written."""


class Trust(enum.Enum):
    SOUND = "sound"
    READ_ALL = "the machine was restarted since the tree was written"
    BROKEN = "broken"


class Seal:
    """A parsed seal. `body` holds what `make` was given."""

    __slots__ = ("_checked_folders", "body", "folder", "stamp")

    def __init__(self, folder: str, body: dict[str, Any], stamp: tuple[int, int]) -> None:
        self.folder = folder
        self.body = body
        self.stamp = stamp
        self._checked_folders: tuple[int, ...] = ()

    @property
    def tree(self) -> str:
        return f"{self.folder}/tree"

    def trust(self) -> tuple[Trust, str]:
        """Look at the tree. The string says what is broken.

        The first look of a process takes in every file. Later ones take in the
        folders, the executables and the large files, and the rest again if a
        folder changed.
        """
        if not self.body["durable"] and self.body["boot"] != boot_id():
            return Trust.READ_ALL, ""
        try:
            folders = self._folder_times()
            rows = self.body["always"] if folders == self._checked_folders else self._files()
            if broken := _first_broken(self.tree, rows):
                return Trust.BROKEN, broken
        except OSError as error:
            return Trust.BROKEN, f"{error.filename}: {error.strerror}"
        except (ValueError, KeyError):
            return Trust.BROKEN, f"{self.folder}/{NAME} cannot be read any more"
        self._checked_folders = folders
        return Trust.SOUND, ""

    def forget_files(self) -> None:
        """Keep no list of all files: it takes 400 bytes a file, and is seldom needed again."""
        self.body.pop("files", None)

    def _files(self) -> list[list[Any]]:
        known: list[list[Any]] | None = self.body.get("files")
        if known is None:
            known = json.loads(_bytes(f"{self.folder}/{NAME}"))["files"]
        return known

    def _folder_times(self) -> tuple[int, ...]:
        tree = self.tree
        return tuple([os.stat(f"{tree}/{name}").st_mtime_ns for name in self.body["folders"]])

    def touch(self) -> None:
        """Record the use: the seal's access time is when its tree was last used."""
        import time

        with contextlib.suppress(OSError):  # a read-only home is a good home
            os.utime(f"{self.folder}/{NAME}", ns=(time.time_ns(), self.stamp[0]))


_seen: dict[str, Seal] = {}


def read(folder: str) -> Seal | None:
    """The seal of an entry; None if there is no entry.

    Raises:
        ValueError: there is one that cannot be read.
    """
    path = f"{folder}/{NAME}"
    try:
        facts = os.stat(path)
        stamp = (facts.st_mtime_ns, facts.st_ino)
        known = _seen.get(folder)
        if known and known.stamp == stamp:
            return known
        body = json.loads(_bytes(path))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from error
    if not isinstance(body, dict) or body.get("seal") != FORMAT or not body.keys() >= _MEMBERS:
        raise ValueError(f"{path} is no seal of format {FORMAT}")
    seal = _seen[folder] = Seal(folder, body, stamp)
    return seal


def _bytes(path: str) -> bytes:
    """Without a trace in the access time: a listing is no use."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOATIME)
    except PermissionError:  # somebody else's file
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        return file.read()


def just_written(folder: str, body: dict[str, Any]) -> Seal:
    """The seal that this process just wrote into an entry, without reading it again."""
    facts = os.stat(f"{folder}/{NAME}")
    seal = _seen[folder] = Seal(folder, body, (facts.st_mtime_ns, facts.st_ino))
    return seal


class Row(NamedTuple):
    """A file or link of a tree as it is on the disk."""

    path: str
    """Relative to the tree."""
    mode: int
    """Permissions of a file; 0 for a link."""
    size: int
    modified: int
    """ns since the epoch."""


def rows_of(tree: str, manifest: Manifest, stamps: Sequence[int] = ()) -> list[Row]:
    """Of all files and links, as they are now.

    Args:
        stamps: Each file's modification time in ns, if whoever wrote them saw it:
            so not every one has to be looked at again.
    """
    links = [_looked_at(tree, link.path) for link in manifest.links]
    if len(stamps) == len(manifest.files):
        pairs = zip(manifest.files, stamps, strict=True)
        rows = [Row(file.path, file.mode, file.size, stamp) for file, stamp in pairs]
        # Some servers set the time when a file is closed; then they do so with each.
        if all(row == _looked_at(tree, row.path) for row in rows[::_SAMPLED]):
            return rows + links
    return [_looked_at(tree, file.path) for file in manifest.files] + links


def _looked_at(tree: str, path: str) -> Row:
    found = os.lstat(f"{tree}/{path}")
    mode = found.st_mode & 0o777 if stat.S_ISREG(found.st_mode) else 0
    return Row(path, mode, found.st_size, found.st_mtime_ns)


def encoded(body: Mapping[str, Any]) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()


def make(rows: Iterable[Row], facts: Mapping[str, Any], *, durable: bool) -> dict[str, Any]:
    """A seal's JSON for a tree.

    Args:
        rows: Of all files and links.
        facts: JSON values to keep with it: the key's fields, the origin.
        durable: Whether the tree is known to be on disk, not only in memory.
    """
    files, always, folders = [], [], {""}
    for path, mode, size, modified in rows:
        row = [path, size, modified]
        files.append(row)
        if size >= _ALWAYS or mode & 0o100:
            always.append(row)
        folders.add(path.rpartition("/")[0])
    return {
        "seal": FORMAT,
        **facts,
        "boot": boot_id(),
        "durable": durable,
        "always": always,
        "folders": sorted(folders),
        "files": files,
    }


def _first_broken(tree: str, rows: list[list[Any]]) -> str:
    root = os.open(tree, os.O_RDONLY | os.O_DIRECTORY)  # a quarter quicker than from `/`
    try:
        for path, size, modified in rows:
            try:
                found = os.stat(path, dir_fd=root, follow_symlinks=False)
            except OSError as error:
                return f"{path} is gone" if error.errno == 2 else f"{path}: {error.strerror}"
            if found.st_size != size or found.st_mtime_ns != modified:
                return f"{path} was changed"
    finally:
        os.close(root)
    return ""
