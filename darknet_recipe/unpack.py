"""Source tarballs from outside, unpacked by a strict walk.

Not `tarfile.extractall`: its filters let known archives write outside their
target on Python versions that this recipe supports. Here only plain files,
folders and links inside the tree come out, nothing is ever written through a
link, and sizes are bounded.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, cast

from artcache.errors import BuildFailed

MAX_ENTRIES = 100_000
MAX_BYTES = 1 << 30
"""Of the unpacked stream, headers and all."""

_BLOCK = 512


class _Counted:
    """A decompressed stream that refuses to be endless and remembers how it ended."""

    def __init__(self, stream: BinaryIO, name: str, limit: int) -> None:
        self._stream, self._name, self._size, self.tail = stream, name, 0, b""
        self._limit = limit

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._size += len(data)
        if self._size > self._limit:
            raise _unsafe(self._name, f"it holds more than {self._limit >> 30} GiB")
        self.tail = (self.tail + data)[-_BLOCK:]
        return data


def _all(path: str) -> bool:
    return True


def unpack(
    archive: Path,
    into: Path,
    *,
    wanted: Callable[[str], bool] = _all,
    max_bytes: int | None = None,
) -> None:
    """Unpack a tar file (plain, gz, bz2, xz or zst) into a new folder.

    Modes become 0755 for what its owner may execute and 0644 else.

    Args:
        wanted: Which paths to write; the others are checked and left out.
        max_bytes: Of the unpacked stream; None: `MAX_BYTES`.

    Raises:
        BuildFailed: a member is unsafe, a limit is passed, or the file is
            damaged or cut short. `into` may hold part of the tree then.
    """
    into.mkdir(parents=True)
    walk = _Walk(into, archive.name, wanted)
    try:
        with decompressed(archive) as stream:
            counted = _Counted(stream, archive.name, max_bytes or MAX_BYTES)
            # "r|" reads forward only, so that the whole is decompressed just once.
            with tarfile.open(fileobj=cast("IO[bytes]", counted), mode="r|") as tar:
                for member in tar:
                    walk.add(tar, member)
            while counted.read(1 << 20):  # a checksum at the end is checked only when read
                pass
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno:  # the disk's fault, not the archive's
            raise
        raise _damaged(archive.name, str(error)) from error
    if counted.tail.strip(b"\0") or len(counted.tail) < _BLOCK:
        raise _damaged(archive.name, "its end is missing")
    walk.finish()


def without_top_folder(tree: Path) -> Path:
    """The only folder in `tree`, as most archives have one; else `tree` itself."""
    entries = list(tree.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and not entries[0].is_symlink():
        return entries[0]
    return tree


class _Walk:
    """Writes member after member. Links come last, so no write can go through one."""

    def __init__(self, root: Path, name: str, wanted: Callable[[str], bool]) -> None:
        self._root, self._name, self._count = root, name, 0
        self._wanted = wanted
        self._links: dict[PurePosixPath, str] = {}

    def add(self, tar: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        self._count += 1
        if self._count > MAX_ENTRIES:
            raise _unsafe(self._name, f"it has more than {MAX_ENTRIES} entries")
        path = self._inside(member.name, member.name)
        if path in self._links or any(parent in self._links for parent in path.parents):
            raise _unsafe(self._name, f"{member.name!r} goes through a link")
        target = self._root / path
        if member.isdir():
            target.mkdir(parents=True, exist_ok=True)
            return
        if path == PurePosixPath("."):
            raise _unsafe(self._name, f"{member.name!r} is no folder")
        if self._is_left_out(path, member):
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        if member.isreg() and not member.issparse():  # a sparse file may be of any size
            self._write(tar, member, target)
        elif member.issym():
            self._inside(str(path.parent / member.linkname), member.name, may_climb=True)
            self._links[path] = member.linkname
        elif member.islnk():
            self._copy(self._inside(member.linkname, member.name), target, member.name)
        else:
            raise _unsafe(self._name, f"{member.name!r} is a device or another special file")

    def _is_left_out(self, path: PurePosixPath, member: tarfile.TarInfo) -> bool:
        """Nobody wants it, and it is nothing that an honest archive would not have."""
        if member.issym():
            self._inside(str(path.parent / member.linkname), member.name, may_climb=True)
        return (member.isreg() or member.issym() or member.islnk()) and not self._wanted(str(path))

    def finish(self) -> None:
        for path, aim in self._links.items():
            link = self._root / path
            if link.exists():
                raise _unsafe(self._name, f"{str(path)!r} is there twice")
            link.symlink_to(aim)
        root = self._root.resolve()
        for path in self._links:  # only now can a link through another link be followed
            if not (self._root / path).resolve().is_relative_to(root):
                raise _unsafe(self._name, f"the link {str(path)!r} leads out of the tree")

    def _inside(self, name: str, member: str, *, may_climb: bool = False) -> PurePosixPath:
        """`name` without `.` and `..`; refused if it is absolute or leads out.

        Only what a link leads to `may_climb` by `..`.
        """
        parts: list[str] = []
        outside = name.startswith("/")
        for part in name.split("/"):
            if part == "..":
                outside = outside or not parts or not may_climb
                parts = parts[:-1]
            elif part not in ("", "."):
                parts.append(part)
        if outside:
            raise _unsafe(self._name, f"{member!r} leads out of the tree")
        return PurePosixPath(*parts)

    def _write(self, tar: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
        stream = tar.extractfile(member)
        assert stream is not None
        if target.is_dir():
            raise _unsafe(self._name, f"{member.name!r} is there twice")
        with target.open("wb") as out:
            shutil.copyfileobj(stream, out, 1 << 20)
        if target.stat().st_size != member.size:
            raise tarfile.ReadError(f"{member.name!r} is cut short")
        target.chmod(0o755 if member.mode & 0o100 else 0o644)

    def _copy(self, source: PurePosixPath, target: Path, name: str) -> None:
        found = self._root / source
        if not found.is_file() or source in self._links or found == target:
            raise _unsafe(self._name, f"{name!r} is a link to something that is not there")
        shutil.copy(found, target)


def decompressed(archive: Path) -> BinaryIO:
    with archive.open("rb") as stream:
        start = stream.read(6)
    if start.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.open(archive))
    if start.startswith(b"BZh"):
        return cast(BinaryIO, bz2.open(archive))
    if start.startswith(b"\xfd7zXZ\0"):
        return cast(BinaryIO, lzma.open(archive))
    if start.startswith(b"\x28\xb5\x2f\xfd"):
        import zstandard

        return cast(BinaryIO, zstandard.open(archive))
    return archive.open("rb")


def _unsafe(archive: str, why: str) -> BuildFailed:
    return BuildFailed(
        f"the archive {archive} is refused: {why}",
        hint="get it again from where it was published",
    )


def _damaged(archive: str, why: str) -> BuildFailed:
    return BuildFailed(
        f"the archive {archive} is damaged or cut short: {why or 'it cannot be read'}",
        hint="download it again",
    )


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files below `source`, links as what they lead to, modes as 0644 or 0755."""
    for folder, _, files in os.walk(source, followlinks=False):
        for name in files:
            path = Path(folder, name)
            if path.is_file():
                copy_file(path, target / path.relative_to(source))


def copy_file(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    target.chmod(0o755 if source.stat().st_mode & 0o100 else 0o644)
