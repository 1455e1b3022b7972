"""A folder of Google Drive by its API: `gdrive://FOLDER-ID/sub/folder`.

In Drive a name is a label: any number of files and folders of one name may lie in one
folder, and nothing can be created only if it is not there. So folders of one name are read as one,
of several files the oldest is the object, and a writer that finds an older one
takes its own away again. What is in the trash is not there.
"""

from __future__ import annotations

import contextlib
import re
import secrets
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ..errors import (
    Corrupt,
    ObjectExists,
    ObjectNotFound,
    OverLimit,
    StoreUnavailable,
    UsageError,
)
from ..store import Content, StoredObject, StoreTraits, checked_name
from .bucket import Body
from .drive_api import DriveApi, File
from .faults import Limits, only_ours

_FRESH = 30.0
"""Seconds for which it is believed which folders have a name: another machine may make one more."""
_ABSENT = 2.0
"""The same for that none has it; a writer looks again all the same."""
_FEW = 1000
"""A listing of no more is remembered for the reads that follow it."""
_PARALLEL = 8


class _Place(NamedTuple):
    """A file, and the folder in which it lies."""

    file: File
    parent: str


class GDriveStore:
    def __init__(
        self,
        url: str,
        folder: str,
        prefix: str = "",
        *,
        limits: Limits | None = None,
        endpoint: str = "",
    ) -> None:
        """Args:
        folder: The id of a folder, or of a Shared Drive.
        prefix: A folder below it, made when something is first stored.
        endpoint: In place of Google's, for tests.
        """
        self._url, self._root = url, folder
        self._prefix = f"{checked_name(prefix)}/" if prefix else ""
        self._api = DriveApi(url, limits or Limits(), endpoint)
        self._folders: dict[str, tuple[float, Sequence[str]]] = {}
        """By path below the root, and until when that is believed."""
        self._files: dict[str, File] = {}
        """Of which ranges are read."""
        self._listed: dict[str, tuple[float, File]] = {}
        """A listing's word is good for one read."""
        self._looking = threading.RLock()
        self._root_is_there = False

    @property
    def url(self) -> str:
        return self._url

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(exclusive_create=False, durable_on_return=True, parallel=_PARALLEL)

    @property
    def identity(self) -> str:
        """The credential in words. Finds it out, if need be."""
        with only_ours(self._api.party):
            return self._api.identify()

    def get(self, name: str, *, limit: int) -> bytes:
        with only_ours(self._api.party), self._api.as_one():
            until, listed = self._listed.pop(self._path(name), (0.0, None))
            fresh = listed and time.monotonic() < until
            file = listed if listed and fresh else self._file(name).file
            if file.size > limit:
                raise OverLimit(
                    f"{self._url}: {name} has {file.size} bytes; at most {limit} are read"
                )
            with self._named(name):
                return self._api.read(file, name, limit=limit)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        with only_ours(self._api.party), self._api.as_one():
            checked_name(name)
            with self._looking:  # else each of many threads would look
                file = self._files.get(name) or self._file(name).file
                self._files[name] = file
            if offset + length > file.size:
                end = f"ends at byte {file.size}, before its {offset + length}"
                raise Corrupt(f"{self._url}: {name} {end}")
            with self._named(name):
                return self._api.read(file, name, span=(offset, length))

    def size(self, name: str) -> int:
        with only_ours(self._api.party):
            return self._file(name).file.size

    def create(self, name: str, content: Content) -> None:
        with only_ours(self._api.party):
            taken = ObjectExists(f"{self._url}: {name} exists")
            if self._places(name):
                raise taken
            self._check_root()
            body = Body(content)
            for _ in range(2):
                with contextlib.suppress(ObjectNotFound):
                    folder, leaf = self._folder_for(name)
                    file = self._api.upload(leaf, folder, body)
                    if not file.trashed:
                        break
                    self._api.delete(file.id, name)
                self._folders.clear()  # a folder that we knew was removed meanwhile
            else:
                raise self._api.no_folder(self._root)
            older = [place for place in self._places(name) if place.file.age < file.age]
            if older:
                self._api.delete(file.id, name)
                raise taken

    def list(self, prefix: str) -> Iterator[StoredObject]:
        path = self._path(prefix)
        with only_ours(self._api.party):
            level = [(prefix, id) for id in self._ids(path)]
            if not level:
                self._check_root()
            with ThreadPoolExecutor(_PARALLEL) as pool:
                seen: dict[str, File] = {}
                while level:
                    found = pool.map(self._children, [id for _, id in level])
                    below = [
                        (f"{folder}/{file.name}", file)
                        for (folder, _), files in zip(level, found, strict=True)
                        for file in files
                        if _is_name(file.name)
                    ]
                    level = [(name, file.id) for name, file in below if file.folder]
                    for name, file in below:
                        if not file.folder and (name not in seen or file.age < seen[name].age):
                            seen[name] = file
        until = time.monotonic() + _FRESH
        for name, file in seen.items():
            if len(seen) <= _FEW:
                self._listed[self._prefix + name] = (until, file)
            yield StoredObject(name, file.size, file.modified)

    def delete(self, name: str) -> None:
        """All files of that name: else another one would take its place."""
        with only_ours(self._api.party):
            for place in self._places(name):
                with contextlib.suppress(ObjectNotFound):
                    self._api.delete(place.file.id, name)
            self._forget(name)

    def move(self, name: str, to: str) -> None:
        checked_name(to)
        with only_ours(self._api.party):
            place = self._file(name)
            folder, leaf = self._folder_for(to)
            with self._named(name):
                self._api.move(place.file.id, leaf, place.parent, folder)
            self._forget(name)

    def quarantine(self, name: str) -> str:
        aside = f"v1/quarantine/{name.replace('/', '.')}.{int(time.time())}.{secrets.token_hex(3)}"
        self.move(name, aside)
        return f"{self._url.rstrip('/')}/{aside}"

    def probe(self) -> None:
        """Whether the account may put files into the root; asks, and stores nothing."""
        with only_ours(self._api.party):
            if not self._seen_root().fillable:
                raise self._api.read_only()

    def abort(self) -> None:
        self._api.abort()

    # -- files ----------------------------------------------------------------------------

    def _path(self, name: str) -> str:
        return self._prefix + checked_name(name)

    def _file(self, name: str) -> _Place:
        """The object of that name: the oldest file. Raises `ObjectNotFound`."""
        places = self._places(name)
        if not places:
            self._forget(name)
            self._check_root()
            raise ObjectNotFound(f"{self._url} has no {name}")
        return places[0]

    def _places(self, name: str) -> Sequence[_Place]:
        """All files of that name, the oldest first."""
        folder, _, leaf = self._path(name).rpartition("/")
        found = []
        for id in self._ids(folder):
            with contextlib.suppress(ObjectNotFound):
                files = self._api.children(id, name=leaf, folders=False)
                found += [_Place(file, id) for file in files]
        return sorted(found, key=lambda place: place.file.age)

    def _children(self, folder: str) -> Sequence[File]:
        try:
            return self._api.children(folder)
        except ObjectNotFound:
            return []

    @contextlib.contextmanager
    def _named(self, name: str) -> Iterator[None]:
        """A file that went away between two requests was known by its id."""
        try:
            yield
        except ObjectNotFound:
            self._forget(name)
            raise ObjectNotFound(f"{self._url} has no {name}") from None

    def _forget(self, name: str) -> None:
        self._files.pop(name, None)
        self._listed.pop(self._path(name), None)

    # -- folders --------------------------------------------------------------------------

    def _ids(self, path: str, *, sure: bool = False) -> Sequence[str]:
        """The folders of that path below the root, the oldest first; none if there is none.

        Args:
            sure: Look again for one that was not there a moment ago.
        """
        if not path:
            return [self._root]
        with self._looking:
            until, ids = self._folders.get(path, (0.0, []))
            if time.monotonic() < until and (ids or not sure):
                return ids
            above, _, leaf = path.rpartition("/")
            few = above == f"{self._prefix}v1"  # they are looked for one after the other
            found: dict[str, dict[str, File]] = {leaf: {}}
            for parent in self._ids(above, sure=sure):
                with contextlib.suppress(ObjectNotFound):
                    for file in self._api.children(parent, name="" if few else leaf, folders=True):
                        found.setdefault(file.name, {})[file.id] = file
            for name, files in found.items():
                self._know(f"{above}/{name}" if above else name, tuple(files.values()))
            return self._folders[path][1]

    def _know(self, path: str, files: Sequence[File]) -> None:
        ids = [file.id for file in sorted(files, key=lambda file: file.age)]
        self._folders[path] = (time.monotonic() + (_FRESH if ids else _ABSENT), ids)
        self._root_is_there = self._root_is_there or bool(ids)

    def _folder_for(self, name: str) -> tuple[str, str]:
        """The folder in which to create an object, made if need be, and the object's name there."""
        folder, _, leaf = self._path(name).rpartition("/")
        with self._looking:
            return self._made(folder), leaf

    def _made(self, path: str) -> str:
        ids = self._ids(path, sure=True)
        if not ids:
            above, _, leaf = path.rpartition("/")
            parent = self._made(above)
            try:
                ids = [self._api.make_folder(leaf, parent)]
            except ObjectNotFound:
                self._folders.clear()
                raise
            self._folders[path] = (time.monotonic() + _FRESH, ids)
        return ids[0]

    def _check_root(self) -> None:
        """That nothing was found may mean that the root cannot be seen: don't call that a miss."""
        if not self._root_is_there:
            self._seen_root()

    def _seen_root(self) -> File:
        try:
            root = self._api.facts(self._root)
        except ObjectNotFound:
            raise self._api.no_folder(self._root) from None
        if not root.folder:
            raise StoreUnavailable(
                f"{self._url}: {self._root} is {root.name}, which is no folder",
                hint="open the folder in a browser: its id is the last part of the address",
            )
        if root.trashed:
            raise StoreUnavailable(
                f"{self._url}: the folder {root.name} is in the trash",
                hint="restore it at https://drive.google.com/drive/trash",
            )
        self._root_is_there = True
        return root


def split(rest: str, url: str) -> tuple[str, str]:
    """Folder id and prefix of `FOLDER-ID/a/folder`.

    Raises:
        UsageError: no id, or a folder's name that none can have.
    """
    folder, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    hint = "write it like gdrive://FOLDER-ID/artcache: the id is the last part of the folder's"
    hint += " address in the browser"
    if not re.fullmatch(r"[A-Za-z0-9_-]{4,128}", folder):
        raise UsageError(f"{url!r}: {folder!r} is no id of a folder", hint=hint)
    if prefix and not all(map(_is_name, prefix.split("/"))):
        raise UsageError(f"{url!r}: {prefix!r} is no folder's name", hint=hint)
    return folder, prefix


def _is_name(name: str) -> bool:
    """Whether an object or folder of ours may be called so: no dots first, no slashes."""
    try:
        return "/" not in checked_name(name)
    except UsageError:
        return False
