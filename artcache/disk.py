"""The local disk's own words: full, read-only, not ours; flushing; what a boot is.

For rooms of floor 3 and `cache`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from .errors import LocalDisk

_OURS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the disk is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "not permitted",
    errno.EIO: "the disk failed to answer (I/O error)",
    errno.EMFILE: "too many open files",
    errno.ENOTDIR: "a file stands where a folder should be",
    errno.ENAMETOOLONG: "a path is too long for this file system",
}

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_KEEP_SIZE = 1
"""`FALLOC_FL_KEEP_SIZE`: a file is as long as what was written to it."""


_GET_FLAGS, _SET_FLAGS, _TOP_FOLDER = 0x80086601, 0x40086602, 0x00020000
"""`FS_IOC_GETFLAGS`, `FS_IOC_SETFLAGS`, and what `chattr +T` sets."""


@contextlib.contextmanager
def disk_errors(
    where: Path,
    *,
    doing: str,
    needed: int = 0,
    hint: str = "set ARTCACHE_DIR to a folder on another disk",
) -> Iterator[None]:
    """Turn an OSError inside into `LocalDisk`.

    Args:
        where: The folder that matters; its free space is named.
        doing: What could not be done, as in "write the tree".
        needed: Bytes that it takes, if known.
        hint: What to do if the disk is not ours; if it is full, what else to do.
    """
    try:
        yield
    except OSError as error:
        why = _OURS.get(error.errno or 0, error.strerror or str(error))
        place = f" ({error.filename})" if error.filename else ""
        room = ""
        if error.errno in FULL:
            hint = f"free some space, or {hint}"
            room = f"; {free_bytes(where) / 1e6:.0f} MB are free" + (
                f", {needed / 1e6:.0f} MB are needed" if needed else ""
            )
        raise LocalDisk(
            f"could not {doing} in {where}: {why}{place}{room}",
            hint=hint,
        ) from error


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write at `folder` or its nearest parent."""
    for place in (folder, *folder.parents):
        with contextlib.suppress(OSError):
            found = os.statvfs(place)
            return found.f_bavail * found.f_frsize
    return 0


def fsync_folder(folder: Path) -> None:
    """Make the names in `folder` durable; file systems that cannot are left alone."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)


def reserve(handle: int, length: int) -> None:
    """Have the disk set room aside for a new file, if it can: writing is then quicker.

    Raises:
        OSError: there is no such room.
    """
    import ctypes

    try:
        fallocate = ctypes.CDLL(None, use_errno=True).fallocate
    except (OSError, AttributeError):
        return
    fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    # Not os.posix_fallocate: where the file system cannot, it writes to every block.
    if fallocate(handle, _KEEP_SIZE, 0, length) != 0:
        number = ctypes.get_errno()
        if number in FULL:
            raise OSError(number, os.strerror(number))


def boot_id() -> str:
    """Changes whenever this machine may have lost what it had not written out; '' if unknown."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""


def spread(folder: Path) -> None:
    """Have ext4 put each folder that is made in this one into a part of the disk of its own.

    Where files were removed in the last minutes (by pip, by a build) it passes over each of
    them for every file that is made: 0.5 ms in place of 0.02. Other file systems refuse.
    """
    import fcntl

    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            flags = int.from_bytes(fcntl.ioctl(handle, _GET_FLAGS, bytes(8))[:4], sys.byteorder)
            if not flags & _TOP_FOLDER:
                wanted = (flags | _TOP_FOLDER).to_bytes(4, sys.byteorder)
                fcntl.ioctl(handle, _SET_FLAGS, wanted + bytes(4))
        finally:
            os.close(handle)


def emptied(folder: Path) -> Path:
    """The folder, made anew."""
    remove_tree(folder)
    folder.mkdir()
    return folder


def sweep(top: Path, kept: float) -> None:
    """Remove what killed processes left in `top`: folders that nobody holds a lock on.

    Args:
        kept: Seconds for which they stay.
    """
    import fcntl
    import time

    for folder in top.iterdir() if top.is_dir() else ():
        # Another process may sweep here too, so any of these may be gone.
        with contextlib.suppress(OSError):
            if time.time() - folder.stat().st_mtime < kept:
                continue
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(folder)
            finally:
                os.close(handle)


def remove_tree(folder: Path) -> None:
    """Also one with folders that even their owner cannot enter or write, as a build may leave."""
    with contextlib.suppress(OSError):
        os.rmdir(folder)  # as most are: shutil takes longer to import than that
        return
    if not os.path.lexists(folder):
        return
    import shutil

    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError:
        _open_up(folder)
        shutil.rmtree(folder, ignore_errors=True)


def _open_up(folder: str | Path) -> None:
    with contextlib.suppress(OSError):
        os.chmod(folder, 0o700)
        with os.scandir(folder) as found:
            for entry in found:
                if entry.is_dir(follow_symlinks=False):
                    _open_up(entry.path)


def replace_file(path: Path, data: bytes) -> None:
    """Put a small file in the place of `path`, whole for whoever reads it meanwhile; its folder
    is made. From any thread and process: of two at once either one stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
    try:
        temporary.write_bytes(data)
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def write_at(file: Path, offset: int, data: bytes | memoryview) -> None:
    """Write into a file at an offset; the file is made if need be."""
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        done = 0
        while done < len(data):
            done += os.pwrite(handle, memoryview(data)[done:], offset + done)
    finally:
        os.close(handle)


class Mount(NamedTuple):
    """What is mounted where a folder is."""

    point: str
    kind: str
    """`ext4`, `tmpfs`, `fuse.drive`."""
    options: frozenset[str]
    """Of the mount and of its file system: `ro`, `noexec`."""


def mount_of(folder: Path) -> Mount | None:
    """The longest mount point above `folder`, which need not exist; None if unknown."""
    real = os.fsencode(os.path.realpath(folder))
    best, found = b"", None
    try:
        with open("/proc/self/mountinfo", "rb") as table:
            for line in table:
                left, _, right = line.partition(b" - ")
                words = left.split(b" ")
                point = _unescaped(words[4])
                if len(point) >= len(best) and (real + b"/").startswith(point.rstrip(b"/") + b"/"):
                    kind, _, super_options = right.split(b" ")[:3]
                    options = os.fsdecode(words[5] + b"," + super_options.strip()).split(",")
                    best = point
                    found = Mount(os.fsdecode(point), kind.decode(), frozenset(options))
    except (OSError, IndexError, ValueError):
        return None
    return found


def _unescaped(point: bytes) -> bytes:
    """The kernel writes a space in a path as `\\040`."""
    return re.sub(rb"\\([0-3][0-7]{2})", lambda match: bytes([int(match[1], 8)]), point)
