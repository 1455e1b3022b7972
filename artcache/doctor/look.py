"""Looks at this machine: reads, and small files that are gone at once. Judges nothing."""

from __future__ import annotations

import contextlib
import difflib
import errno
import fcntl
import os
import platform
import re
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from ..detect import host_report
from ..disk import free_bytes, mount_of
from ..errors import ArtcacheError, Corrupt, UsageError
from ..home import Home
from ..recipe import Recipe, Tool, find, installed
from .facts import HomeFacts, MachineFacts, Target, Wanted, Weight

_FICLONE = 0x40049409
_LITTER = ("tmp", "partial", "quarantine", "downloads")
_OVERRIDES = ("ARTCACHE_ARCH", "ARTCACHE_CUDA")


def machine(
    home: Home, *, to: Path | None = None, environ: Mapping[str, str] | None = None
) -> tuple[MachineFacts, tuple[ArtcacheError, ...]]:
    """What this machine is, and what could not be found out for a mistake of the user's.

    Args:
        to: A folder that is meant for `--to`.
    """
    environ = os.environ if environ is None else environ
    errors: list[ArtcacheError] = []
    try:
        report = host_report(environ=environ)
    except UsageError as error:  # an override that makes no sense
        errors.append(error)
        report = host_report(environ={n: v for n, v in environ.items() if n not in _OVERRIDES})
    recipes = list(_recipes(errors))
    facts = MachineFacts(
        report=report,
        home=_home(home),
        weight=_heaviest(recipes),
        tools=_tools(recipes),
        recipes=tuple(recipe.name for recipe in recipes),
        restricted={
            recipe.name: recipe.licence or "its licence"
            for recipe in recipes
            if not recipe.redistributable
        },
        python=platform.python_version(),
        packages=_packages(),
        umask=_umask(),
        now=time.time(),
        newest=os.stat(__file__).st_mtime,
        target=_target(home.root, to) if to else None,
    )
    return facts, tuple(errors)


def unknown_variables(environ: Mapping[str, str], known: Sequence[str]) -> dict[str, str]:
    """Variables of ours that nothing reads, each with the nearest that something does, or ''."""
    found = {}
    for name in sorted(environ):
        if name.upper().startswith(("ARTCACHE_", "ARTCACHES_", "ART_CACHE_")) and name not in known:
            near = difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.75)
            found[name] = near[0] if near else ""
    return found


def _recipes(errors: list[ArtcacheError]) -> Iterator[Recipe]:
    for name in installed():
        try:
            yield find(name)
        except ArtcacheError as error:
            errors.append(error)


def _heaviest(recipes: Iterable[Recipe]) -> Weight | None:
    """By its pack, or else by its tree."""
    known = [Weight(one.name, one.pack_bytes, one.tree_bytes) for one in recipes]
    heaviest = max(known, key=lambda weight: weight[1:], default=None)
    return heaviest if heaviest and heaviest.tree else None


def _tools(recipes: Iterable[Recipe]) -> tuple[Wanted, ...]:
    wanted: dict[Tool, list[str]] = {}
    for recipe in recipes:
        for tool in recipe.requires:
            wanted.setdefault(tool, []).append(recipe.name)
    return tuple(
        Wanted(tool, tuple(names), shutil.which(tool.program) or "")
        for tool, names in wanted.items()
    )


def _packages() -> dict[str, str]:
    """The packages that this one needs, with their versions."""
    from importlib.metadata import PackageNotFoundError, requires, version

    found: dict[str, str] = {}
    try:
        needed = requires("artcache") or []
    except PackageNotFoundError:  # run from a folder
        return {}
    for line in needed:
        name = re.match(r"[\w.-]+", line)
        if name and ";" not in line:
            try:
                found[name[0]] = version(name[0])
            except PackageNotFoundError:
                found[name[0]] = ""
    return found


def _umask() -> int | None:
    """Read, not set and set back: other threads make files meanwhile."""
    with contextlib.suppress(OSError):
        if match := re.search(r"^Umask:\s*([0-7]+)$", Path("/proc/self/status").read_text(), re.M):
            return int(match[1], 8)
    return None


# -- the home -----------------------------------------------------------------------------


def _home(home: Home) -> HomeFacts:
    mount = mount_of(home.root)
    denied, executes = _tried(home.root)
    facts = HomeFacts(
        str(home.root),
        there=home.root.is_dir(),
        denied=denied,
        free=free_bytes(home.root),
        point=mount.point if mount else "",
        kind=mount.kind if mount else "",
        executes=executes and not (mount and "noexec" in mount.options),
    )
    if not facts.there:
        return facts
    entries, size, broken = 0, 0, []
    with contextlib.suppress(OSError):
        for entry in home.entries():
            if isinstance(entry, Corrupt):
                broken.append(str(entry))
            else:
                entries, size = entries + 1, size + entry.size
    return facts._replace(
        entries=entries,
        size=size,
        broken=tuple(broken),
        litter={name: sum(_sizes(home.folder(name))) for name in _LITTER},
        pending=len(_listed(home.folder("pending"))),
    )


def _tried(folder: Path) -> tuple[str, bool]:
    """Why no file can be made there, and whether one could be a program."""
    place = next(one for one in (folder, *folder.parents) if os.path.lexists(one))
    try:
        if not place.is_dir():
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(place))
        if place != folder:  # it is not ours to make anything there but the home itself
            if not os.access(place, os.W_OK | os.X_OK):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(place))
            return "", True
        with _probe(place) as file:
            return "", os.access(file, os.X_OK)
    except OSError as error:
        return f"{error.strerror} ({error.filename or place})", True


@contextlib.contextmanager
def _probe(folder: Path) -> Iterator[Path]:
    """A small program's file, gone at the end."""
    file = folder / f".probe-{os.getpid()}-{os.urandom(4).hex()}"
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o755)
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(b"#!/bin/sh\n")
        yield file
    finally:
        file.unlink(missing_ok=True)


def _target(home: Path, to: Path) -> Target:
    """What a tree in the home would become there: tried, where both exist."""
    to = to.absolute()
    denied, executes = _tried(to)
    place = next(one for one in (to, *to.parents) if one.is_dir())
    mount = mount_of(place)
    executes = executes and not (mount and "noexec" in mount.options)
    target = Target(str(to), executes=executes, denied=denied)
    if denied or not home.is_dir() or not os.access(place, os.W_OK):
        return target
    with contextlib.suppress(OSError), _probe(home) as source:
        beside = place / f"{source.name}-to"
        return target._replace(links=_linked(source, beside), reflinks=_reflinked(source, beside))
    return target


def _linked(source: Path, target: Path) -> bool:
    try:
        os.link(source, target)
    except OSError:
        return False
    target.unlink()
    return True


def _reflinked(source: Path, target: Path) -> bool:
    try:
        with source.open("rb") as opened, target.open("xb") as out:
            fcntl.ioctl(out.fileno(), _FICLONE, opened.fileno())
    except OSError:
        return False
    finally:
        target.unlink(missing_ok=True)
    return True


def _sizes(folder: Path) -> Iterator[int]:
    for top, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                yield os.lstat(os.path.join(top, name)).st_size


def _listed(folder: Path) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
