"""Small durable things: JSON files that are whole or not there, locks, `syncfs`, disk errors."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import signal
import stat
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import Corrupt, LocalDisk, NewerFormat
from .materialise import write_all

FORMAT = 1
"""Of records, journals and pending records. Raise it when an older artcache would misread."""

_POLL = 0.05  # seconds
_NO_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL}
_NO_SYNC = {errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EBADF, errno.EROFS}


@contextlib.contextmanager
def disk_trouble(doing: str, where: Path, hint: str = "") -> Iterator[None]:
    """Turn an `OSError` into a `LocalDisk` that says what was being done and where."""
    try:
        yield
    except OSError as error:
        raise local_disk(error, doing, where, hint) from error


def local_disk(error: OSError, doing: str, where: Path, hint: str = "") -> LocalDisk:
    reasons = {
        errno.ENOSPC: ("the disk is full", "free some space, or choose a folder on another disk"),
        errno.EDQUOT: ("your quota is used up", "free some space, or choose another folder"),
        errno.EROFS: ("the disk is read-only", "choose another folder"),
        errno.EACCES: ("permission denied", "choose a folder of your own, or use sudo"),
        errno.EPERM: ("not permitted", "choose a folder of your own, or use sudo"),
    }
    reason, usual = reasons.get(error.errno or 0, (error.strerror or str(error), ""))
    return LocalDisk(f"cannot {doing} {where}: {reason}", hint=hint or usual)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace `path` by a temporary file; durable on return. Raises `OSError`."""
    temporary = path.with_name(path.name + ".new")
    made = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
    try:
        write_new_json(made, content)
    finally:
        os.close(made)
    temporary.replace(path)
    sync_folder(path.parent)


def write_new_json(made: int, content: Mapping[str, Any], *, sync: bool = True) -> None:
    """Into an open, empty file; its bytes are durable on return if `sync`. Raises `OSError`."""
    write_all(made, json.dumps({"format": FORMAT, **content}, indent=1).encode())
    if sync:
        os.fsync(made)


def read_json(path: Path, hint: str) -> dict[str, Any]:
    """What `write_json` wrote.

    Raises:
        FileNotFoundError: no such file.
        NewerFormat: written by a newer artcache.
        Corrupt: not JSON, or not ours. `hint` says what to do then.
    """
    raw = path.read_bytes()
    try:
        content = json.loads(raw)
        number = content["format"]
        if type(number) is not int or number < 1:
            raise ValueError("no format number")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Corrupt(f"{path} is damaged: {error}", hint=hint) from error
    if number > FORMAT:
        raise NewerFormat(
            f"{path} has format {number}; this artcache reads up to {FORMAT}",
            hint="upgrade artcache: pip install -U artcache",
        )
    return dict(content)


def make_folder(folder: Path, *, parents: bool = False) -> None:
    """Unless it is there. Raises `OSError`.

    While somebody else removes it, pathlib's own `exist_ok` may say that it exists.
    """
    while True:
        try:
            folder.mkdir(parents=parents, exist_ok=True)
            return
        except FileExistsError:
            with contextlib.suppress(FileNotFoundError):
                if not stat.S_ISDIR(folder.lstat().st_mode):
                    raise


def sync_folder(folder: Path) -> None:
    """Make names in a folder durable, where the disk knows what that means."""
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in _NO_SYNC:
            raise
    finally:
        os.close(opened)


def sync_disk(folder: Path) -> None:
    """Make everything on the folder's file system durable: one call for all files.

    Raises:
        OSError: bytes could not be written back.
    """
    try:
        import ctypes  # some milliseconds, and not needed when nothing changes

        syncfs = ctypes.CDLL(None, use_errno=True).syncfs
    except (ImportError, OSError, AttributeError):
        os.sync()
        return
    opened = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if syncfs(opened) != 0 and (number := ctypes.get_errno()) not in _NO_SYNC:
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(opened)


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Let Ctrl-C wait until the block is done. It lasts milliseconds: renames only."""
    waiting: list[int] = []
    try:
        previous = signal.signal(signal.SIGINT, lambda number, frame: waiting.append(number))
    except ValueError:  # not the main thread: Python delivers no signal here
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.SIG_DFL if previous is None else previous)
        if waiting:
            signal.raise_signal(signal.SIGINT)


def take_lock(path: Path, *, wait: float) -> int | None:
    """Hold an exclusive lock on `path` (made if need be) until the descriptor is closed.

    Args:
        wait: In seconds.

    Returns:
        The descriptor, or None: somebody else held it for longer than `wait`.

    Raises:
        OSError: the file cannot be made.
    """
    deadline = time.monotonic() + wait
    while True:
        opened = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        if try_lock(opened):
            if is_still(opened, path):
                return opened
            os.close(opened)  # its holder removed it while we waited: once more
            continue
        os.close(opened)
        if time.monotonic() >= deadline:
            return None
        time.sleep(_POLL)


def try_lock(opened: int) -> bool:
    """False if another holds it. True also on a disk that knows no locks."""
    try:
        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True


def is_still(opened: int, path: Path) -> bool:
    """Whether `path` is still the file that was opened."""
    try:
        now = path.lstat()
    except FileNotFoundError:
        return False
    then = os.fstat(opened)
    return (now.st_dev, now.st_ino) == (then.st_dev, then.st_ino)
