"""A tree into a prefix and out of it: whole or not at all, and nobody else's file touched.

`recover` is called at the start of every command. Besides the prefix this room
writes to one place, the home's folder of pending records.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..errors import Corrupt, Refused, UsageError
from .durable import disk_trouble, local_disk, uninterrupted
from .journal import Change, commit, has_journal, read_records, stage_name, state_folder
from .plan import Plan, Record, Seen, Tree, Want, make_plan, wanted
from .site import Site, held, recover
from .staging import rehearse, stage, stage_only_record
from .survey import Facts, Survey

__all__ = [
    "Installed",
    "Record",
    "Tree",
    "Uninstalled",
    "install",
    "installed",
    "recover",
    "uninstall",
]

_SHOWN = 5
"""Conflicts that a message names."""


@dataclass(frozen=True, slots=True)
class Installed:
    files: int
    """Files and links of the tree that are in the prefix now, also those there before."""
    kept: tuple[str, ...]
    """Paths that the user had changed: theirs is still there, ours is not."""
    how: Mapping[str, int]
    """`linked`, `reflinked`, `copied`, `symlinked`, `removed`, `unchanged`: how many each."""


@dataclass(frozen=True, slots=True)
class Uninstalled:
    removed: int
    """Files and links."""
    kept: tuple[str, ...]
    """Paths that the user had changed: now theirs."""


def install(
    tree: Tree,
    prefix: Path,
    *,
    owner: str,
    key: str,
    pending: Path,
    note: Callable[[str], None] = lambda line: None,
    overwrite: bool = False,
) -> Installed:
    """Make `tree` appear in `prefix`, in place of the same owner's older version.

    Args:
        prefix: A folder, made if need be. Other things may be in it.
        owner: The recipe's name.
        key: The tree's; goes into the owner's record.
        pending: The home's folder of pending records; the home is its parent.
        note: Called with a line for the user (a disk without permission bits).
        overwrite: Replace also files that others put there or the user changed.

    Raises:
        Refused: a file there is somebody else's, or the folder is not one to install
            into. Nothing was changed.
        Busy: another process is at work there.
        LocalDisk: full, read-only or not ours. Nothing was changed, unless the disk
            failed during the last renames; then the next command goes on.
        Corrupt: the tree or a record is damaged. NewerFormat: a record is newer.
    """
    real = _checked_prefix(prefix, pending)
    _check_owner(owner)
    wants = wanted(tree)
    if not tree.root.is_dir():
        raise Corrupt(f"the cached tree {tree.root} is gone", hint="run the fetch again")
    with held(real, pending) as site:
        facts, plan = _decide(site, owner, key, wants, tree.dirs, overwrite)
        if plan.conflicts:
            raise _refusal(real, plan)
        entries, counts = dict(plan.entries), {"unchanged": len(wants) - len(plan.place)}
        if not plan.changes_nothing:
            site.announce()
            rehearse(site, plan)
            staged, how = stage(site, tree.root, plan, note)
            entries |= staged
            counts |= how
        record = Record(owner, key, entries, plan.folders)
        kept = [*plan.kept, *_commit(site, facts, plan, record)]
        counts["removed"] = len(plan.remove)
    return Installed(
        files=len(wants) - len(set(kept) & facts.wants.keys()),
        kept=tuple(sorted(kept)),
        how={name: count for name, count in counts.items() if count},
    )


def uninstall(prefix: Path, *, owner: str, pending: Path) -> Uninstalled:
    """Take out what `owner`'s record lists, but for what the user changed.

    Raises:
        UsageError: the prefix holds nothing of that owner.
        Busy, LocalDisk, Corrupt, NewerFormat: as `install`.
    """
    real = _checked_prefix(prefix, pending)
    _check_owner(owner)
    records = installed(real)
    if owner not in records:
        raise _nothing_of(owner, real, records)
    with held(real, pending, [real] if "." in records[owner].folders else []) as site:
        facts, plan = _decide(site, owner, "", {}, (), False)
        site.announce()
        rehearse(site, plan)
        kept = [*plan.kept, *_commit(site, facts, plan, None)]
    return Uninstalled(len(plan.remove), tuple(sorted(kept)))


def installed(prefix: Path) -> dict[str, Record]:
    """Who put what into a prefix, by owner. Empty for any other folder.

    Raises:
        Corrupt, NewerFormat: a record cannot be read.
        LocalDisk: the folder cannot be read.
    """
    with disk_trouble("read", prefix):
        return read_records(prefix)


def _decide(
    site: Site,
    owner: str,
    key: str,
    wants: Mapping[str, Want],
    empty: Sequence[str],
    overwrite: bool,
) -> tuple[Facts, Plan]:
    records = read_records(site.prefix)
    ours = records.pop(owner, Record(owner, key, {}, ()))
    facts = Survey(site.prefix, ours, list(records.values())).facts(
        wants, empty, new_prefix=site.prefix in site.made
    )
    plan = make_plan(
        facts.wants,
        facts.empty,
        ours=facts.ours,
        others=facts.others,
        seen=facts.seen,
        missing=facts.missing,
        overwrite=overwrite,
    )
    return facts, plan


def _commit(site: Site, facts: Facts, plan: Plan, record: Record | None) -> list[str]:
    """From here on it happens, whatever is killed."""
    if plan.changes_nothing and record == facts.ours:
        return []
    site.announce()
    stage_only_record(site, record)
    change = Change(
        owner=facts.ours.owner,
        stage=stage_name(site.change_id),
        remove=[(path, facts.seen[path].stamp) for path in plan.remove],
        rmdir=[folder for folder in plan.rmdir if folder != "."],
        mkdir=plan.mkdir,
        place=[(path, _replaced(facts.seen[path])) for path in plan.place],
        has_record=record is not None,
    )
    try:
        with uninterrupted():
            return commit(site.prefix, change)
    except OSError as error:
        if not has_journal(site.prefix):
            raise
        hint = "the next artcache command goes on with it"
        raise local_disk(error, "finish the change of", site.prefix, hint) from error


def _replaced(seen: Seen) -> str:
    """The stamp of what a new file replaces; a folder there is taken away before."""
    return Seen().stamp if seen.kind == "folder" else seen.stamp


# -- refusals -----------------------------------------------------------------------------


def _checked_prefix(prefix: Path, pending: Path) -> Path:
    """The real path, if it is one to install into."""
    real = Path(os.path.realpath(prefix))
    home = Path(os.path.realpath(pending.parent))
    home = home.parent if home.name == "v1" else home  # the folder of the home's format
    if real == Path(real.root):
        raise Refused(
            f"{prefix} is the whole machine", hint="choose a folder, such as /opt/darknet"
        )
    if home in (real, *real.parents):
        raise Refused(
            f"{prefix} is artcache's own home, which holds the cached trees",
            hint="choose a folder of your own",
        )
    with disk_trouble("use", prefix):
        nearest = next(folder for folder in (real, *real.parents) if os.path.lexists(folder))
        if not nearest.is_dir():
            raise Refused(f"{nearest} is a file, not a folder", hint="choose another folder")
        state = state_folder(real)
        if os.path.lexists(state) and (state.is_symlink() or not state.is_dir()):
            raise Refused(f"{state} is not the folder that artcache makes", hint="move it away")
    return real


def _check_owner(owner: str) -> None:
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", owner):
        raise UsageError(f"{owner!r} is no recipe name")


def _refusal(prefix: Path, plan: Plan) -> Refused:
    shown = "".join(f"\n  - {line}" for line in plan.conflicts[:_SHOWN])
    more = len(plan.conflicts) - _SHOWN
    return Refused(
        f"installing into {prefix} would overwrite what is there; nothing was changed:{shown}"
        + (f"\n  - and {more} more" if more > 0 else ""),
        hint="choose another folder" + (", or add --overwrite" if plan.can_overwrite else ""),
    )


def _nothing_of(owner: str, prefix: Path, owners: Iterable[str]) -> UsageError:
    there = ", ".join(sorted(owners))
    return UsageError(
        f"{prefix} holds nothing that the recipe {owner} installed",
        hint=f"recipes that did: {there}" if there else "is it the folder given to `--to`?",
    )
