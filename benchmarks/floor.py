"""The floor under a restore: the same frames decoded and written, and not one digest."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import zstandard

from artcache.frames import Segment, segments
from artcache.manifest import Frame, Manifest


def decode_and_write(manifest: Manifest, pack: Path, into: Path) -> None:
    """What is left when nothing is checked: all cores, the page cache, one handle a file."""
    source = os.open(pack, os.O_RDONLY)
    for file in manifest.files:
        (into / file.path).parent.mkdir(parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
    targets = [os.open(into / file.path, flags, file.mode) for file in manifest.files]
    local = threading.local()

    def work(item: tuple[Frame, list[Segment]]) -> None:
        frame, row = item
        if not hasattr(local, "decoder"):
            local.decoder = zstandard.ZstdDecompressor()
        raw = os.pread(source, frame.stored, frame.offset)
        if frame.stored != frame.raw:
            raw = local.decoder.decompress(raw)
        view = memoryview(raw)
        for segment in row:
            part = view[segment.at : segment.at + segment.length]
            os.pwrite(targets[segment.file], part, segment.start)

    rows = segments([file.size for file in manifest.files], [f.raw for f in manifest.frames])
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(work, zip(manifest.frames, rows, strict=True)))
    for handle in (source, *targets):
        os.close(handle)
