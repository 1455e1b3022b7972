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
from typing import TYPE_CHECKING, Any

from .disk import boot_id

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FORMAT = 1
NAME = "seal.json"
_MEMBERS = frozenset(
    "seal fields origin size needs milliseconds boot durable always folders files".split()
)
_ALWAYS = 1 << 20
"""Bytes from which a file is looked at on every hit, like every executable."""


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
            rows = self.body["always"] if folders == self._checked_folders else self.body["files"]
            if broken := _first_broken(self.tree, rows):
                return Trust.BROKEN, broken
        except OSError as error:
            return Trust.BROKEN, f"{error.filename}: {error.strerror}"
        self._checked_folders = folders
        return Trust.SOUND, ""

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


def make(folder: str, paths: Iterable[str], facts: Mapping[str, Any], *, durable: bool) -> bytes:
    """A seal's bytes for the tree in `folder`, as it is on disk now.

    Args:
        paths: Of all files and links, relative to the tree.
        facts: JSON values to keep with it: the key's fields, the origin.
        durable: Whether the tree is known to be on disk, not only in memory.
    """
    files, always, folders = [], [], {""}
    for path in paths:
        found = os.lstat(f"{folder}/tree/{path}")
        row = [path, found.st_size, found.st_mtime_ns]
        files.append(row)
        if found.st_size >= _ALWAYS or (stat.S_ISREG(found.st_mode) and found.st_mode & 0o100):
            always.append(row)
        folders.add(path.rpartition("/")[0])
    body = {
        "seal": FORMAT,
        **facts,
        "boot": boot_id(),
        "durable": durable,
        "always": always,
        "folders": sorted(folders),
        "files": files,
    }
    return json.dumps(body, separators=(",", ":")).encode()


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
