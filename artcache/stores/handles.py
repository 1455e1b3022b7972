"""Files kept open by those who read them again and again. For `posix`.

A FUSE mount drops what it read ahead of a file whenever somebody opens it: opened anew
for each range, a pack is read one and a half times. The threads of a restore end with it,
and so do their handles; the main thread lives on and keeps none, since a mount with an
open file cannot be unmounted.
"""

from __future__ import annotations

import os
import threading


class _Open:
    """A file, open for reading until nobody has it any more."""

    def __init__(self, path: str) -> None:
        self.path = path
        self.handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        facts = os.fstat(self.handle)
        self.identity = (facts.st_dev, facts.st_ino)

    def __del__(self) -> None:
        if hasattr(self, "handle"):
            os.close(self.handle)


class Handles:
    """For each thread the file that it read last."""

    def __init__(self) -> None:
        self._local = threading.local()

    def of(self, path: str) -> int:
        """A handle of the file that is at `path` now, good until this thread's next call."""
        facts = os.stat(path)
        kept: _Open | None = getattr(self._local, "kept", None)
        if not kept or (kept.path, kept.identity) != (path, (facts.st_dev, facts.st_ino)):
            self.drop()
            kept = self._local.kept = _Open(path)
        return kept.handle

    def done(self) -> None:
        """The handle was used."""
        if threading.current_thread() is threading.main_thread():
            self.drop()

    def drop(self) -> None:
        """Close this thread's file: a mount that failed may need it opened anew."""
        self._local.kept = None
