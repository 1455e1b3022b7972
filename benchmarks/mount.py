"""A slow, read-only view of a folder: `python -m benchmarks.mount FOLDER AT RATE LATENCY COUNTS`.

RATE in bytes a second over all reads (0: no limit), LATENCY in seconds a call. Writes
how often each call was made to the file COUNTS at the end. Needs libfuse and `mfusepy`.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import Counter
from pathlib import Path

import mfusepy  # type: ignore[import-untyped]

from .bucket import Bucket


class Slow(mfusepy.Operations):  # type: ignore[misc]
    use_ns = True

    def __init__(self, folder: str, rate: float, latency: float) -> None:
        self._folder, self._latency = folder, latency
        self._bucket = Bucket(rate)
        self.calls: Counter[str] = Counter()

    def _called(self, name: str) -> None:
        self.calls[name] += 1
        if self._latency:
            time.sleep(self._latency)

    def getattr(self, path: str, fh: int | None = None) -> dict[str, int]:
        self._called("getattr")
        facts = os.lstat(self._folder + path)
        names = ("st_mode", "st_size", "st_nlink", "st_uid", "st_gid")
        return {
            **{name: getattr(facts, name) for name in names},
            "st_mtime": facts.st_mtime_ns,
        }

    def readdir(self, path: str, fh: int) -> list[str]:
        self._called("readdir")
        return [".", "..", *os.listdir(self._folder + path)]

    def readlink(self, path: str) -> str:
        self._called("readlink")
        return os.readlink(self._folder + path)

    def open(self, path: str, flags: int) -> int:
        self._called("open")
        return os.open(self._folder + path, os.O_RDONLY)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._called("read")
        data = os.pread(fh, size, offset)
        self.calls["bytes read"] += len(data)
        self._bucket.take(len(data))
        return data

    def release(self, path: str, fh: int) -> None:
        self.calls["release"] += 1  # nobody waits for it
        os.close(fh)


if __name__ == "__main__":
    folder, at, rate, latency, counts = sys.argv[1:]
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, -10)  # a network does not wait for a busy reader
    view = Slow(folder, float(rate), float(latency))
    mfusepy.FUSE(view, at, foreground=True, nothreads=False, ro=True, max_read=1 << 17)
    Path(counts).write_text(json.dumps(view.calls))
