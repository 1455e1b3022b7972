"""A mounted Drive's look-alike: a FUSE folder over a plain one, with a Drive's bad habits.

    python tests/fuse_drive.py BACKING MOUNTPOINT [ILLNESS]

Every file is 0600, there are no links, and no create is exclusive: two writers of
one name both succeed. ILLNESS is a file that says which calls fail (`mounts.Illness`).
Runs until it is unmounted. Needs libfuse and `mfusepy`.
"""

from __future__ import annotations

import errno
import json
import os
import stat
import sys
from typing import Any

import mfusepy


class Drive(mfusepy.Operations):
    def __init__(self, backing: str, illness: str = "") -> None:
        self._backing, self._illness = backing, illness
        self._faults: dict[str, Any] = {}

    def _look(self) -> dict[str, Any]:
        if self._illness:
            with open(self._illness) as file:
                faults = json.load(file)
            if faults["number"] != self._faults.get("number"):
                self._faults = faults
        return self._faults

    def _suffer(self, call: str, path: str) -> None:
        """Fail, if it is this call's turn."""
        faults = self._look()
        fault = faults.get(call)
        if fault and path != "/":
            number, times, before = fault
            faults[call] = [number, times - (before <= 0), before - 1]
            if before <= 0 < times:
                raise mfusepy.FuseOSError(number)
        if path.endswith(tuple(faults.get("unseen", ()))):
            raise mfusepy.FuseOSError(errno.ENOENT)
        if call == "open" and path.endswith(tuple(faults.get("closed", ()))):
            raise mfusepy.FuseOSError(errno.ENOENT)

    def _at(self, path: str) -> str:
        return self._backing + path

    def getattr(self, path: str, fh: int | None = None) -> dict[str, float]:
        self._suffer("getattr", path)
        facts = os.lstat(self._at(path))
        mode = facts.st_mode if stat.S_ISDIR(facts.st_mode) else stat.S_IFREG | 0o600
        return {
            "st_mode": mode, "st_size": facts.st_size, "st_mtime": facts.st_mtime,
            "st_nlink": 1, "st_uid": os.getuid(), "st_gid": os.getgid(),
        }  # fmt: skip

    def readdir(self, path: str, fh: int) -> list[str]:
        self._suffer("readdir", path)
        unseen = tuple(self._look().get("unseen", ()))
        return [".", "..", *(n for n in os.listdir(self._at(path)) if not n.endswith(unseen))]

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), 0o700)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def create(self, path: str, mode: int, fi: object = None) -> int:
        return os.open(self._at(path), os.O_RDWR | os.O_CREAT, 0o600)

    def open(self, path: str, flags: int) -> int:
        self._suffer("open", path)
        return os.open(self._at(path), flags & ~os.O_EXCL)

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        self._suffer("read", path)
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
    fresh = {"attr_timeout": 0, "entry_timeout": 0, "negative_timeout": 0}
    drive = Drive(sys.argv[1], *sys.argv[3:])
    mfusepy.FUSE(drive, sys.argv[2], foreground=True, nothreads=True, **fresh)
