"""A folder as a store: a local or network disk, or a mounted Google Drive.

On a real file system an object is written to a temporary name, flushed and
linked: it appears whole, durable, and never over another. A Drive mount (any
FUSE file system that we don't know to be better) has neither links nor an
exclusive create: there an object is written once under its final name, read
back, and never renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import pwd
import shlex
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

from .. import digest
from ..disk import FULL, fsync_folder, mount_of
from ..errors import (
    ArtcacheError,
    Corrupt,
    LocalDisk,
    ObjectExists,
    ObjectNotFound,
    OverLimit,
    StoreDenied,
    StoreFull,
    StoreUnavailable,
    UsageError,
)
from ..store import NEW, Content, StoredObject, StoreTraits, checked_name
from . import mount
from .faults import Passing, persist
from .handles import Handles
from .writing import write_new

_Result = TypeVar("_Result")

_TEMPORARY = ".tmp-"
_MOMENT = 5.0
"""Seconds; under such a lock a small file is read and written."""
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL})
_REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


class PosixStore:
    """The store in a folder, which is made when something is first stored in it."""

    def __init__(self, folder: Path, *, mount_like: bool | None = None) -> None:
        """Args:
        mount_like: Whether to treat it as a Drive mount; None: see what is mounted there.
        """
        self._root = folder.expanduser().absolute()
        self._mount_like = mount.is_mount(self._root) if mount_like is None else mount_like
        self._handles = Handles()

    @property
    def url(self) -> str:
        return str(self._root)

    @property
    def identity(self) -> str:
        """Who writes, and on what kind of file system."""
        place = mount_of(self._root)
        who = f"user {os.geteuid()}"
        with contextlib.suppress(KeyError):
            who = f"user {pwd.getpwuid(os.geteuid()).pw_name}"
        return f"{who} on {place.kind} (mounted at {place.point})" if place else who

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(
            exclusive_create=not self._mount_like,
            durable_on_return=not self._mount_like,
            swaps=not self._mount_like,
            shared_disk=True,
        )

    def get(self, name: str, *, limit: int) -> bytes:
        def read() -> bytes:
            with self._found(name).open("rb") as file:
                length = os.fstat(file.fileno()).st_size
                if length > limit:
                    words = f"{name} has {length} bytes; at most {limit} are read"
                    raise OverLimit(f"{self.url}: {words}")
                return file.read(limit)

        return self._patiently(name, read)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = bytearray(length)
        self.fill(name, offset, memoryview(data))
        return bytes(data)

    def fill(self, name: str, offset: int, out: memoryview) -> None:
        def read() -> None:
            try:
                handle, done = self._handles.of(str(self._found(name))), 0
                while done < len(out):
                    count = os.preadv(handle, [out[done:]], offset + done)
                    if not count:
                        raise Corrupt(
                            f"{self.url}: {name} ends at byte {offset + done}, before its"
                            f" {offset + len(out)}"
                        )
                    done += count
                self._handles.done()
            except (OSError, Corrupt):
                self._handles.drop()
                raise

        self._patiently(name, read)

    def size(self, name: str) -> int:
        return self._patiently(name, lambda: self._found(name).stat().st_size)

    def create(self, name: str, content: Content) -> None:
        final = self._path(name)
        mount.mount_if_asked(self._root)
        with self._errors(name, writing=True):
            if os.path.lexists(self._found(name)):
                raise ObjectExists(f"{self.url}: {name} exists")
            self._make_folder(final.parent)
            if self._mount_like:
                self._create_in_place(final, content)
            else:
                self._create_linked(final, content)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        top = self._path(prefix)
        tops = [top, *mount.doubles(self._root, top)] if self._mount_like else [top]
        seen: set[str] = set()
        for found in (found for top in tops for found in self._files(str(top), prefix)):
            if found.name.rpartition("/")[2].startswith(".") or found.name in seen:
                continue
            if len(tops) > 1:
                seen.add(found.name)
            yield found

    def leftovers(self) -> Iterator[StoredObject]:
        for found in self._files(f"{self._root}/v1", "v1"):
            if found.name.rpartition("/")[2].startswith(_TEMPORARY):
                yield found

    def discard(self, name: str) -> None:
        folder, _, file = name.rpartition("/")
        if not file.startswith(_TEMPORARY):
            raise UsageError(f"{name!r} is no temporary file of a store")
        place = self._path(folder) / file
        with self._errors(name, writing=True):
            place.unlink(missing_ok=True)

    def delete(self, name: str) -> None:
        with (
            self._errors(name, writing=True),
            contextlib.suppress(FileNotFoundError, NotADirectoryError),
        ):
            self._found(name).unlink()

    def move(self, name: str, to: str) -> None:
        source, target = self._found(name), self._path(to)
        with self._errors(name, writing=True):
            self._make_folder(target.parent)
            try:
                source.rename(target)
            except (FileNotFoundError, NotADirectoryError):
                raise ObjectNotFound(f"{self.url} has no {name}") from None

    def quarantine(self, name: str) -> str:
        aside = self._root / "v1" / "quarantine"
        target = aside / f"{name.replace('/', '.')}.{int(time.time())}.{os.urandom(3).hex()}"
        with self._errors(name, writing=True):
            if not os.path.lexists(self._found(name)):
                raise ObjectNotFound(f"{self.url} has no {name}")
            aside.mkdir(parents=True, exist_ok=True)
            self._found(name).replace(target)
        return str(target)

    def probe(self) -> None:
        """Whether a file can be made; one that readers don't see, gone at once."""
        mount.mount_if_asked(self._root)
        with self._errors("a new object", writing=True):
            mount.check_mounted(self._root)
            folder = next(place for place in (self._root, *self._root.parents) if place.exists())
            if folder != self._root:  # it is made when something is stored
                if not os.access(folder, os.W_OK | os.X_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
                return
            file = folder / f"{_TEMPORARY}{os.getpid()}-{os.urandom(6).hex()}"
            os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
            file.unlink()

    def flush_advice(self) -> str:
        return mount.flush(self._root) if self._mount_like else ""

    # -- for leases -----------------------------------------------------------------------

    def get_versioned(self, name: str, *, limit: int) -> tuple[bytes, str]:
        data = self.get(name, limit=limit)
        return data, digest.xxh3(data)

    def swap(self, name: str, content: bytes, over: str) -> str:
        final = self._path(name)
        temporary = final.with_name(f"{_TEMPORARY}{os.getpid()}-{os.urandom(6).hex()}")
        with self._errors(name, writing=True):
            self._make_folder(final.parent)
            with locked(final.parent / ".lock", self.url):
                try:
                    present = digest.xxh3(final.read_bytes())
                except FileNotFoundError:
                    present = NEW
                if present != over:
                    raise ObjectExists(f"{self.url}: {name} is another by now")
                try:
                    temporary.write_bytes(content)
                    temporary.replace(final)
                finally:
                    temporary.unlink(missing_ok=True)
        return digest.xxh3(content)

    # -- inside ---------------------------------------------------------------------------

    def _path(self, name: str) -> Path:
        return self._root / checked_name(name)

    def _found(self, name: str) -> Path:
        """Where an object is, or would be: on a mount perhaps in a folder's double."""
        path = self._path(name)
        if self._mount_like and not os.path.lexists(path):
            return next(mount.doubles(self._root, path), path)
        return path

    def _files(self, top: str, prefix: str) -> Iterator[StoredObject]:
        """All files below a folder as they are read, hidden ones too; of no hidden folder."""
        todo = [top]
        while todo:
            with contextlib.closing(self._entries(todo.pop(), prefix)) as entries:
                while True:
                    with self._errors(prefix):
                        entry = next(entries, None)
                        if entry is None:
                            break
                        if entry.is_dir(follow_symlinks=False):
                            todo += [entry.path] if entry.name[0] != "." else []
                            continue
                    try:
                        facts = self._patiently(prefix, entry.stat)
                    except ObjectNotFound:
                        continue
                    name = prefix + entry.path[len(top) :]
                    yield StoredObject(name, facts.st_size, facts.st_mtime)

    def _entries(self, folder: str, prefix: str) -> Generator[os.DirEntry[str], None, None]:
        def at_once() -> Sequence[os.DirEntry[str]]:
            with os.scandir(folder) as found:
                return tuple(found)

        try:
            if self._mount_like:  # so that it can be read again
                yield from self._patiently(prefix, at_once)
                return
            found = self._patiently(prefix, lambda: os.scandir(folder))
        except ObjectNotFound:
            return
        with found:
            yield from found

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        mount.check_mounted(self._root)
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        if not self._mount_like:
            for place in missing:
                fsync_folder(place.parent)

    def _create_linked(self, final: Path, content: Content) -> None:
        temporary = final.with_name(f"{_TEMPORARY}{os.getpid()}-{os.urandom(6).hex()}")
        try:
            write_new(temporary, content)
            try:
                os.link(temporary, final)  # on NFS too, unlike a check and a rename
            except FileExistsError:
                raise ObjectExists(f"{self.url}: {final.name} exists") from None
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise
                self._create_in_place(final, content)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        fsync_folder(final.parent)

    def _create_in_place(self, final: Path, content: Content) -> None:
        try:
            write_new(final, content)
        except FileExistsError:
            raise ObjectExists(f"{self.url}: {final.name} exists") from None
        except BaseException:
            with contextlib.suppress(OSError):
                final.unlink()
            raise
        if not _same(final, content):
            with contextlib.suppress(OSError):
                final.unlink()
            raise StoreUnavailable(f"{self.url}: {final.name} read back differently")

    def _patiently(self, name: str, work: Callable[[], _Result]) -> _Result:
        """Read something; from a mount that has a problem, more than once."""

        def attempt(number: int) -> _Result:
            with self._errors(name):
                return work()

        if not self._mount_like:
            return attempt(1)
        mount.mount_if_asked(self._root)
        return persist(mount.PATIENCE, attempt)

    @contextlib.contextmanager
    def _errors(self, name: str, *, writing: bool = False) -> Iterator[None]:
        """Nothing but `ArtcacheError` leaves this room."""
        try:
            yield
        except ArtcacheError:
            raise
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError) as error:
            if writing:
                raise StoreUnavailable(f"{self.url}: {error.strerror}: {error.filename}") from error
            mount.check_mounted(self._root)
            raise ObjectNotFound(f"{self.url} has no {name}") from None
        except OSError as error:
            if error.errno in _REFUSALS:
                raise StoreDenied(
                    f"{self.url} cannot be {'written' if writing else 'read'}: {error.strerror}",
                    hint=f"check its permissions (ls -ld {shlex.quote(self.url)})"
                    + (f", or configure it as read-only: read:{self.url}" if writing else ""),
                ) from error
            if error.errno in FULL:
                raise StoreFull(
                    f"{self.url} is full: {error.strerror}",
                    hint=f"see what would go: artcache gc --store {shlex.quote(self.url)}"
                    " --max-size SIZE",
                ) from error
            words = f"{self.url} does not answer: {error.strerror}"
            if self._mount_like and error.errno in mount.BROKEN:
                raise Passing(words, hint=mount.remount(self._root)) from error
            raise StoreUnavailable(words) from error


class OwnFolder(PosixStore):
    """A folder of this machine's own, such as the home: its faults are the local disk's."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, mount_like=False)

    @contextlib.contextmanager
    def _errors(self, name: str, *, writing: bool = False) -> Iterator[None]:
        try:
            with super()._errors(name, writing=writing):
                yield
        except StoreUnavailable as error:
            hint = "set ARTCACHE_DIR to a folder on another disk"
            raise LocalDisk(str(error), hint=hint) from error


@contextlib.contextmanager
def locked(path: Path, url: str) -> Iterator[None]:
    """Be the only one, on this and other machines, for a moment. The kernel frees it on death.

    Raises:
        StoreUnavailable: somebody holds it for longer than a moment.
        OSError: this file system has no locks.
    """
    with path.open("ab") as file:
        until = time.monotonic() + _MOMENT
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until:
                    raise StoreUnavailable(f"{url}: {path} is locked") from None
                time.sleep(0.01)
        yield


def _same(path: Path, content: Content) -> bool:
    if isinstance(content, bytes):
        return path.read_bytes() == content
    import filecmp

    return filecmp.cmp(path, content, shallow=False)
