"""A tree on the local disk: what is in it, digested, and where it differs from a manifest."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from . import digest
from .errors import BuildFailed, Corrupt
from .frames import in_order, pool_of, threads
from .manifest import File, Link, check_paths


class Scan(NamedTuple):
    """A tree as it is on disk, in manifest order."""

    files: tuple[tuple[str, int, int], ...]
    """(path, mode 0o644 or 0o755, size in bytes)"""
    links: tuple[Link, ...]
    dirs: tuple[str, ...]


def scan(root: Path) -> Scan:
    """List a built tree.

    Raises:
        BuildFailed: it holds what no manifest can: a device, a socket, a name
            that is no UTF-8, a link that leads out of the tree.
    """
    files: list[tuple[str, int, int]] = []
    links: list[Link] = []
    dirs: list[str] = []
    todo = [""]
    while todo:
        folder = todo.pop()
        with os.scandir(root / folder) as found:
            entries = list(found)
        if not entries and folder:
            dirs.append(folder)
        for entry in entries:
            path = f"{folder}/{entry.name}" if folder else entry.name
            _check_name(path)
            if entry.is_symlink():
                target = os.readlink(entry.path)
                _check_name(path, target)
                links.append(Link(path, target))
            elif entry.is_dir():
                todo.append(path)
            elif entry.is_file():
                facts = entry.stat()
                mode = 0o755 if facts.st_mode & 0o111 else 0o644
                files.append((path, mode, facts.st_size))
            else:
                raise BuildFailed(f"the build left {path!r}, which is no file, folder or link")
    result = Scan(tuple(sorted(files)), tuple(sorted(links)), tuple(sorted(dirs)))
    try:
        check_paths([f[0] for f in result.files], result.links, result.dirs)
    except Corrupt as error:
        raise BuildFailed(f"the build's result cannot be stored: {error}") from None
    return result


def _check_name(path: str, target: str = "") -> None:
    try:
        path.encode(), target.encode()
    except UnicodeEncodeError:
        text = f"{path!r} -> {target!r}" if target else f"{path!r}"
        raise BuildFailed(f"the build left a name that is no UTF-8: {text}") from None


def digest_files(root: Path, found: Scan) -> tuple[File, ...]:
    """Digest a tree that is not packed (yet). Raises `BuildFailed` if it changes meanwhile."""

    def one(entry: tuple[str, int, int]) -> File:
        path, mode, size = entry
        xxh3, read = digest_file(root / path)
        if read != size:
            raise BuildFailed(f"{path} changed while it was read")
        return File(path, mode, size, xxh3)

    with pool_of(threads()) as pool:
        return tuple(in_order(pool, one, found.files, 64))


def digest_file(path: Path) -> tuple[str, int]:
    """XXH3-128 and length of a file."""
    hasher, length = digest.xxh3_hasher(), 0
    buffer = bytearray(1 << 20)
    view = memoryview(buffer)
    with path.open("rb", buffering=0) as file:
        while count := file.readinto(buffer):
            hasher.update(view[:count])
            length += count
    return hasher.hexdigest(), length


def differing(root: Path, files: Sequence[File], links: Sequence[Link]) -> list[str]:
    """The paths whose bytes, mode or target are not the manifest's, each with what is wrong."""

    def one(file: File) -> str:
        path = root / file.path
        try:
            facts = path.lstat()
            if not stat.S_ISREG(facts.st_mode):
                return f"{file.path}: no regular file"
            if facts.st_size != file.size:
                return f"{file.path}: {facts.st_size} bytes, should be {file.size}"
            if bool(facts.st_mode & 0o100) != bool(file.mode & 0o100):
                return f"{file.path}: its executable bit is wrong"
            if digest_file(path)[0] != file.xxh3:
                return f"{file.path}: its content changed"
        except FileNotFoundError:
            return f"{file.path}: missing"
        except OSError as error:
            return f"{file.path}: unreadable ({error.strerror})"
        return ""

    with pool_of(threads()) as pool:
        problems = [why for why in in_order(pool, one, files, 64) if why]
    for link in links:
        path = root / link.path
        if not path.is_symlink() or os.readlink(path) != link.target:
            problems.append(f"{link.path}: the link does not lead to {link.target}")
    return problems
