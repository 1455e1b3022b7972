"""A mounted Drive's look-alike: a FUSE folder over a plain one, with a Drive's bad habits.

    python tests/fuse_drive.py BACKING MOUNTPOINT

Every file is 0600, there are no links, and no create is exclusive: two writers of
one name both succeed. Runs until it is unmounted. Needs libfuse and `mfusepy`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys

import mfusepy


class Drive(mfusepy.Operations):
    def __init__(self, backing: str) -> None:
        self._backing = backing

    def _at(self, path: str) -> str:
        return self._backing + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, float]:
        facts = os.lstat(self._at(path))
        mode = facts.st_mode if stat.S_ISDIR(facts.st_mode) else stat.S_IFREG | 0o600
        return {
            "st_mode": mode, "st_size": facts.st_size, "st_mtime": facts.st_mtime,
            "st_nlink": 1, "st_uid": os.getuid(), "st_gid": os.getgid(),
        }  # fmt: skip

    def readdir(self, path: str, fh: int) -> list[str]:
        return [".", "..", *os.listdir(self._at(path))]

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), 0o700)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT, 0o600)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~os.O_EXCL)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._at(path), length)

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))

    def link(self, target: str, source: str) -> None:
        raise mfusepy.FuseOSError(errno.ENOSYS)

    def symlink(self, target: str, source: str) -> None:
        raise mfusepy.FuseOSError(errno.ENOSYS)

    def chmod(self, path: str, mode: int) -> None:
        """Accepted and forgotten."""

    def utimens(self, path: str, times: object = None) -> None:
        """Accepted and forgotten."""

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        raise mfusepy.FuseOSError(errno.ENOSYS)


if __name__ == "__main__":
    mfusepy.FUSE(Drive(sys.argv[1]), sys.argv[2], foreground=True, nothreads=True)
