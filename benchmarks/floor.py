"""The floor under a restore: the same frames decoded and written, and not one digest."""

from __future__ import annotations

import mmap
import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard

from artcache.disk import reserve
from artcache.frames import FRAME, Segment, segments
from artcache.lay import PIECE, SMALL_PIECE, write_all
from artcache.manifest import Frame, Manifest


def decode_and_write(manifest: Manifest, pack: Path, into: Path) -> None:
    """On all cores, with the restore's own way of using memory and the page cache."""
    source = os.open(pack, os.O_RDONLY)
    targets = []
    for file in manifest.files:
        path = into / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        targets.append(os.open(path, os.O_WRONLY | os.O_CREAT, file.mode))
        if file.size > FRAME:
            reserve(targets[-1], file.size)
    local, pieces = threading.local(), [PIECE]

    def work(item: tuple[Frame, list[Segment]]) -> None:
        frame, row = item
        if not hasattr(local, "decoder"):
            local.decoder, local.buffer = zstandard.ZstdDecompressor(), mmap.mmap(-1, FRAME)
        raw = memoryview(local.buffer)[: frame.raw]
        stored = os.pread(source, frame.stored, frame.offset)
        if frame.stored == frame.raw:
            raw[:] = stored
        else:
            local.decoder.stream_reader(stored, read_size=len(stored)).readinto(raw)
        for segment in row:
            part = raw[segment.at : segment.at + segment.length]
            start = time.thread_time()
            write_all(targets[segment.file], part, segment.start, pieces[0])
            if time.thread_time() - start > len(part) / 1e9:
                pieces[0] = SMALL_PIECE

    rows = segments([file.size for file in manifest.files], [f.raw for f in manifest.frames])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1) as pool:
        list(pool.map(work, zip(manifest.frames, rows, strict=True)))
    for handle in (source, *targets):
        os.close(handle)
