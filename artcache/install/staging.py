"""New files into a stage inside the prefix: disks fail here, before anything is to be seen."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path

from ..errors import LocalDisk, Refused
from .durable import local_disk
from .journal import stage_name, stage_record, state_folder
from .materialise import LINK_FROM, Materialiser
from .plan import Entry, Plan, Record, Want
from .site import Site

_BLOCK = 4096
"""Bytes that a small file or a folder takes on most disks."""


def rehearse(site: Site, plan: Plan) -> None:
    """Find out now which renames would fail later.

    Raises:
        Refused: a folder in the prefix is a disk of its own, where nothing can be renamed to.
        LocalDisk: a folder is read-only or not ours.
    """
    changed = {(site.prefix / path).parent for path in (*plan.place, *plan.remove, *plan.mkdir)}
    changed |= {(site.prefix / path).parent for path in plan.rmdir}
    nothing = state_folder(site.prefix) / f"nothing-{site.change_id}"
    for folder in sorted(changed):
        if not folder.is_dir():
            continue  # to be made
        try:
            # The kernel compares the two mounts before it looks for the file.
            nothing.rename(folder / nothing.name)
        except FileNotFoundError:
            pass
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise local_disk(error, "write to", folder) from error
            raise Refused(
                f"{folder} is another disk than {site.prefix}: they cannot change as one",
                hint=f"choose a folder that is on one disk, such as {folder} itself",
            ) from error
        if not os.access(folder, os.W_OK | os.X_OK, effective_ids=True):
            raise local_disk(PermissionError(errno.EACCES, ""), "write to", folder)


def stage(
    site: Site, root: Path, plan: Plan, note: Callable[[str], None]
) -> tuple[dict[str, Entry], dict[str, int]]:
    """Put every file of `plan.place` into the stage, as `0`, `1`, ...

    Args:
        root: Of the tree.

    Returns:
        The entries for the owner's record, and how many files were made in which way.

    Raises:
        LocalDisk: full, read-only or not ours. The message has both byte counts.
        Corrupt: a file of the tree is not what it was.
    """
    folder = state_folder(site.prefix) / stage_name(site.change_id)
    needed = _needed(site.prefix, root, plan)
    _check_space(site.prefix, needed)
    maker = Materialiser(note)
    entries: dict[str, Entry] = {}
    try:
        folder.mkdir(0o700)
        for number, (path, want) in enumerate(plan.place.items()):
            entries[path] = _stage_one(maker, root, want, folder / str(number))
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(site.prefix, needed) from error
        raise
    return entries, maker.counts


def stage_only_record(site: Site, record: Record | None) -> None:
    """Also for a change without new files."""
    folder = state_folder(site.prefix) / stage_name(site.change_id)
    folder.mkdir(0o700, exist_ok=True)
    if record is not None:
        stage_record(folder, record)


def _stage_one(maker: Materialiser, root: Path, want: Want, target: Path) -> Entry:
    source = root / want.source
    if want.target:
        stand_in = source if want.source else None
        maker.link(target, want.target, stand_in, size=want.size, mode=want.mode)
    else:
        maker.file(source, target, size=want.size, mode=want.mode)
    there = target.lstat()
    if want.target and target.is_symlink():
        return Entry(target=want.target)
    return Entry(want.size, there.st_mtime_ns, want.xxh3, want.mode, want.target)


def _needed(prefix: Path, root: Path, plan: Plan) -> int:
    """Bytes: all of the small files, and the large ones unless they can be links."""
    one_disk = root.stat().st_dev == prefix.stat().st_dev
    files = [want.size for want in plan.place.values() if not want.target]
    return sum(
        -(-size // _BLOCK) * _BLOCK for size in files if size < LINK_FROM or not one_disk
    ) + _BLOCK * (len(plan.mkdir) + 4)  # and the record, the journal and their folders


def _free(prefix: Path) -> int | None:
    """Bytes that we may fill, or None where the disk does not say."""
    disk = os.statvfs(prefix)
    if disk.f_blocks == 0:
        return None
    return disk.f_frsize * (disk.f_bfree if os.geteuid() == 0 else disk.f_bavail)


def _check_space(prefix: Path, needed: int) -> None:
    free = _free(prefix)
    if free is not None and needed > free:
        raise _full(prefix, needed)


def _full(prefix: Path, needed: int) -> LocalDisk:
    free = _free(prefix)
    said = "an unknown number" if free is None else f"{free:,}"
    return LocalDisk(
        f"the disk of {prefix} is full: {needed:,} bytes needed, {said} free. Nothing was changed",
        hint="free some space, or choose a folder on another disk",
    )
