"""Writing a file that must be whole. For `posix`."""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import BinaryIO

from ..store import Content


def write_new(path: Path, content: Content) -> None:
    """Create a file, which must not exist, and flush it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(path, flags, 0o644), "wb") as out:
        if isinstance(content, bytes):
            out.write(content)
        else:
            with content.open("rb") as source:
                _copy(source, out)
        out.flush()
        try:
            os.fsync(out.fileno())
        except OSError as error:  # some mounts have no fsync; they are read back instead
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                raise


def _copy(source: BinaryIO, out: BinaryIO) -> None:
    """In the kernel where it can, which on some file systems shares the blocks."""
    with contextlib.suppress(OSError):
        while os.copy_file_range(source.fileno(), out.fileno(), 1 << 30):
            pass
    source.seek(out.seek(0, os.SEEK_END))
    while chunk := source.read(1 << 20):
        out.write(chunk)
