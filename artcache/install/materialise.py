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
_NEVER_HERE = {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.ENOTTY, errno.EINVAL}
_NOT_THIS_FILE = {errno.EPERM, errno.EACCES, errno.EMLINK}
_NO_SYMLINKS = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EIO}
_NO_MODES = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL}


class Materialiser:
    """Remembers what this pair of file systems cannot do, and counts what was done."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.counts: dict[str, int] = {}
        """`reflinked`, `linked`, `copied`, `symlinked`: how many each."""
        self._note = note
        self._reflinks = self._links = self._modes = self._symlinks = True

    def file(self, source: Path, target: Path, *, size: int, mode: int) -> None:
        """Make `target`, which does not exist yet.

        Args:
            size: In bytes, as it was when the source was verified.

        Raises:
            Corrupt: the source is gone, or not of that size.
            OSError: the disk said no. `target` may be there in part.
        """
        opened = _open_source(source, size)
        try:
            if self._reflinks and self._reflink(opened, target, mode):
                how = "reflinked"
            elif size >= LINK_FROM and self._links and self._link(source, opened, target, mode):
                how = "linked"
            else:
                self._copy(opened, target, size, mode)
                how = "copied"
        finally:
            os.close(opened)
        self._count(how)

    def link(
        self, target: Path, leads_to: str, stand_in: Path | None, *, size: int, mode: int
    ) -> None:
        """Make the symlink `target`; where the disk has none, a copy of the file `stand_in`.

        Raises:
            LocalDisk: no symlinks here, and it leads to no file of the tree.
            OSError, Corrupt: as `file`.
        """
        if self._symlinks:
            try:
                target.symlink_to(leads_to)
            except OSError as error:
                if error.errno not in _NO_SYMLINKS:
                    raise
                self._symlinks = False
                self._note("this disk has no symlinks: what they lead to is copied instead")
            else:
                self._count("symlinked")
                return
        if stand_in is None:
            raise LocalDisk(
                f"the disk of {target.parent.parent.parent} has no symlinks, and the one to "
                f"{leads_to} has no file to put in its place",
                hint="choose a folder on another disk",
            )
        self.file(stand_in, target, size=size, mode=mode)

    def _reflink(self, opened: int, target: Path, mode: int) -> bool:
        made = _create(target)
        try:
            fcntl.ioctl(made, _FICLONE, opened)
            self._chmod(made, mode)
            return True
        except OSError as error:
            if error.errno not in _NEVER_HERE | _NOT_THIS_FILE:
                raise
            self._reflinks = error.errno not in _NEVER_HERE
        finally:
            os.close(made)
        target.unlink()
        return False

    def _link(self, source: Path, opened: int, target: Path, mode: int) -> bool:
        """A second name for the source, if it is the very file that is wanted.

        Not where another user owns the source: root would put a file that this
        user may still write to into, say, /usr/local.
        """
        there = os.fstat(opened)
        if stat.S_IMODE(there.st_mode) != mode or there.st_uid != os.geteuid():
            return False
        try:
            target.hardlink_to(source)
        except OSError as error:
            if error.errno not in _NEVER_HERE | _NOT_THIS_FILE:
                raise
            self._links = error.errno not in _NEVER_HERE
            return False
        return True

    def _copy(self, opened: int, target: Path, size: int, mode: int) -> None:
        made = _create(target)
        try:
            _copy_bytes(opened, made, size)
            self._chmod(made, mode)
        finally:
            os.close(made)

    def _chmod(self, made: int, mode: int) -> None:
        try:
            os.fchmod(made, mode)
        except OSError as error:
            if error.errno not in _NO_MODES:
                raise
            if self._modes and mode & 0o100:
                self._note("this disk has no permission bits: programs in it may not start")
            self._modes = False

    def _count(self, how: str) -> None:
        self.counts[how] = self.counts.get(how, 0) + 1


def _open_source(source: Path, size: int) -> int:
    try:
        opened = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise _damaged(source, error.strerror or str(error)) from error
    there = os.fstat(opened)
    if not stat.S_ISREG(there.st_mode) or there.st_size != size:
        os.close(opened)
        raise _damaged(source, f"{there.st_size} bytes instead of {size}")
    return opened


def _damaged(source: Path, what: str) -> Corrupt:
    return Corrupt(
        f"the cached file {source} is damaged: {what}",
        hint="`artcache verify` finds such trees; the next fetch replaces them",
    )


def _create(target: Path) -> int:
    return os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)


def _copy_bytes(source: int, target: int, size: int) -> None:
    """In the kernel where it can (also as a server-side copy), by hand for the rest.

    Some file systems refuse `copy_file_range`, some stop early: what counts is
    the number of bytes that arrived.
    """
    done = 0
    copy_range = getattr(os, "copy_file_range", None)  # not in every build of Python
    while copy_range and done < size:
        try:
            moved = copy_range(source, target, min(size - done, _COPY_RANGE))
        except OSError:
            break
        if moved == 0:
            break
        done += moved
    while done < size:
        block = os.read(source, _CHUNK)
        if not block:
            raise _damaged(Path(f"/proc/self/fd/{source}").readlink(), "it ends early")
        done += write_all(target, block)


def write_all(target: int, data: bytes) -> int:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(target, rest) :]
    return len(data)
