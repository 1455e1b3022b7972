"""A store in one file: an uncompressed ZIP whose members are named as a store's objects are.

docs/format.md specifies it. It is read in place and written once, whole. Nothing is
ever decompressed, and nothing that the file says of itself is believed: what its names
and numbers may be is checked before any member is read.
"""

from __future__ import annotations

import bisect
import contextlib
import errno
import fcntl
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, NoReturn

from ..disk import disk_errors, fsync_folder
from ..errors import (
    BadArchive,
    Corrupt,
    ObjectExists,
    ObjectNotFound,
    OverLimit,
    Refused,
    StoreDenied,
    StoreUnavailable,
)
from ..store import Content, StoredObject, StoreTraits, checked_name
from . import zipped
from .zipped import Member

_PIECE = 1 << 20


class _Archive:
    """What reading and writing share: members by name in an open file."""

    def __init__(self, path: Path) -> None:
        self._path = path.expanduser().absolute()
        self._index: dict[str, Member] = {}
        self._folders: set[str] = set()

    @property
    def url(self) -> str:
        return str(self._path)

    def _members(self) -> dict[str, Member]:
        raise NotImplementedError

    def _handle(self) -> int:
        raise NotImplementedError

    def _modified(self) -> float:
        return os.fstat(self._handle()).st_mtime

    def get(self, name: str, *, limit: int) -> bytes:
        member = self._member(name)
        if member.size > limit:
            raise OverLimit(f"{self.url}: {name} has {member.size} bytes; at most {limit} are read")
        data = self.get_range(name, 0, member.size)
        if zlib.crc32(data) != member.crc:
            raise BadArchive(f"{self.url}: {name} is damaged: its CRC is another")
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        member = self._member(name)
        if offset + length > member.size:
            raise Corrupt(
                f"{self.url}: {name} ends at byte {member.size}, before its {offset + length}"
            )
        at, data = self._begin(name, member) + offset, b""
        try:
            while len(data) < length:
                more = os.pread(self._handle(), length - len(data), at + len(data))
                if not more:
                    raise Corrupt(f"{self.url} ends at byte {at + len(data)}, in {name}")
                data = data + more if data else more
        except OSError as error:
            raise StoreUnavailable(f"{self.url} cannot be read: {error.strerror}") from error
        return data

    def size(self, name: str) -> int:
        return self._member(name).size

    def list(self, prefix: str) -> Iterator[StoredObject]:
        members, inside = self._members(), checked_name(prefix) + "/"
        if prefix not in self._folders:
            return
        names, modified = sorted(members), self._modified()
        for name in names[bisect.bisect_left(names, inside) :]:
            if not name.startswith(inside):
                return
            yield StoredObject(name, members[name].size, modified)

    def delete(self, name: str) -> None:
        if checked_name(name) in self._members():
            self._refuse()

    def move(self, name: str, to: str) -> None:
        checked_name(to)
        self._member(name)
        self._refuse()

    def quarantine(self, name: str) -> str:
        self._member(name)
        self._refuse()

    def _refuse(self) -> NoReturn:
        raise StoreDenied(
            f"{self.url} cannot be written: an archive is written once, by `artcache save`",
            hint=f"configure it as read-only: read:{self.url}",
        )

    def _begin(self, name: str, member: Member) -> int:
        return zipped.begin(self._handle(), name, member, self.url)

    def _member(self, name: str) -> Member:
        try:
            return self._members()[checked_name(name)]
        except KeyError:
            raise ObjectNotFound(f"{self.url} has no {name}") from None


class ArchiveStore(_Archive):
    """Read-only. The file is opened, and what it says of itself checked, at the first use."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._file: BinaryIO | None = None
        self._opening = threading.Lock()

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(exclusive_create=True, durable_on_return=True, writable=False)

    def check(self) -> None:
        """Look at every member's own header too. Raises `BadArchive`, `StoreUnavailable`."""
        for name, member in self._members().items():
            self._begin(name, member)

    def create(self, name: str, content: Content) -> None:
        if checked_name(name) in self._members():
            raise ObjectExists(f"{self.url}: {name} exists")
        self._refuse()

    def _members(self) -> dict[str, Member]:
        if self._file:
            return self._index
        with self._opening:
            if self._file is None:
                try:
                    with contextlib.ExitStack() as stack:
                        file = stack.enter_context(self._path.open("rb"))
                        self._index = zipped.read_index(file.fileno(), self.url)
                        self._folders = zipped.folders(self._index)
                        stack.pop_all()
                except OSError as error:
                    words = f"{self.url} cannot be read: {error.strerror}"
                    raise StoreUnavailable(words) from error
                self._file = file
        return self._index

    def _handle(self) -> int:
        self._members()
        assert self._file
        return self._file.fileno()


class ArchiveWriter(_Archive):
    """Writes an archive under a temporary name beside the final one; `finish` gives it that.

    As a context manager it removes what was not finished. The same objects created in
    the same order make the same bytes.
    """

    def __init__(self, path: Path, *, overwrite: bool = False) -> None:
        """Raises `Refused` if there is such a file and it is not to be overwritten."""
        super().__init__(path)
        self._overwrite = overwrite
        self._refuse_existing()
        begin = f".{self._path.name}.saving-"
        self._temporary = self._path.with_name(f"{begin}{os.getpid()}")
        self._end = 0
        with self._disk():
            self._sweep(begin)
            self._file = self._temporary.open("w+b", buffering=0)
            with contextlib.suppress(OSError):  # a disk without locks keeps what was left
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(exclusive_create=True, durable_on_return=True)

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(self, *rest: object) -> None:
        self._file.close()
        with contextlib.suppress(OSError):
            self._temporary.unlink()

    def create(self, name: str, content: Content) -> None:
        if checked_name(name) in self._index:
            raise ObjectExists(f"{self.url}: {name} exists")
        begin = self._end
        with self._disk():
            try:
                size, crc = self._append(name, content)
            except BaseException:
                os.ftruncate(self._file.fileno(), begin)
                raise
            self._end = begin + len(zipped.local_header(name, size, crc)) + size
            self._index[name] = Member(begin, size, crc, self._end)
            self._folders |= zipped.folders([name])

    def _disk(self) -> AbstractContextManager[None]:
        return disk_errors(
            self._path.parent,
            doing="write the archive",
            hint="save it into a folder that is there and can be written",
        )

    def finish(self) -> None:
        """Make the file whole, durable, and visible under its name. Raises `Refused`."""
        with self._disk():
            self._file.seek(self._end)
            _write(self._file.fileno(), zipped.directory(self._index, self._end))
            _flush(self._file.fileno())
            self._publish()
            fsync_folder(self._path.parent)

    def _publish(self) -> None:
        if not self._overwrite:
            try:
                os.link(self._temporary, self._path)
                return
            except OSError:  # it exists, or a disk without links, such as a memory stick's
                self._refuse_existing()
        self._temporary.replace(self._path)

    def _append(self, name: str, content: Content) -> tuple[int, int]:
        """Header and bytes at the end of the file; their number and CRC.

        Read twice, so that the file is written from its begin to its end: some mounts
        write no other way.
        """
        crc = size = 0
        for piece in _pieces(content):
            crc, size = zlib.crc32(piece, crc), size + len(piece)
        handle, written = self._file.fileno(), 0
        self._file.seek(self._end)
        _write(handle, zipped.local_header(name, size, crc))
        for piece in _pieces(content):
            _write(handle, piece)
            written = zlib.crc32(piece, written)
        if written != crc:
            raise StoreUnavailable(f"{content!s} changed while it was read")
        return size, crc

    def _sweep(self, begin: str) -> None:
        """Remove what killed writers of this file left: nobody holds a lock on it."""
        for name in os.listdir(self._path.parent):
            if name.startswith(begin):
                left = self._path.with_name(name)
                with contextlib.suppress(OSError), left.open("rb") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    left.unlink()

    def _refuse_existing(self) -> None:
        if not self._overwrite and os.path.lexists(self._path):
            raise Refused(f"{self.url} exists", hint="--force replaces it")

    def _members(self) -> dict[str, Member]:
        return self._index

    def _handle(self) -> int:
        return self._file.fileno()


def _pieces(content: Content) -> Iterator[bytes]:
    if isinstance(content, bytes):
        yield content
        return
    with content.open("rb") as file:
        while piece := file.read(_PIECE):
            yield piece


def _write(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _flush(handle: int) -> None:
    try:
        os.fsync(handle)
    except OSError as error:  # some mounts have no fsync
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
