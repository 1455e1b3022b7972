"""One amount of memory for all restores of this process, however many threads ask for one.

For `pack`; knows nothing but threads.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class Shares:
    """So many bytes, in equal shares among those who are at work."""

    def __init__(self, total: int, most: int) -> None:
        """Args:
        most: How many may be at work at once; others wait.
        """
        self.total = total
        self._at_work = 0
        self._places = threading.Semaphore(most)
        self._lock = threading.Lock()

    @contextmanager
    def one(self) -> Iterator[Callable[[], int]]:
        """Wait for a place. Yields how many bytes one share is at present."""
        with self._places:
            with self._lock:
                self._at_work += 1
            try:
                yield self._share
            finally:
                with self._lock:
                    self._at_work -= 1

    def _share(self) -> int:
        return self.total // max(1, self._at_work)
