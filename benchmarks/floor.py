"""The floor under a restore: the same frames decoded and written, and not one digest."""

from __future__ import annotations

import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard

from artcache.frames import FRAME, Segment, segments
from artcache.lay import PIECE
from artcache.manifest import Frame, Manifest


def decode_and_write(manifest: Manifest, pack: Path, into: Path) -> None:
    """On all cores, with the restore's own reuse of memory and length of writes."""
    source = os.open(pack, os.O_RDONLY)
    targets = []
    for file in manifest.files:
        path = into / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        targets.append(os.open(path, os.O_WRONLY | os.O_CREAT, file.mode))
    local = threading.local()

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
            for at in range(0, len(part), PIECE):
                os.pwrite(targets[segment.file], part[at : at + PIECE], segment.start + at)

    rows = segments([file.size for file in manifest.files], [f.raw for f in manifest.frames])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0)) + 1) as pool:
        list(pool.map(work, zip(manifest.frames, rows, strict=True)))
    for handle in (source, *targets):
        os.close(handle)
