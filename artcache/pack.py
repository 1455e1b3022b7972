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
from .errors import BuildFailed, Corrupt, StoreUnavailable
from .frames import Digests, Segment, cut, in_order, is_tiny, pool_of, segments, threads
from .lay import SMALL_PIECE, TreeWriter
from .manifest import File, Frame, Manifest, Pack
from .shares import Shares
from .tree import Scan

_MEMORY = Shares(56 << 20, most=2)
"""Bytes that the frames of all restores under way may take. Of two, one has the link while the
other makes its last files; more would only have less room each."""

Fetch = Callable[[Pack, int, int], "bytes | memoryview"]
"""(pack, offset, length) -> exactly that many bytes of it, good until the thread's next call."""
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
    sizes = [file.size for file in manifest.files]
    resumed = any(there)
    _make_folders(manifest, into)
    writer = TreeWriter(manifest.files, into, resumed=resumed)
    local = threading.local()
    largest = max((frame.raw for frame in manifest.frames), default=1)
    buffers = _Buffers(largest)
    lost: list[StoreUnavailable] = []

    def work(item: tuple[int, Frame, list[Segment], dict[int, int]]) -> _Done:
        number, frame, row, handles = item
        buffer = buffers.take()
        raw = memoryview(buffer)[: frame.raw]
        marked = resumed and there[number]
        if marked and writer.read(row, raw, handles):
            return _Done(row, raw, buffer)
        try:
            way = again or fetch if marked else fetch
            open_frame(manifest.packs[frame.pack], frame, way, local, raw)
        except StoreUnavailable as error:
            if not loans:
                raise
            lost.append(error)
            return _Done([], raw, buffer)
        finally:
            if loans:
                loans.back()
        writer.write(row, raw, handles)
        mark(number)
        return _Done(row, raw, buffer)

    def items() -> Iterator[tuple[int, Frame, list[Segment], dict[int, int]]]:
        rows = segments(sizes, [frame.raw for frame in manifest.frames])
        for number, (frame, row) in enumerate(zip(manifest.frames, rows, strict=True)):
            if lost and loans and not loans.left(number):
                return
            yield number, frame, row, writer.open(row)

    def interrupted(kind: type[BaseException] | None, *rest: object) -> None:
        if pool and kind:
            pool.shutdown(wait=False, cancel_futures=True)  # none begins after the abort
        if kind is KeyboardInterrupt:
            abort()

    with ExitStack() as stack:
        stack.callback(writer.close)
        share = stack.enter_context(_MEMORY.one())
        progress(0)  # who waited for that may not want it any more

        def under_way() -> int:
            return _workers(largest, parallel, share()) + 1

        most = _workers(largest, parallel, _MEMORY.total)
        tiny = is_tiny(manifest.size) and not parallel
        pool = None if tiny else stack.enter_context(pool_of(most))
        stack.push(interrupted)
        for done in in_order(pool, work, items(), under_way):
            if not lost:  # else what came is written, and no file is whole
                writer.finish(done.row, done.raw)
                progress(len(done.raw))
            buffers.give(done.buffer, under_way())
    if lost:
        raise lost[0]
    return writer.stamps


def _workers(largest: int, parallel: int, memory: int) -> int:
    """How many frames to have under way: one more than cores, so that all decode while one
    waits for a lock or the disk; as many as the store likes, if memory allows.

    Each worker holds a frame's stored and its raw bytes; one finished frame waits its turn.
    """
    return max(2, min(max(threads() + 1, parallel), (memory // largest - 1) // 2))


def open_frame(
    pack: Pack,
    frame: Frame,
    fetch: Fetch,
    local: threading.local,
    out: memoryview | None = None,
) -> memoryview:
    """Fetch, verify and decompress one frame.

    Args:
        out: Where to, just as long as the raw bytes; None: into new memory.

    Raises:
        Corrupt: it is not what was published, or not one zstd frame of its length.
    """
    stored = fetch(pack, frame.offset, frame.stored)
    if len(stored) != frame.stored or digest.blake3(stored) != frame.blake3:
        raise Corrupt(
            f"pack {pack.blake3[:12]}: the {frame.stored} bytes at {frame.offset} are not"
            " those that were published"
        )
    out = memoryview(bytearray(frame.raw)) if out is None else out
    if frame.stored == frame.raw:
        out[:] = stored
    else:
        _decompress(pack, frame, stored, local, out)
    return out


def _decompress(
    pack: Pack, frame: Frame, stored: bytes | memoryview, local: threading.local, out: memoryview
) -> None:
    import zstandard

    decompressor = getattr(local, "decompressor", None)
    if decompressor is None:
        decompressor = local.decompressor = zstandard.ZstdDecompressor(
            max_window_size=1 << 27  # what level 19 may ask for, and no more
        )
    where = f"pack {pack.blake3[:12]}: frame at {frame.offset}"
    try:
        if zstandard.frame_content_size(stored) != frame.raw:
            raise Corrupt(f"{where} lies on its length")
        if _frame_end(stored) != len(stored):
            raise Corrupt(f"{where} is not exactly one zstd frame")
        if decompressor.stream_reader(stored, read_size=len(stored)).readinto(out) != frame.raw:
            raise Corrupt(f"{where} ends too soon")
    except zstandard.ZstdError as error:
        raise Corrupt(f"{where}: {error}") from None


def _frame_end(stored: bytes | memoryview) -> int:
    """Where the first zstd frame ends, by its blocks' headers (RFC 8878, 3.1.1)."""
    import zstandard

    at = zstandard.frame_header_size(stored)
    last = False
    while not last:
        header = int.from_bytes(stored[at : at + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if at + 3 > len(stored) or kind == 3:
            return -1
        at += 3 + (1 if kind == 1 else size)  # kind 1 is one byte, repeated
    return at + 4 * bool(zstandard.get_frame_parameters(stored).has_checksum)


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
