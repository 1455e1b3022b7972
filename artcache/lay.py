"""Laying a tree's files on the disk, from any thread, in any order; each is checked once whole."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from .errors import Corrupt
from .frames import Digests, Segment
from .manifest import File

PIECE = 16 << 10
"""Bytes of one write, at most.

For a larger one the kernel takes a larger run of free memory, if it can. In a
virtual machine large free runs are what the host has taken back: a gigabyte
then takes up to 2.5 s to write, and 0.4 s in pieces of this length. Where there
is no such host, longer pieces would save 0.2 s of it.
"""


class TreeWriter:
    """Creates a manifest's files and fills in their segments."""

    def __init__(self, files: Sequence[File], into: Path) -> None:
        self._files = files
        self._into = str(into)
        self._digests = Digests([file.size for file in files])
        self._handles: dict[int, int] = {}
        for number, file in enumerate(files):
            if not file.size:
                os.close(self._create(number))
                self._check(number, self._digests.found[number])

    def open(self, row: Sequence[Segment]) -> dict[int, int]:
        """Handles for the files of this row that other frames share; called in frame order."""
        shared = {}
        for segment in row:
            if not self._digests.is_whole(segment):
                if segment.start == 0:
                    self._handles[segment.file] = self._create(segment.file)
                shared[segment.file] = self._handles[segment.file]
        return shared

    def write(self, row: Sequence[Segment], raw: memoryview, handles: dict[int, int]) -> None:
        """Write one frame's segments; called from any thread."""
        for segment in row:
            view = raw[segment.at : segment.at + segment.length]
            shared = handles.get(segment.file)
            if shared is not None:
                _write_all(shared, view, segment.start)
                continue
            self._check(segment.file, self._digests.whole(segment, view))
            handle = self._create(segment.file)
            try:
                _write_all(handle, view, 0)
            finally:
                os.close(handle)

    def finish(self, row: Sequence[Segment], raw: memoryview) -> None:
        """Digest the shared files' segments; called in frame order."""
        for segment in row:
            if self._digests.is_whole(segment):
                continue
            view = raw[segment.at : segment.at + segment.length]
            if found := self._digests.piece(segment, view):
                os.close(self._handles.pop(segment.file))
                self._check(segment.file, found)

    def close(self) -> None:
        for handle in self._handles.values():
            os.close(handle)

    def _create(self, number: int) -> int:
        file = self._files[number]
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
        handle = os.open(f"{self._into}/{file.path}", flags, file.mode)
        if os.fstat(handle).st_mode & 0o777 != file.mode:  # a umask other than 022
            os.fchmod(handle, file.mode)
        return handle

    def _check(self, number: int, found: str) -> None:
        file = self._files[number]
        if found != file.xxh3:
            raise Corrupt(f"{file.path}: unpacked to other bytes than were published")


def _write_all(handle: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(handle, view[done : done + PIECE], offset + done)
