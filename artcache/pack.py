"""A tree of files <-> a pack of frames. Parallel over frames, in bounded memory.

The raw bytes of a pack are its files' bytes in the manifest's order, cut into
frames that are compressed, digested and fetched each by itself. Digests of
whole files need their bytes in order, so a file inside one frame is finished
by whichever thread has the frame, and one over several frames is digested by
the calling thread, which takes frames in order.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple, Protocol

from . import digest
from .compression import Compression, Compressor
from .errors import BuildFailed, StoreUnavailable
from .frames import Digests, Segment, cut, in_order, is_tiny, pool_of, segments, threads
from .lay import SMALL_PIECE, TreeWriter
from .manifest import File, Frame, Manifest, Pack
from .opening import Fetch, open_frame
from .shares import Shares
from .tree import Scan

_MEMORY = Shares(56 << 20, most=2)
"""Bytes that the frames of all restores under way may take. Of two, one has the link while the
other makes its last files; more would only have less room each."""

Progress = Callable[[int], object]
"""Called with the raw bytes finished since the last call."""


class Loans(Protocol):
    """Who lends memory by a `Fetch`, and may have frames when the store is gone."""

    def back(self) -> None:
        """The calling thread is done with what it was lent, if it was."""
        ...

    def left(self, number: int) -> bool:
        """After `fetch` raised `StoreUnavailable`: whether it still gives this frame or a
        later one."""
        ...


class Packed(NamedTuple):
    files: tuple[File, ...]
    pack: Pack
    frames: tuple[Frame, ...]


# -- packing ------------------------------------------------------------------------------


def write(
    root: Path,
    found: Scan,
    out: BinaryIO,
    *,
    compression: Compression = "default",
    progress: Progress = lambda count: None,
) -> Packed:
    """Write a tree's pack to `out`.

    Raises:
        BuildFailed: a file changed while it was read.
    """
    sizes = [size for _, _, size in found.files]
    digests = Digests(sizes)
    local = threading.local()

    raws = list(cut(sizes, [path for path, _, _ in found.files]))
    under_way = threads() + 1
    buffers = _Buffers(max(raws, default=1))

    def work(row: list[Segment]) -> tuple[_Done, bytes | memoryview, str]:
        buffer = buffers.take()
        raw = memoryview(buffer)[: sum(segment.length for segment in row)]
        _read_segments(root, found, row, raw)
        for segment in row:
            if digests.is_whole(segment):
                digests.whole(segment, raw[segment.at : segment.at + segment.length])
        compressor = getattr(local, "compressor", None)
        if compressor is None:
            compressor = local.compressor = Compressor(compression)
        stored = compressor.compress(raw)
        return _Done(row, raw, buffer), stored, digest.blake3(stored)

    hasher, frames, offset = digest.blake3_hasher(), [], 0
    known: dict[str, Frame] = {}
    with pool_of(threads()) as pool:
        rows = segments(sizes, raws)
        for done, stored, blake3 in in_order(pool, work, rows, under_way):
            for segment in done.row:
                if not digests.is_whole(segment):
                    digests.piece(segment, done.raw[segment.at : segment.at + segment.length])
            if blake3 not in known:
                known[blake3] = Frame(0, offset, len(stored), len(done.raw), blake3)
                _append(out, stored)
                hasher.update(stored)
                offset += len(stored)
            frames.append(known[blake3]._replace(raw=len(done.raw)))
            progress(len(done.raw))
            buffers.give(done.buffer, under_way)
    files = tuple(
        File(path, mode, size, xxh3)
        for (path, mode, size), xxh3 in zip(found.files, digests.found, strict=True)
    )
    return Packed(files, Pack(hasher.hexdigest(), offset), tuple(frames))


def _append(out: BinaryIO, stored: bytes | memoryview) -> None:
    view = memoryview(stored)
    for at in range(0, len(view), SMALL_PIECE):
        out.write(view[at : at + SMALL_PIECE])


class _Done(NamedTuple):
    """A frame that is done, but for the digests of the files that it shares with others."""

    row: list[Segment]
    raw: memoryview
    buffer: mmap.mmap


class _Buffers:
    """Memory for frames, to be used again and again.

    Fresh memory for each frame would cost as much as decompressing into it.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._made = 0
        self._free: list[mmap.mmap] = []
        self._lock = threading.Lock()

    def take(self) -> mmap.mmap:
        with self._lock:
            if self._free:
                return self._free.pop()
            self._made += 1
        return mmap.mmap(-1, self._room)

    def give(self, buffer: mmap.mmap, most: int) -> None:
        """Have it back, unless more than `most` are there by now."""
        with self._lock:
            if self._made > most:
                self._made -= 1
            else:
                self._free.append(buffer)


def _read_segments(root: Path, found: Scan, row: Sequence[Segment], raw: memoryview) -> None:
    for segment in row:
        path, _, size = found.files[segment.file]
        target = raw[segment.at : segment.at + segment.length]
        handle = os.open(root / path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            done = 0
            while done < len(target):
                count = os.preadv(handle, [target[done:]], segment.start + done)
                if not count or os.fstat(handle).st_size != size:
                    raise BuildFailed(f"{path} changed while it was read")
                done += count
        finally:
            os.close(handle)


# -- unpacking ----------------------------------------------------------------------------


def unpack(
    manifest: Manifest,
    fetch: Fetch,
    into: Path,
    *,
    again: Fetch | None = None,
    loans: Loans | None = None,
    parallel: int = 0,
    abort: Callable[[], object] = lambda: None,
    progress: Progress = lambda count: None,
    there: Sequence[int] = (),
    mark: Callable[[int], object] = lambda number: None,
) -> list[int]:
    """Write the manifest's tree into the folder `into`, which is empty or holds a part of it.

    Every stored byte passes BLAKE3 before it is decompressed, every file XXH3
    before this returns. On an error `into` holds a part of the tree: hand in a
    staging folder.

    Args:
        again: Fetches the frames that were there and are not what was marked; None: as `fetch`
            does, which is called once for each other frame, in about their order.
        loans: Whose memory `fetch` gives.
        parallel: Frames to fetch at once, if more than there are threads for the work:
            a store that answers late is waited for, not computed with.
        abort: Ends the fetches under way; called on Ctrl-C, which else waits for them.
        there: For each frame whether its bytes are in `into` already; empty: none is.
        mark: Called with a frame's number once its bytes are, from any thread.

    Returns:
        Each file's modification time, in ns since the epoch.

    Raises:
        Corrupt: bytes that are not the manifest's; the message names the frame or file.
        OSError: the disk; see `disk.disk_errors`.
    """
    job = _Unpacking(manifest, into, fetch, again, loans, there, mark)

    def interrupted(kind: type[BaseException] | None, *rest: object) -> None:
        if pool and kind:
            pool.shutdown(wait=False, cancel_futures=True)  # none begins after the abort
        if kind is KeyboardInterrupt:
            abort()

    with ExitStack() as stack:
        stack.callback(job.writer.close)
        share = stack.enter_context(_MEMORY.one())
        progress(0)  # who waited for that may not want it any more

        def under_way() -> int:
            return _workers(job.largest, parallel, share()) + 1

        most = _workers(job.largest, parallel, _MEMORY.total)
        tiny = is_tiny(manifest.size) and not parallel
        pool = None if tiny else stack.enter_context(pool_of(most))
        stack.push(interrupted)
        for done in in_order(pool, job.work, job.items(), under_way):
            if not job.lost:  # else what came is written, and no file is whole
                job.writer.finish(done.row, done.raw)
                progress(len(done.raw))
            job.buffers.give(done.buffer, under_way())
    if job.lost:
        raise job.lost[0]
    return job.writer.stamps


class _Item(NamedTuple):
    """A frame, and where its bytes go."""

    number: int
    frame: Frame
    row: list[Segment]
    handles: dict[int, int]
    """Of files over several frames, which the writer opened."""


class _Unpacking:
    """What the threads of one `unpack` share."""

    def __init__(
        self,
        manifest: Manifest,
        into: Path,
        fetch: Fetch,
        again: Fetch | None,
        loans: Loans | None,
        there: Sequence[int],
        mark: Callable[[int], object],
    ) -> None:
        self._manifest, self._fetch, self._again = manifest, fetch, again or fetch
        self._loans, self._mark = loans, mark
        self._there = there if any(there) else ()
        _make_folders(manifest, into)
        self.writer = TreeWriter(manifest.files, into, resumed=bool(self._there))
        self.largest = max((frame.raw for frame in manifest.frames), default=1)
        self.buffers = _Buffers(self.largest)
        self.lost: list[StoreUnavailable] = []
        """Why frames did not come."""
        self._local = threading.local()

    def items(self) -> Iterator[_Item]:
        """In order; after an outage only as long as frames that came are left."""
        frames = self._manifest.frames
        sizes = [file.size for file in self._manifest.files]
        rows = segments(sizes, [frame.raw for frame in frames])
        for number, (frame, row) in enumerate(zip(frames, rows, strict=True)):
            if self.lost and self._loans and not self._loans.left(number):
                return
            yield _Item(number, frame, row, self.writer.open(row))

    def work(self, item: _Item) -> _Done:
        """Have a frame's bytes in its files, and in memory."""
        number, frame, row, handles = item
        buffer = self.buffers.take()
        raw = memoryview(buffer)[: frame.raw]
        marked = bool(self._there and self._there[number])
        if marked and self.writer.read(row, raw, handles):
            return _Done(row, raw, buffer)
        try:
            fetch = self._again if marked else self._fetch
            open_frame(self._manifest.packs[frame.pack], frame, fetch, self._local, raw)
        except StoreUnavailable as error:
            if not self._loans:
                raise
            self.lost.append(error)
            return _Done([], raw, buffer)
        finally:
            if self._loans:
                self._loans.back()
        self.writer.write(row, raw, handles)
        self._mark(number)
        return _Done(row, raw, buffer)


def _workers(largest: int, parallel: int, memory: int) -> int:
    """How many frames to have under way: one more than cores, so that all decode while one
    waits for a lock or the disk; as many as the store likes, if memory allows.

    Each worker holds a frame's stored and its raw bytes; one finished frame waits its turn.
    """
    return max(2, min(max(threads() + 1, parallel), (memory // largest - 1) // 2))


def _make_folders(manifest: Manifest, into: Path) -> None:
    """Folders first, so that threads only ever create files; links and empty files too."""
    made = {""}
    paths = [file.path for file in manifest.files] + [link.path for link in manifest.links]
    for folder in [path.rpartition("/")[0] for path in paths] + list(manifest.dirs):
        if folder not in made:
            (into / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
    for link in manifest.links:
        with contextlib.suppress(FileExistsError):  # by a restore that was cut
            (into / link.path).symlink_to(link.target)
