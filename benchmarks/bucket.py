"""A token bucket. Apart, because the mount's interpreter may have no artcache."""

from __future__ import annotations

import threading
import time


class Bucket:
    """So many bytes a second over all who take from it; up to 50 ms' worth at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._lock = threading.Lock()
        self._free_at = 0.0

    def take(self, count: int) -> None:
        """Wait until `count` bytes may pass. 0 bytes a second stands for no limit."""
        if not self._rate:
            return
        with self._lock:
            # What was overslept is made up for, but idle time is not saved up.
            start = max(self._free_at, time.monotonic() - 0.05)
            self._free_at = start + count / self._rate
            wait = self._free_at - time.monotonic()
        if wait > 0:
            time.sleep(wait)
