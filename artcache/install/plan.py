"""What an install or an uninstall would do, decided from snapshots. No disk is touched here.

All paths are relative to the prefix, `/`-separated; `.` is the prefix itself.
"""

from __future__ import annotations

import posixpath
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from ..errors import Corrupt
from ..manifest import File, Link

STATE = ".artcache"
"""The folder in every prefix that holds the owners' records, the lock and the journal."""


@dataclass(frozen=True, slots=True)
class Tree:
    """A verified tree in the local home."""

    root: Path
    files: Sequence[File]
    links: Sequence[Link] = ()
    dirs: Sequence[str] = ()
    """The folders that hold nothing."""


class Entry(NamedTuple):
    """One file or link in an owner's record, as it was when it was put there."""

    size: int = 0
    mtime_ns: int = 0
    xxh3: str = ""
    """Empty for a link."""
    mode: int = 0
    target: str = ""
    """The link's. A file with a target stands in for a link that its disk cannot hold."""


@dataclass(frozen=True, slots=True)
class Record:
    """What one recipe owns in a prefix."""

    owner: str
    key: str
    entries: Mapping[str, Entry]
    folders: Sequence[str]
    """Made by us (`.`: the prefix too): to be removed when they are empty."""


class Want(NamedTuple):
    """One file or link of the tree, at the place where it is to stand."""

    source: str
    """Path in the tree of the bytes: for a link, of the file it leads to (or empty)."""
    size: int
    xxh3: str
    mode: int
    target: str = ""


class Seen(NamedTuple):
    """What is at one path now. Symlinks are not followed."""

    kind: Literal["absent", "file", "link", "folder", "other"] = "absent"
    size: int = 0
    mtime_ns: int = 0
    xxh3: str = ""
    """Empty for a file whose size already tells that it is none of those expected."""
    target: str = ""
    below: tuple[str, ...] = ()
    """For a folder where a file should be: all that is in it, at any depth."""

    @property
    def stamp(self) -> str:
        """Enough to notice later, without reading the file, that somebody changed it."""
        if self.kind == "file":
            return f"file {self.size} {self.mtime_ns}"
        return f"link {self.target}" if self.kind == "link" else self.kind


@dataclass(slots=True)
class Plan:
    place: dict[str, Want] = field(default_factory=dict)
    remove: list[str] = field(default_factory=list)
    mkdir: list[str] = field(default_factory=list)
    """Parents first."""
    rmdir: list[str] = field(default_factory=list)
    """Children first; each only if it is empty by then."""
    entries: dict[str, Entry] = field(default_factory=dict)
    """Ours already, and to stay in the record."""
    folders: tuple[str, ...] = ()
    kept: list[str] = field(default_factory=list)
    """Ours, but changed by the user: left alone."""
    conflicts: list[str] = field(default_factory=list)
    """Why it must not be done, a line for each path. Not empty: nothing else counts."""
    can_overwrite: bool = True
    """Whether `overwrite` would help against all conflicts."""

    @property
    def changes_nothing(self) -> bool:
        return not (self.place or self.remove or self.mkdir or self.rmdir)


def parents(path: str) -> Iterator[str]:
    """The folders above, nearest first, without the prefix itself."""
    while path := posixpath.dirname(path):
        yield path


def is_safe(path: str) -> bool:
    """True for a relative path in its shortest form that stays below the prefix, outside of
    our own folder there."""
    return bool(
        path
        and "\0" not in path
        and path == posixpath.normpath(path)
        and not path.startswith(("/", "../"))
        and path not in (".", "..")
        and path.split("/", 1)[0] != STATE
    )


def wanted(tree: Tree) -> dict[str, Want]:
    """The tree's files and links by path.

    Raises:
        Corrupt: a path or a link leaves the tree, or two entries claim one path.
    """
    leaves = [*(file.path for file in tree.files), *(link.path for link in tree.links)]
    for path in (*leaves, *tree.dirs):
        if not is_safe(path):
            raise _bad_tree(tree, f"unsafe path {path!r}")
    wants = {item.path: Want(item.path, item.size, item.xxh3, item.mode) for item in tree.files}
    for link in tree.links:
        wants[link.path] = Want("", 0, "", 0o644, link.target)
    folders = {parent for path in (*wants, *tree.dirs) for parent in parents(path)}
    twice = next(iter(wants.keys() & {*folders, *tree.dirs}), "")
    if twice or len(wants) != len(leaves):
        raise _bad_tree(tree, f"two entries claim {twice or 'one path'}")
    for link in tree.links:
        inside = posixpath.normpath(posixpath.join(posixpath.dirname(link.path), link.target))
        if not link.target or link.target.startswith("/") or inside.split("/", 1)[0] == "..":
            raise _bad_tree(tree, f"the link {link.path} -> {link.target} leaves the tree")
        if file := _behind(inside, wants):
            wants[link.path] = file._replace(target=link.target)
    return wants


def _bad_tree(tree: Tree, why: str) -> Corrupt:
    return Corrupt(f"the tree {tree.root} cannot be installed: {why}", hint="run `artcache verify`")


def _behind(path: str, wants: Mapping[str, Want]) -> Want | None:
    """The file that a chain of links ends at, if it ends at one."""
    for _ in range(40):
        want = wants.get(path)
        if want is None or not want.target or want.source:
            return want
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), want.target))
    return None


def unmodified(entry: Entry, seen: Seen) -> bool:
    if entry.xxh3:
        return seen.kind == "file" and seen.xxh3 == entry.xxh3
    return seen.kind == "link" and seen.target == entry.target


def make_plan(
    wants: Mapping[str, Want],
    empty: Collection[str],
    *,
    ours: Record,
    others: Sequence[Record],
    seen: Mapping[str, Seen],
    missing: Collection[str],
    overwrite: bool = False,
) -> Plan:
    """Compare what is wanted, what is recorded and what is there.

    Args:
        wants: Empty for an uninstall.
        empty: Folders wanted beyond those that `wants` need.
        ours: What the same recipe put here before (without entries the first time).
        seen: For each path in `wants`, `empty` and `ours`; absent if not named.
        missing: Folders to be made (and `.` if the prefix is new).
        overwrite: Replace also what others put there or the user changed.
    """
    plan = Plan()
    _plan_folders(plan, wants, empty, ours, others, missing)
    for path in sorted(ours.entries.keys() - wants.keys()):
        _plan_stale(plan, path, ours.entries[path], others, seen.get(path, Seen()))
    leaving = {*plan.remove, *plan.rmdir}
    for path in sorted(_folders_of(wants, empty)):
        now = seen.get(path, Seen()).kind
        if path in wants or (now not in ("absent", "folder") and path not in leaving):
            plan.conflicts.append(f"{path} is a {now}, but a folder has to be there")
            plan.can_overwrite = False
    for path, want in sorted(wants.items()):
        now_seen = seen.get(path, Seen())
        vacated = now_seen.kind == "folder" and {path, *now_seen.below} <= leaving
        _plan_wanted(plan, path, want, ours, others, Seen() if vacated else now_seen, overwrite)
    return plan


def _plan_folders(
    plan: Plan,
    wants: Mapping[str, Want],
    empty: Collection[str],
    ours: Record,
    others: Sequence[Record],
    missing: Collection[str],
) -> None:
    needed = _folders_of(wants, empty)
    if needed or wants:
        needed.add(".")
    theirs = {folder for record in others for folder in record.folders}
    plan.mkdir = sorted(needed.intersection(missing) - {"."})
    # What another recipe made and we need is ours too: the last one to go removes it.
    plan.folders = tuple(sorted(needed & {*missing, *ours.folders, *theirs}))
    plan.rmdir = sorted(set(ours.folders) - needed - theirs, reverse=True)


def _folders_of(wants: Collection[str], empty: Collection[str]) -> set[str]:
    return {*empty, *(above for path in (*wants, *empty) for above in parents(path))}


def _plan_stale(plan: Plan, path: str, entry: Entry, others: Sequence[Record], seen: Seen) -> None:
    if seen.kind in ("absent", "folder") or _sharers(path, others, seen):
        return  # ours is gone, or another recipe put its own there
    if unmodified(entry, seen):
        plan.remove.append(path)
    else:
        plan.kept.append(path)


def _plan_wanted(
    plan: Plan,
    path: str,
    want: Want,
    ours: Record,
    others: Sequence[Record],
    seen: Seen,
    overwrite: bool,
) -> None:
    entry = ours.entries.get(path)
    sharers = _sharers(path, others, seen)
    if seen.kind == "absent":
        plan.place[path] = want
    elif _identical(want, seen, entry):
        if entry and seen.kind == "file" and entry.mode != want.mode and not sharers:
            plan.place[path] = want
        elif entry or sharers:
            plan.entries[path] = _entry(want, seen)
        # else it is somebody else's: left in place, and not ours to remove one day
    elif entry and not unmodified(entry, seen) and not (overwrite and seen.kind in _REPLACEABLE):
        plan.kept.append(path)
        plan.entries[path] = entry
    elif seen.kind not in _REPLACEABLE:
        plan.conflicts.append(
            f"{path} is a folder" if seen.kind == "folder" else f"{path} is no file"
        )
        plan.can_overwrite = False
    elif overwrite or (entry and not sharers):
        plan.place[path] = want
    else:
        owner = next((record.owner for record in others if path in record.entries), "")
        plan.conflicts.append(
            f"{path} belongs to the recipe {owner}" if owner else f"{path} is not artcache's"
        )


_REPLACEABLE = ("file", "link")


def _sharers(path: str, others: Sequence[Record], seen: Seen) -> list[str]:
    """The other recipes that put the very same thing there and need it to stay."""
    return [
        record.owner
        for record in others
        if path in record.entries and unmodified(record.entries[path], seen)
    ]


def _identical(want: Want, seen: Seen, entry: Entry | None) -> bool:
    if not want.target:
        return seen.kind == "file" and seen.xxh3 == want.xxh3 != ""
    if seen.kind == "link":
        return seen.target == want.target
    stands_in = entry is not None and entry.target == want.target and entry.xxh3 != ""
    return seen.kind == "file" and stands_in and seen.xxh3 == want.xxh3 != ""


def _entry(want: Want, seen: Seen) -> Entry:
    if seen.kind == "link":
        return Entry(target=want.target)
    return Entry(seen.size, seen.mtime_ns, want.xxh3, want.mode, want.target)
