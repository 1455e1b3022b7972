"""The redo journal of one prefix: roll an interrupted change forward, or throw it away.

In `<prefix>/.artcache/`: `<owner>.json` (records), `lock`, `stage-<id>/` (new
files, named by number), `journal` (no recipe's record can have that name). Once
the journal is there the change happens, whatever is killed, and as often as it
takes: each step is a rename or a removal that is skipped when already done.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import Corrupt
from .durable import read_json, sync_disk, write_json, write_new_json
from .plan import STATE, Entry, Record, Seen, is_safe

_JOURNAL = "journal"
_LOCK = "lock"
_RECORD = "record"
_STAGE = "stage-"
_NEW = ".new"


@dataclass(frozen=True, slots=True)
class Change:
    """All that is to happen in a prefix, in the order of the fields."""

    owner: str
    stage: str
    """Name of the folder in the state folder that holds the new files."""
    remove: Sequence[tuple[str, str]]
    """Path and `Seen.stamp`: only if it is still that."""
    rmdir: Sequence[str]
    mkdir: Sequence[str]
    place: Sequence[tuple[str, str]]
    """The n-th is the file `n` of the stage: path, and the stamp of what it replaces."""
    has_record: bool
    """The stage also holds the owner's new record; otherwise the old one is taken away."""


def state_folder(prefix: Path) -> Path:
    return prefix / STATE


def lock_path(prefix: Path) -> Path:
    return prefix / STATE / _LOCK


def stage_name(change_id: str) -> str:
    return _STAGE + change_id


# -- records ------------------------------------------------------------------------------


def read_records(prefix: Path) -> dict[str, Record]:
    """By owner. Empty where artcache put nothing.

    Raises:
        Corrupt, NewerFormat: as `read_json`.
        OSError: the folder is there and cannot be read.
    """
    try:
        names = os.listdir(state_folder(prefix))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    records = {}
    for owner in sorted(name.removesuffix(".json") for name in names if name.endswith(".json")):
        with contextlib.suppress(FileNotFoundError):  # uninstalled just now: we need no lock
            records[owner] = _read_record(prefix, owner)
    return records


def _read_record(prefix: Path, owner: str) -> Record:
    path = state_folder(prefix) / f"{owner}.json"
    hint = f"delete {path}: what {owner} put there then counts as not artcache's"
    try:
        return _record_from(read_json(path, hint))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{path} is damaged: {error!r}", hint=hint) from error


def _record_from(content: Mapping[str, Any]) -> Record:
    entries = {path: Entry(**fields) for path, fields in content["entries"].items()}
    folders = [str(folder) for folder in content["folders"]]
    if not all(is_safe(path) for path in (*entries, *folders) if path != "."):
        raise ValueError("a path leaves the folder")
    return Record(str(content["owner"]), str(content["key"]), entries, tuple(folders))


def stage_record(stage: Path, record: Record) -> None:
    """With the new files, so that a full disk is met before anything has changed."""
    entries = {path: entry._asdict() for path, entry in sorted(record.entries.items())}
    content = {"owner": record.owner, "key": record.key, "folders": list(record.folders)}
    with (stage / _RECORD).open("wb", buffering=0) as file:
        write_new_json(file.fileno(), {**content, "entries": entries}, sync=False)


# -- the journal --------------------------------------------------------------------------


def has_journal(prefix: Path) -> bool:
    return (state_folder(prefix) / _JOURNAL).exists()


def commit(prefix: Path, change: Change) -> list[str]:
    """Write the journal and carry it out. The new files are staged already.

    Returns:
        Paths where the user changed something in the meantime; theirs was kept.

    Raises:
        OSError: before the journal was written, nothing has happened; later it
            stays, and the next `settle` goes on.
    """
    sync_disk(prefix)  # or a power cut leaves renamed files without their bytes
    write_json(
        state_folder(prefix) / _JOURNAL,
        {
            "owner": change.owner,
            "stage": change.stage,
            "remove": change.remove,
            "rmdir": change.rmdir,
            "mkdir": change.mkdir,
            "place": change.place,
            "has_record": change.has_record,
        },
    )
    return _roll_forward(prefix, change)


def settle(prefix: Path) -> tuple[str, str]:
    """Finish the change that was journaled, or throw away one that was not.

    The caller holds the prefix's lock.

    Returns:
        What was done, `finished` or `undid` (or empty), and whose change it was (or empty).

    Raises:
        Corrupt, NewerFormat: the journal cannot be read.
        OSError: the disk said no; nothing is lost, try again.
    """
    state = state_folder(prefix)
    done = owner = ""
    if has_journal(prefix):
        change = _read_journal(prefix)
        _roll_forward(prefix, change)
        done, owner = "finished", change.owner
    for name in os.listdir(state):
        if name.startswith(_STAGE):
            _drop_stage(state / name)
            done = done or "undid"
        elif name.endswith(_NEW):
            (state / name).unlink(missing_ok=True)
    return done, owner


def _read_journal(prefix: Path) -> Change:
    path = state_folder(prefix) / _JOURNAL
    hint = f"delete {path} to give that change up, then install again"
    content = read_json(path, hint)
    try:
        change = Change(
            str(content["owner"]),
            str(content["stage"]),
            [(str(item), str(stamp)) for item, stamp in content["remove"]],
            [str(item) for item in content["rmdir"]],
            [str(item) for item in content["mkdir"]],
            [(str(item), str(stamp)) for item, stamp in content["place"]],
            bool(content["has_record"]),
        )
        names = [change.owner, change.stage]
        paths = [*change.rmdir, *change.mkdir, *(path for path, _ in change.remove)]
        paths += [item for item, _ in change.place]
        if any("/" in name for name in names) or not all(map(is_safe, paths)):
            raise ValueError("a path leaves the folder")  # a shared folder: trust nothing in it
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Corrupt(f"{path} is damaged: {error!r}", hint=hint) from error
    return change


def _roll_forward(prefix: Path, change: Change) -> list[str]:
    state = state_folder(prefix)
    for path, stamp in change.remove:
        if stamp_of(prefix / path) == stamp:
            (prefix / path).unlink()
    remove_empty(prefix / path for path in change.rmdir)
    for path in change.mkdir:
        with contextlib.suppress(FileExistsError, NotADirectoryError):
            (prefix / path).mkdir(parents=True)
    kept = [
        path
        for number, (path, stamp) in enumerate(change.place)
        if not _place(state / change.stage / str(number), prefix / path, stamp)
    ]
    record = state / f"{change.owner}.json"
    if not change.has_record:
        record.unlink(missing_ok=True)
    else:
        with contextlib.suppress(FileNotFoundError):  # done before an interruption
            (state / change.stage / _RECORD).replace(record)
    sync_disk(prefix)  # or the journal may be gone from the disk before the renames are on it
    (state / _JOURNAL).unlink()  # should a power cut bring it back, all its steps are done
    _drop_stage(state / change.stage)
    return kept


def _place(staged: Path, final: Path, stamp: str) -> bool:
    """Move one new file to its place. False if somebody changed what is there."""
    if stamp_of(final) not in (stamp, "absent"):
        return not os.path.lexists(staged)  # gone: it was placed before an interruption
    try:
        staged.rename(final)
    except FileNotFoundError:
        if os.path.lexists(staged):
            return _place_in_new_folder(staged, final)
    except NotADirectoryError:  # a file where the folder was
        return False
    return True


def _place_in_new_folder(staged: Path, final: Path) -> bool:
    """Somebody removed the folder in the meantime."""
    try:
        final.parent.mkdir(parents=True)
        staged.rename(final)
    except (FileExistsError, NotADirectoryError):
        return False
    return True


def stamp_of(path: Path) -> str:
    """`Seen.stamp` of what is there now."""
    try:
        there = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return Seen().stamp
    if stat.S_ISREG(there.st_mode):
        return Seen("file", there.st_size, there.st_mtime_ns).stamp
    if stat.S_ISLNK(there.st_mode):
        return Seen("link", target=os.readlink(path)).stamp
    return Seen("folder" if stat.S_ISDIR(there.st_mode) else "other").stamp


# -- tidying up ---------------------------------------------------------------------------


def _drop_stage(stage: Path) -> None:
    """A stage is flat: it holds files and symlinks only."""
    with contextlib.suppress(FileNotFoundError):
        for name in os.listdir(stage):
            (stage / name).unlink(missing_ok=True)
        stage.rmdir()


def drop_state_if_unused(prefix: Path) -> bool:
    """Remove the state folder when no owner is left in it. The caller holds the lock,
    and whoever waits for it notices that the file has gone."""
    state = state_folder(prefix)
    if set(os.listdir(state)) - {_LOCK}:
        return False
    (state / _LOCK).unlink(missing_ok=True)
    remove_empty([state])
    return True


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove those that are empty; the others are somebody's."""
    for folder in folders:
        with contextlib.suppress(OSError):
            folder.rmdir()
