"""A reader's memory that is filled as bytes come, by one attempt after the other; and attempts
that go on as long as something comes.

For the stores that stream: what has come is not asked for again, and an attempt that was
given up, but may still be running on another thread, writes nothing any more.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TypeVar

from ..errors import StoreUnavailable
from .faults import Passing

_Result = TypeVar("_Result")

PROGRESS = 1 << 20
"""Bytes after which a read that broke off is as good as one that was never tried."""


class Room:
    def __init__(self, out: memoryview, came: Callable[[int], object]) -> None:
        """Args:
        came: Told how many bytes of `out`, from its start, are there.
        """
        self.done = 0
        self._out, self._came = out, came
        self._lock = threading.Lock()
        self._part: Part | None = None

    def rest(self) -> Part:
        """What is still empty, for the next attempt."""
        with self._lock:
            self._part = Part(self, self._out[self.done :])
            return self._part

    def close(self) -> None:
        """The memory is the reader's again."""
        with self._lock:
            self._part = None

    def _took(self, part: Part, data: bytes | None, count: int) -> None:
        with self._lock:
            if part is not self._part:
                return
            if data is not None:
                count = min(count, len(self._out) - self.done)
                self._out[self.done : self.done + count] = data[:count]
            self.done += count
        self._came(self.done)


class Part:
    """The room of one attempt."""

    def __init__(self, room: Room, left: memoryview) -> None:
        self._room = room
        self.left = left
        """As it was when the attempt began: for who reads straight into it, on the reader's
        own thread, and tells by `came`."""

    def came(self, count: int) -> None:
        """So many more bytes of `left` are there."""
        self._room._took(self, None, count)

    def put(self, data: bytes) -> None:
        """The next bytes, as far as there is room; from any thread."""
        self._room._took(self, data, len(data))


def while_it_moves(
    moved: Callable[[], int], work: Callable[[], _Result], least: int = 1
) -> _Result:
    """Call `work`, which persists by itself, again and again as long as each time `least` bytes
    more have moved: then it is a link that breaks, and not one that does not work."""
    while True:
        before = moved()
        try:
            return work()
        except StoreUnavailable as error:
            if not isinstance(error.__cause__, Passing) or moved() < before + least:
                raise
