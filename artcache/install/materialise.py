"""One file from the home into a staging folder, the cheapest way that is safe.

Reflinks share bytes until one side writes, so they are always welcome. Hard
links share them for good: only for large files (libraries, programs), which
nobody edits in place; a cfg file edited in a prefix must not change the home.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import Callable
from pathlib import Path

from ..errors import Corrupt, LocalDisk

LINK_FROM = 1 << 20
"""Bytes. Smaller files are never hard-linked."""

_FICLONE = 0x40049409
_CHUNK = 1 << 20
_COPY_RANGE = 64 << 20  # bytes at a time, so that Ctrl-C is heard
_NO_REFLINKS_HERE = {errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS}
_NO_LINKS_HERE = {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS}
_NO_LINK_THIS_TIME = _NO_LINKS_HERE | {errno.EPERM, errno.EACCES, errno.EMLINK}
_NO_SYMLINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO}


class Materialiser:
    """Remembers what this pair of file systems cannot do, and counts what was done."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.counts: dict[str, int] = {}
        self._note = note
        self._reflinks = self._links = self._modes = self._symlinks = True

    def file(self, source: Path, target: Path, *, size: int, mode: int) -> None:
        """Make `target`, which does not exist.

        Args:
            size: In bytes, as it was when the source was verified.

        Raises:
            Corrupt: the source is gone, or not of that size.
            OSError: the disk said no. `target` may be there in part.
        """
        large = size >= LINK_FROM
        opened = _open_source(source, size)
        try:
            if large and not self._reflinks and self._hard_link(source, opened, target, mode):
                return
            made = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                how = self._fill(source, opened, made, target, size, mode)
                if how != "linked":
                    self._chmod(made, mode)
            finally:
                os.close(made)
            self._count(how)
        finally:
            os.close(opened)

    def link(self, target: Path, leads_to: str, stand_in: Path | None, size: int) -> None:
        """Make the symlink `target`; where the disk has none, a copy of `stand_in`.

        Raises:
            LocalDisk: no symlinks here, and it leads to no file of the tree.
        """
        if self._symlinks:
            try:
                target.symlink_to(leads_to)
                return self._count("symlinked")
            except OSError as error:
                if error.errno not in _NO_SYMLINKS:
                    raise
                self._symlinks = False
                self._note("this disk has no symlinks: the files they lead to are copied instead")
        if stand_in is None:
            raise LocalDisk(
                f"the disk of {target.parent} has no symlinks, and the one to {leads_to} "
                "cannot be replaced by a copy",
                hint="choose a folder on another disk",
            )
        self.file(stand_in, target, size=size, mode=0o755)
        return None

    def _fill(
        self, source: Path, opened: int, made: int, target: Path, size: int, mode: int
    ) -> str:
        if self._reflinks and self._reflink(opened, made):
            return "reflinked"
        if size >= LINK_FROM and self._links:
            target.unlink()
            if self._hard_link(source, opened, target, mode):
                return "linked"
        raise NotImplementedError
