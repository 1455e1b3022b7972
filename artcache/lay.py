"""Laying a tree's files on the disk, from any thread, in any order; each is checked once whole."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from .disk import reserve
from .errors import Corrupt
from .frames import Digests, Segment
from .manifest import File

PIECE = 256 << 10
"""Bytes of one write, at most."""
SMALL_PIECE = 16 << 10
"""The same, once a write was slow.

For a longer one the kernel takes a larger run of free memory, if it can. In a
virtual machine large free runs are what the host has taken back and must give
again: a gigabyte takes up to 2.5 s to write, and 0.4 s in pieces of this
length. In memory that is there it takes 0.2 s in long pieces.
"""
_SLOW = 1e-9
"""Seconds a byte, of this thread: what others do meanwhile does not count."""


class TreeWriter:
    """Creates a manifest's files and fills in their segments."""

    def __init__(self, files: Sequence[File], into: Path, *, resumed: bool = False) -> None:
        """Args:
        resumed: Whether some of the files are there already, perhaps in part.
        """
        self._files = files
        self._into = str(into)
        self._flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._flags |= 0 if resumed else os.O_EXCL
        self._digests = Digests([file.size for file in files])
        self._handles: dict[int, int] = {}
        self._piece = PIECE
        self.stamps = [0] * len(files)
        """Of each file that is whole the modification time, in ns since the epoch."""
        for number, file in enumerate(files):
            if not file.size:
                self._close(number, self._create(number))
                self._check(number, self._digests.found[number])

    def open(self, row: Sequence[Segment]) -> dict[int, int]:
        """Handles for the files of this row that other frames share; called in frame order."""
        shared = {}
        for segment in row:
            if not self._digests.is_whole(segment):
                if segment.start == 0:
                    handle = self._handles[segment.file] = self._create(segment.file)
                    reserve(handle, self._files[segment.file].size)
                shared[segment.file] = self._handles[segment.file]
        return shared

    def write(self, row: Sequence[Segment], raw: memoryview, handles: dict[int, int]) -> None:
        """Write one frame's segments; called from any thread."""
        for segment in row:
            view = raw[segment.at : segment.at + segment.length]
            shared = handles.get(segment.file)
            if shared is not None:
                self._write_large(shared, view, segment.start)
                continue
            self._check(segment.file, self._digests.whole(segment, view))
            handle = self._create(segment.file)
            try:
                write_all(handle, view, 0, SMALL_PIECE)
            finally:
                self._close(segment.file, handle)

    def _write_large(self, handle: int, view: memoryview, offset: int) -> None:
        start = time.thread_time()
        write_all(handle, view, offset, self._piece)
        if time.thread_time() - start > len(view) * _SLOW:
            self._piece = SMALL_PIECE

    def read(self, row: Sequence[Segment], raw: memoryview, handles: dict[int, int]) -> bool:
        """Fill `raw` with one frame's segments as they are on the disk; called from any thread.

        False if a file is not as long, or not what it should be. What other frames
        share is judged by `finish`.
        """
        for segment in row:
            view = raw[segment.at : segment.at + segment.length]
            shared = handles.get(segment.file)
            handle = self._create(segment.file) if shared is None else shared
            try:
                whole = os.preadv(handle, [view], segment.start) == segment.length
            finally:
                if shared is None:
                    self._close(segment.file, handle)
            if whole and shared is None:
                whole = self._digests.whole(segment, view) == self._files[segment.file].xxh3
            if not whole:
                return False
        return True

    def finish(self, row: Sequence[Segment], raw: memoryview) -> None:
        """Digest the shared files' segments; called in frame order."""
        for segment in row:
            if self._digests.is_whole(segment):
                continue
            view = raw[segment.at : segment.at + segment.length]
            if found := self._digests.piece(segment, view):
                self._close(segment.file, self._handles.pop(segment.file))
                self._check(segment.file, found)

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)

    def _create(self, number: int) -> int:
        file = self._files[number]
        return os.open(f"{self._into}/{file.path}", self._flags, file.mode)

    def _close(self, number: int, handle: int) -> None:
        """One look at the file, for its mode and its seal."""
        try:
            facts = os.fstat(handle)
            self.stamps[number] = facts.st_mtime_ns
            if facts.st_mode & 0o777 != self._files[number].mode:  # a umask other than 022
                os.fchmod(handle, self._files[number].mode)
        finally:
            os.close(handle)

    def _check(self, number: int, found: str) -> None:
        file = self._files[number]
        if found != file.xxh3:
            raise Corrupt(f"{file.path}: unpacked to other bytes than were published")


def write_all(handle: int, view: memoryview, offset: int, piece: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(handle, view[done : done + piece], offset + done)
