"""Laying a tree's files on the disk, from any thread, in any order; each is checked once whole.

The bytes of a large file go into the page cache or straight to the disk,
whichever has lately been quicker. Mostly that is the page cache. But a young
virtual machine gets its memory page by page from its host, at a tenth of the
disk's speed, and a machine short of memory has to clear pages first.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Sequence
from pathlib import Path

from .errors import Corrupt
from .frames import Digests, Segment
from .manifest import File

_BLOCK = 4096
"""What offsets, lengths and addresses of direct writes are multiples of."""
_ENOUGH = 1e9
"""Bytes a second of one thread, above which the page cache is not doubted."""


_PATIENCE = 1.03
"""The way that is not taken is thought a little better of each time: things change."""


class _Ways:
    """How many bytes a second each way has lately taken. Races of threads only blur it."""

    def __init__(self) -> None:
        self._cached = self._direct = 0.0  # not tried yet

    def is_direct_better(self) -> bool:
        if not 0 < self._cached < _ENOUGH:
            return False
        return not self._direct or self._direct > self._cached

    def note(self, direct: bool, rate: float) -> None:
        if direct:
            self._direct = _smoothed(self._direct, rate)
            self._cached *= _PATIENCE
        else:
            self._cached = _smoothed(self._cached, rate)
            self._direct *= _PATIENCE


def _smoothed(before: float, now: float) -> float:
    """Of rates, not of times: one write that hangs must not condemn its way."""
    return before + (now - before) / 4 if before else now


class LargeFile:
    """A file that several frames share. `write` may be called from any thread."""

    def __init__(self, path: str, handle: int, ways: _Ways) -> None:
        self._ways = ways
        self._cached = handle
        try:
            self._direct = os.open(path, os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_DIRECT)
        except OSError:  # a file system without it
            self._direct = -1

    def write(self, view: memoryview, offset: int, *, aligned: bool) -> None:
        """Args:
        aligned: Whether the view begins at an address that is a multiple of `_BLOCK`.
        """
        straight = len(view) - len(view) % _BLOCK
        possible = straight and aligned and offset % _BLOCK == 0 and self._direct >= 0
        if (
            possible
            and self._ways.is_direct_better()
            and self._write_direct(view[:straight], offset)
        ):
            view, offset = view[straight:], offset + straight
        if view:
            start = time.perf_counter()
            write_all(self._cached, view, offset)
            if straight:  # else it is a file's last few bytes, which say nothing
                self._ways.note(False, len(view) / (time.perf_counter() - start))

    def _write_direct(self, view: memoryview, offset: int) -> bool:
        start = time.perf_counter()
        try:
            write_all(self._direct, view, offset)
        except OSError as error:
            if error.errno != errno.EINVAL:
                raise
            return False  # blocks that are larger than ours: the page cache takes them
        self._ways.note(True, len(view) / (time.perf_counter() - start))
        return True

    def close(self) -> None:
        os.close(self._cached)
        if self._direct >= 0:
            os.close(self._direct)


class TreeWriter:
    """Creates a manifest's files and fills in their segments."""

    def __init__(self, files: Sequence[File], into: Path) -> None:
        self._files = files
        self._into = str(into)
        self._digests = Digests([file.size for file in files])
        self._large: dict[int, LargeFile] = {}
        self._ways = _Ways()
        for number, file in enumerate(files):
            if not file.size:
                os.close(self._create(number))
                self._check(number, self._digests.found[number])

    def open(self, row: Sequence[Segment]) -> dict[int, LargeFile]:
        """The files of this row that other frames share; called in frame order."""
        shared = {}
        for segment in row:
            number = segment.file
            if not self._digests.is_whole(segment):
                if segment.start == 0:
                    handle = self._create(number)
                    path = f"{self._into}/{self._files[number].path}"
                    self._large[number] = LargeFile(path, handle, self._ways)
                shared[number] = self._large[number]
        return shared

    def write(self, row: Sequence[Segment], raw: memoryview, shared: dict[int, LargeFile]) -> None:
        """Write one frame's segments; called from any thread.

        Args:
            raw: Begins at an address that is a multiple of the page size.
        """
        for segment in row:
            view = raw[segment.at : segment.at + segment.length]
            large = shared.get(segment.file)
            if large is not None:
                large.write(view, segment.start, aligned=segment.at % _BLOCK == 0)
                continue
            self._check(segment.file, self._digests.whole(segment, view))
            handle = self._create(segment.file)
            try:
                write_all(handle, view, 0)
            finally:
                os.close(handle)

    def finish(self, row: Sequence[Segment], raw: memoryview) -> None:
        """Digest the shared files' segments; called in frame order."""
        for segment in row:
            if self._digests.is_whole(segment):
                continue
            view = raw[segment.at : segment.at + segment.length]
            if found := self._digests.piece(segment, view):
                self._large.pop(segment.file).close()
                self._check(segment.file, found)

    def close(self) -> None:
        for large in self._large.values():
            large.close()

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


def write_all(handle: int, view: memoryview, offset: int) -> None:
    done = 0
    while done < len(view):
        done += os.pwrite(handle, view[done:], offset + done)
