"""What a mounted Google Drive needs beside a folder's care: to be there, and patience. For `posix`.

In Colab a Drive is mounted by the notebook's own process, with a click of the user.
"""

from __future__ import annotations

import errno
import os
import shlex
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..disk import mount_of
from ..errors import StoreUnavailable
from .faults import Limits

DRIVE = "/content/drive"
ASKED = "ARTCACHE_MOUNT_DRIVE"
"""`1`: mount Drive where a store lies on it and this process can."""
BROKEN = frozenset(
    {errno.EIO, errno.ENOTCONN, errno.ESTALE, errno.ECONNABORTED, errno.ETIMEDOUT, errno.ENODEV}
)
"""What a mount says whose other end has a problem, which may pass."""
PATIENCE = Limits(attempts=3, patience=10.0, first_wait=0.3)
_GOOD_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.mergerfs", "fuseblk"})
_TOPS = ("MyDrive", "My Drive", "Shareddrives", "Shared drives")
_MOUNT = f"from google.colab import drive; drive.mount({DRIVE!r})"
_AGAIN = (
    "in a notebook cell: from google.colab import drive; drive.flush_and_unmount();"
    f" drive.mount({DRIVE!r}, force_remount=True)"
)


def is_mount(folder: Path) -> bool:
    """Whether it is to be treated like a mounted Drive, also while none is mounted there."""
    return on_drive(folder) or is_fuse(folder)


def is_fuse(folder: Path) -> bool:
    """Whether the longest mount point above `folder` is a FUSE file system."""
    mount = mount_of(folder)
    return mount is not None and mount.kind.startswith("fuse") and mount.kind not in _GOOD_FUSE


def on_drive(folder: Path) -> bool:
    return f"{folder}/".startswith(f"{DRIVE}/")


def check_mounted(folder: Path) -> None:
    """A mount that dropped looks like an empty folder: don't call that a miss.

    Raises:
        StoreUnavailable: `folder` is on a Drive, which is not mounted.
    """
    if not on_drive(folder) or _mounted():
        return
    if _colab_drive():
        hint = f"in a cell: {_MOUNT}; or let artcache do it: %env {ASKED}=1"
    else:
        hint = f"in a notebook cell (a command cannot do it): {_MOUNT}"
    raise StoreUnavailable(f"{folder}: Google Drive is not mounted at {DRIVE}", hint=hint)


def mount_if_asked(folder: Path) -> None:
    """Mount the Drive that `folder` is on, if that is wished for and can be done here.

    Raises:
        StoreUnavailable: it was tried and failed, or the user said no.
    """
    if os.environ.get(ASKED, "0") in ("", "0") or not on_drive(folder) or _mounted():
        return
    drive = _colab_drive()
    if drive is None:
        return  # whoever uses the folder is told
    try:
        drive.mount(DRIVE)
    except Exception as error:  # whatever the notebook's library raises
        raise StoreUnavailable(
            f"{folder}: Google Drive could not be mounted: {error}", hint=f"in a cell: {_MOUNT}"
        ) from error


def remount(folder: Path) -> str:
    """What to do about a mount that is broken."""
    if on_drive(folder):
        return f"mount it again, {_AGAIN}"
    return f"mount it again; what is there now: findmnt -T {shlex.quote(str(folder))}"


def doubles(root: Path, path: Path) -> Iterator[Path]:
    """Where else below `root` a file or folder may lie that should be at `path`.

    Two machines that make one folder at once make two, and Drive shows the second as `name (1)`.
    """
    parts = path.relative_to(root).parts
    for at, part in enumerate(parts):
        if at < len(parts) - 1 or "." not in part:  # a file's own double has its own name
            other = root.joinpath(*parts[:at], f"{part} (1)", *parts[at + 1 :])
            if os.path.lexists(other):
                yield other


def flush(folder: Path) -> str:
    """What to do before this machine goes away."""
    if on_drive(folder):
        return "in a cell: from google.colab import drive; drive.flush_and_unmount()"
    return f"unmount it, and wait for that: {shlex.quote(str(folder))}"


def _mounted() -> bool:
    return any(os.path.isdir(f"{DRIVE}/{name}") for name in _TOPS)


def _colab_drive() -> Any:
    """`google.colab.drive` where it can mount: in the kernel's own main thread; else None."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    if getattr(shell, "kernel", None) is None:
        return None
    if threading.current_thread() is not threading.main_thread():
        return None
    try:
        from google.colab import drive
    except ImportError:
        return None
    return drive
