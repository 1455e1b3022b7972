"""How files fall into frames, digests over both, and work on frames in order.

For `pack` and `tree`; knows no disk.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from . import digest

if TYPE_CHECKING:
    from concurrent.futures import Future, ThreadPoolExecutor

FRAME = 4 << 20
"""Raw bytes of a frame, at most."""

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class Segment(NamedTuple):
    """A run of one file inside one frame."""

    file: int
    start: int
    """Offset in the file."""
    length: int
    at: int
    """Offset in the frame's raw bytes."""


def threads() -> int:
    """As many as this process may use cores, at most 4: each holds two frames in memory."""
    return min(len(os.sched_getaffinity(0)), 4)


def is_tiny(size: int) -> bool:
    """Whether a tree of so many bytes is unpacked before threads for it had started."""
    return size <= 2 * FRAME


def cut(sizes: Sequence[int], paths: Sequence[str] = ()) -> Iterator[int]:
    """Raw lengths of the frames for files of these sizes, in order.

    A file over one frame has frames of its own; small ones share.

    Args:
        paths: With them, frames of small files end where the files' own names say so:
            a file that comes, goes or grows changes the frames near it, not all that follow.
    """
    shared = 0
    for number, size in enumerate(sizes):
        if shared and shared + size > FRAME:
            yield shared
            shared = 0
        if size > FRAME:
            whole, rest = divmod(size, FRAME)
            yield from [FRAME] * whole
            if rest:
                yield rest
        else:
            shared += size
            if paths and shared >= FRAME // 4 and _ends(paths[number], size):
                yield shared
                shared = 0
    if shared:
        yield shared


def _ends(path: str, size: int) -> bool:
    """True for about one in so many bytes of files as are half a frame."""
    return int(digest.xxh3(path.encode())[:8], 16) * (FRAME // 2) < size << 32


def segments(sizes: Sequence[int], raws: Iterable[int]) -> Iterator[list[Segment]]:
    """For each frame, the runs of files that it holds. The two sums must be equal."""
    file, start = 0, 0
    for raw in raws:
        row: list[Segment] = []
        at = 0
        while at < raw:
            length = min(sizes[file] - start, raw - at)
            if length:
                row.append(Segment(file, start, length, at))
            at, start = at + length, start + length
            if start == sizes[file]:
                file, start = file + 1, 0
        yield row


class Digests:
    """XXH3-128 of every file, from whole files in any order and pieces in order."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = sizes
        self.found: list[str] = [digest.xxh3(b"") if not size else "" for size in sizes]
        self._open: dict[int, digest.Hasher] = {}

    def is_whole(self, segment: Segment) -> bool:
        return segment.length == self._sizes[segment.file]

    def whole(self, segment: Segment, view: memoryview) -> str:
        self.found[segment.file] = digest.xxh3(view)
        return self.found[segment.file]

    def piece(self, segment: Segment, view: memoryview) -> str:
        """Returns the digest when this was the file's last piece, else ''."""
        hasher = self._open.setdefault(segment.file, digest.xxh3_hasher())
        hasher.update(view)
        if segment.start + segment.length < self._sizes[segment.file]:
            return ""
        self.found[segment.file] = self._open.pop(segment.file).hexdigest()
        return self.found[segment.file]


def pool_of(count: int) -> ThreadPoolExecutor:
    """Threads for `in_order`. Imported when wanted: a tiny artifact is there by then."""
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(count)


def in_order(
    pool: ThreadPoolExecutor | None,
    work: Callable[[_Item], _Result],
    items: Iterable[_Item],
    window: int | Callable[[], int],
) -> Iterator[_Result]:
    """`map` with at most `window` items under way, asked anew for each; the first error ends it.

    Args:
        pool: None: one after the other, in this thread.
    """
    if pool is None:
        yield from map(work, items)
        return
    waiting: deque[Future[_Result]] = deque()
    most = window if callable(window) else lambda: window
    try:
        for item in items:
            waiting.append(pool.submit(work, item))
            while len(waiting) >= most():
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
