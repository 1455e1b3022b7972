"""A tree of files <-> a pack of frames. Parallel over frames, in bounded memory.

The raw bytes of a pack are its files' bytes in the manifest's order, cut into
frames that are compressed, digested and fetched each by itself. Digests of
whole files need their bytes in order, so a file inside one frame is finished
by whichever thread has the frame, and one over several frames is digested by
the calling thread, which takes frames in order.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO, NamedTuple

from . import digest
from .errors import BuildFailed, Corrupt
from .frames import Digests, Segment, cut, in_order, segments, threads
from .manifest import File, Frame, Manifest, Pack
from .tree import Scan

LEVEL = 3
_WORTH = 32
"""A frame is stored verbatim unless zstd saves at least one part in so many."""

Fetch = Callable[[Pack, int, int], bytes]
"""(pack, offset, length) -> exactly that many bytes of it."""
Progress = Callable[[int], object]
"""Called with the raw bytes finished since the last call."""


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
    level: int = LEVEL,
    progress: Progress = lambda count: None,
) -> Packed:
    """Write a tree's pack to `out`.

    Args:
        level: zstd's, 1 to 19.

    Raises:
        BuildFailed: a file changed while it was read.
    """
    sizes = [size for _, _, size in found.files]
    digests = Digests(sizes)
    local = threading.local()

    def work(row: list[Segment]) -> tuple[list[Segment], bytearray, bytes | bytearray, str]:
        raw = _read_segments(root, found, row)
        view = memoryview(raw)
        for segment in row:
            if digests.is_whole(segment):
                digests.whole(segment, view[segment.at : segment.at + segment.length])
        stored = _compress(local, raw, level)
        return row, raw, stored, digest.blake3(stored)

    hasher, frames, offset = digest.blake3_hasher(), [], 0
    raws = list(cut(sizes))
    with ThreadPoolExecutor(threads()) as pool:
        rows = segments(sizes, raws)
        for row, raw, stored, blake3 in in_order(pool, work, rows, threads() + 1):
            view = memoryview(raw)
            for segment in row:
                if not digests.is_whole(segment):
                    digests.piece(segment, view[segment.at : segment.at + segment.length])
            out.write(stored)
            hasher.update(stored)
            frames.append(Frame(0, offset, len(stored), len(raw), blake3))
            offset += len(stored)
            progress(len(raw))
    files = tuple(
        File(path, mode, size, xxh3)
        for (path, mode, size), xxh3 in zip(found.files, digests.found, strict=True)
    )
    return Packed(files, Pack(hasher.hexdigest(), offset), tuple(frames))


def _read_segments(root: Path, found: Scan, row: Sequence[Segment]) -> bytearray:
    raw = bytearray(sum(segment.length for segment in row))
    view = memoryview(raw)
    for segment in row:
        path, _, size = found.files[segment.file]
        target = view[segment.at : segment.at + segment.length]
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
    return raw


def _compress(local: threading.local, raw: bytearray, level: int) -> bytes | bytearray:
    compressor = getattr(local, "compressor", None)
    if compressor is None:
        import zstandard

        compressor = local.compressor = zstandard.ZstdCompressor(
            level=level, write_checksum=False, write_content_size=True
        )
    stored: bytes = compressor.compress(raw)
    return stored if len(stored) <= len(raw) - len(raw) // _WORTH - 1 else raw


# -- unpacking ----------------------------------------------------------------------------


def unpack(
    manifest: Manifest,
    fetch: Fetch,
    into: Path,
    *,
    progress: Progress = lambda count: None,
) -> None:
    """Write the manifest's tree into the empty folder `into`.

    Every stored byte passes BLAKE3 before it is decompressed, every file XXH3
    before this returns. On an error `into` holds a part of the tree: hand in a
    staging folder.

    Raises:
        Corrupt: bytes that are not the manifest's; the message names the frame or file.
        OSError: the disk; see `disk.disk_errors`.
    """
    sizes = [file.size for file in manifest.files]
    _make_folders(manifest, into)
    writer = _TreeWriter(manifest, into)
    local = threading.local()

    def work(item: tuple[Frame, list[Segment], dict[int, int]]) -> tuple[list[Segment], bytes]:
        frame, row, handles = item
        raw = open_frame(manifest.packs[frame.pack], frame, fetch, local)
        writer.write(row, memoryview(raw), handles)
        return row, raw

    rows = segments(sizes, [frame.raw for frame in manifest.frames])
    with ExitStack() as stack:
        stack.callback(writer.close)
        pool = stack.enter_context(ThreadPoolExecutor(threads()))
        items = (
            (frame, row, writer.open(row)) for frame, row in zip(manifest.frames, rows, strict=True)
        )
        for row, raw in in_order(pool, work, items, threads() + 1):
            writer.finish(row, memoryview(raw))
            progress(len(raw))


def open_frame(pack: Pack, frame: Frame, fetch: Fetch, local: threading.local) -> bytes:
    """Fetch, verify and decompress one frame. Raises `Corrupt`."""
    stored = fetch(pack, frame.offset, frame.stored)
    if len(stored) != frame.stored or digest.blake3(stored) != frame.blake3:
        raise Corrupt(
            f"pack {pack.blake3[:12]}: the {frame.stored} bytes at {frame.offset} are not"
            " those that were published"
        )
    if frame.stored == frame.raw:
        return stored
    import zstandard

    decompressor = getattr(local, "decompressor", None)
    if decompressor is None:
        decompressor = local.decompressor = zstandard.ZstdDecompressor(
            max_window_size=1 << 27  # what level 19 may ask for, and no more
        )
    try:
        if zstandard.frame_content_size(stored) != frame.raw:
            raise Corrupt(f"pack {pack.blake3[:12]}: a frame at {frame.offset} lies on its length")
        raw: bytes = decompressor.decompress(stored, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Corrupt(f"pack {pack.blake3[:12]}: frame at {frame.offset}: {error}") from None
    return raw


def _make_folders(manifest: Manifest, into: Path) -> None:
    """Folders first, so that threads only ever create files; links and empty files too."""
    made = {""}
    paths = [file.path for file in manifest.files] + [link.path for link in manifest.links]
    for folder in [path.rpartition("/")[0] for path in paths] + list(manifest.dirs):
        if folder not in made:
            (into / folder).mkdir(parents=True, exist_ok=True)
            made.add(folder)
    for link in manifest.links:
        (into / link.path).symlink_to(link.target)


class _TreeWriter:
    """Creates files and fills in their segments; checks each file's digest once it is whole."""

    def __init__(self, manifest: Manifest, into: Path) -> None:
        self._files = manifest.files
        self._into = str(into)
        self._digests = Digests([file.size for file in manifest.files])
        self._handles: dict[int, int] = {}
        for number, file in enumerate(manifest.files):
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
        done += os.pwrite(handle, view[done:], offset + done)
