"""One prefix, held: announced in the home, locked, settled first and tidied last.

A pending record is a file in the home that points to the prefix. It is written
before anything there changes, and its writer holds a lock on it: one without a
lock was left by a killed process.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..errors import Busy, Corrupt, LocalDisk, NewerFormat
from .durable import (
    disk_trouble,
    is_still,
    make_folder,
    read_json,
    sync_folder,
    take_lock,
    try_lock,
    write_new_json,
)
from .journal import (
    drop_state_if_unused,
    has_journal,
    lock_path,
    remove_empty,
    settle,
    state_folder,
)

LOCK_WAIT = 10.0
"""Seconds that a second artcache waits for the first one in the same prefix."""

_ATTEMPTS = 100
"""At making folders that somebody else keeps removing (or that cannot be, as in /proc)."""


class Site:
    """A prefix whose lock is held. Made by `held`."""

    def __init__(self, prefix: Path, pending: Path, removable: Sequence[Path]) -> None:
        self.prefix = prefix
        self.made = list(removable)
        """Folders to be removed when they end up empty: the prefix and its parents, if new."""
        self.change_id = os.urandom(8).hex()
        self._pending = pending
        self._pointer: int | None = None

    def announce(self) -> None:
        """Let later commands find this prefix if we are killed. Once is enough."""
        while self._pointer is None:
            make_folder(self._pending, parents=True)
            try:
                made = os.open(self._pointer_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            except FileNotFoundError:  # another command found the folder empty and removed it
                continue
            if not try_lock(made) or not is_still(made, self._pointer_path):
                os.close(made)  # another command took it for a dead one's
                continue
            self._pointer = made
            content = {"prefix": str(self.prefix), "made": [str(folder) for folder in self.made]}
            write_new_json(made, content)
            sync_folder(self._pending)

    def make(self) -> None:
        """Make the prefix and its state folder, announced before.

        Raises:
            FileNotFoundError: somebody else removed what was there a moment ago.
        """
        missing = missing_folders(self.prefix)
        if not set(missing) <= set(self.made):
            self._retract()  # it does not name these
            self.made = sorted({*self.made, *missing}, reverse=True)
        if not lock_path(self.prefix).exists():
            self.announce()
        for folder in (*reversed(missing), state_folder(self.prefix)):
            make_folder(folder)

    def tidy(self) -> None:
        """Leave no trace but what is recorded. With a journal there: leave all to `recover`."""
        if has_journal(self.prefix):
            return
        settle(self.prefix)
        drop_state_if_unused(self.prefix)
        self.withdraw()

    def withdraw(self) -> None:
        remove_empty(self.made)
        self._retract()

    def _retract(self) -> None:
        if self._pointer is not None:
            self._pointer_path.unlink(missing_ok=True)
            remove_empty([self._pending])
        self.close()

    def close(self) -> None:
        pointer, self._pointer = self._pointer, None  # first: Ctrl-C may come in between
        if pointer is not None:
            os.close(pointer)

    @property
    def _pointer_path(self) -> Path:
        return self._pending / f"{self.change_id}.json"


@contextlib.contextmanager
def held(prefix: Path, pending: Path, removable: Sequence[Path] = ()) -> Iterator[Site]:
    """Hold a prefix, made if need be, in which nothing interrupted is left.

    Args:
        prefix: A real path.
        pending: The home's folder of pending records.
        removable: Folders that may go if they end up empty.

    Raises:
        Busy: another process is at work there.
        LocalDisk: it cannot be written to.
        Corrupt, NewerFormat: an interrupted change there cannot be read.
    """
    site = Site(prefix, pending, removable)
    try:
        with disk_trouble("write to", prefix):
            lock = _lock(site)
            try:
                settle(prefix)
                yield site
            finally:
                try:
                    site.tidy()
                finally:
                    os.close(lock)
    finally:
        site.close()


def _lock(site: Site) -> int:
    try:
        for left in reversed(range(_ATTEMPTS)):
            try:
                site.make()
                lock = take_lock(lock_path(site.prefix), wait=LOCK_WAIT)
                break
            except FileNotFoundError:  # its last user just removed the folder: once more
                if not left:
                    raise
        if lock is None:
            raise Busy(
                f"another artcache is at work in {site.prefix}", hint="try again when it is done"
            )
    except Exception:
        with contextlib.suppress(OSError):
            remove_empty([state_folder(site.prefix)])
            if not state_folder(site.prefix).exists():  # else `recover` looks after it
                site.withdraw()
        raise
    return lock


def missing_folders(prefix: Path) -> list[Path]:
    """The prefix and its parents, as far as they do not exist: nearest first."""
    missing = []
    for folder in (prefix, *prefix.parents):
        if folder.exists():
            break
        missing.append(folder)
    return missing


# -- what killed processes left -----------------------------------------------------------


def recover(pending: Path) -> list[str]:
    """Finish or undo every interrupted install and uninstall. Never raises.

    With none, this costs one failed look into a folder.

    Returns:
        A line for the user about each.
    """
    try:
        names = os.listdir(pending)
    except FileNotFoundError:
        return []
    except OSError as error:
        return [f"cannot look for interrupted installs in {pending}: {error.strerror}"]
    lines = [_recover_one(pending / name) for name in sorted(names)]
    remove_empty([pending])
    return [line for line in lines if line]


def _recover_one(pointer: Path) -> str:
    try:
        opened = os.open(pointer, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return ""
    try:
        if not try_lock(opened) or not is_still(opened, pointer):
            return ""  # its writer is alive
        try:
            content = read_json(pointer, "")
            prefix, made = Path(content["prefix"]), [Path(folder) for folder in content["made"]]
        except (Corrupt, KeyError, TypeError):
            pointer.unlink()  # killed while it was written: nothing had been changed yet
            return ""
        return _recover_prefix(prefix, made, pointer)
    except (LocalDisk, Corrupt, NewerFormat) as error:
        return f"{error}" + (f" ({error.hint})" if error.hint else "")
    except OSError as error:
        return f"cannot read {pointer}: {error.strerror}"
    finally:
        os.close(opened)


def _recover_prefix(prefix: Path, made: Sequence[Path], pointer: Path) -> str:
    line = ""
    doing = "finish or undo what was interrupted in"
    with disk_trouble(doing, prefix, hint="the next command tries again"):
        if state_folder(prefix).is_dir():
            lock = take_lock(lock_path(prefix), wait=0)
            if lock is None:
                return ""  # somebody is at work there, and settles it first
            try:
                done, owner = settle(prefix)
                drop_state_if_unused(prefix)
            finally:
                os.close(lock)
            if done:
                line = f"{done} an interrupted change in {prefix}" + (
                    f" by the recipe {owner}" if owner else ""
                )
        remove_empty(made)
        pointer.unlink()
    return line
