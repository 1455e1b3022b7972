"""The floor under a restore: the same frames decoded and written, and not one digest."""

from __future__ import annotations

import mmap
import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard

from artcache.frames import Segment, segments
from artcache.manifest import Frame, Manifest

_BLOCK = 4096


def decode_and_write(manifest: Manifest, pack: Path, into: Path, *, direct: bool) -> None:
    """On all cores.

    Args:
        direct: Write past the page cache what begins a frame; else all of it through it.
    """
    source = os.open(pack, os.O_RDONLY)
    flags = os.O_WRONLY | os.O_CREAT
    cached, straight = [], []
    for file in manifest.files:
        path = into / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        cached.append(os.open(path, flags, file.mode))
        straight.append(os.open(path, flags | os.O_DIRECT) if direct else cached[-1])
    local = threading.local()

    def work(item: tuple[Frame, list[Segment]]) -> None:
        frame, row = item
        if not hasattr(local, "decoder"):
            local.decoder, local.buffer = zstandard.ZstdDecompressor(), mmap.mmap(-1, 4 << 20)
        raw = memoryview(local.buffer)[: frame.raw]
        stored = os.pread(source, frame.stored, frame.offset)
        if frame.stored == frame.raw:
            raw[:] = stored
        else:
            local.decoder.stream_reader(stored, read_size=len(stored)).readinto(raw)
        for segment in row:
            part = raw[segment.at : segment.at + segment.length]
            whole = len(part) - len(part) % _BLOCK if segment.at == 0 else 0
            os.pwrite(straight[segment.file], part[:whole], segment.start)
            os.pwrite(cached[segment.file], part[whole:], segment.start + whole)

    rows = segments([file.size for file in manifest.files], [f.raw for f in manifest.frames])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(work, zip(manifest.frames, rows, strict=True)))
    for handle in {source, *cached, *straight}:
        os.close(handle)
