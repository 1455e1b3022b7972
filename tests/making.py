"""What the format's tests make again and again: keys, trees, packs, stores that fail."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from artcache.errors import Corrupt, ObjectExists, ObjectNotFound, OverLimit, StoreUnavailable
from artcache.key import Key
from artcache.manifest import Manifest
from artcache.pack import write
from artcache.store import Content, StoredObject, StoreTraits, checked_name
from artcache.tree import scan

Tree = Mapping[str, "bytes | str | None"]
"""By path: a file's bytes, a link's target, or None for an empty folder."""

SMALL: Tree = {
    "bin/tool": b"#!/bin/sh\necho tool\n",
    "lib/libtool.so.1": b"\x7fELF" + b"code" * 500,
    "lib/libtool.so": "libtool.so.1",
    "share/empty": b"",
    "share/cache": None,
}


def key(**fields: str | list[str]) -> Key:
    return Key({"recipe": "thing", "commit": "1", **fields})


def plant(root: Path, tree: Tree, *, executable: Collection[str] = ("bin/tool",)) -> Path:
    """Write a tree into `root`, which is made."""
    root.mkdir(parents=True, exist_ok=True)
    for name, content in tree.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir()
        elif isinstance(content, str):
            path.symlink_to(content)
        else:
            path.write_bytes(content)
            path.chmod(0o755 if name in executable else 0o644)
    return root


def picture(root: Path) -> dict[str, object]:
    """A tree as it is on disk: (mode, bytes), link target, or None for an empty folder."""
    seen: dict[str, object] = {}
    for folder, folders, files in os.walk(root):
        place = Path(folder)
        if not folders and not files and place != root:
            seen[str(place.relative_to(root))] = None
        for name in [*folders, *files]:
            path = place / name
            if path.is_symlink():
                seen[str(path.relative_to(root))] = os.readlink(path)
            elif path.is_file():
                mode = path.stat().st_mode & 0o7777
                seen[str(path.relative_to(root))] = (mode, path.read_bytes())
    return seen


def packed(tree: Path, out: Path, named: Key | None = None) -> Manifest:
    """Pack a planted tree into the file `out`."""
    found = scan(tree)
    with out.open("wb") as file:
        done = write(tree, found, file)
    packs = (done.pack,) if done.frames else ()
    return Manifest(named or key(), done.files, found.links, found.dirs, packs, done.frames)


class MemoryStore:
    """A store in a dictionary: a whole one, that passes the contract."""

    def __init__(self, *, exclusive_create: bool = True) -> None:
        self.objects: dict[str, bytes] = {}
        self.aside: dict[str, bytes] = {}
        self.traits = StoreTraits(exclusive_create, durable_on_return=True)
        self.url = "memory:"

    def get(self, name: str, *, limit: int) -> bytes:
        data = self._data(name)
        if len(data) > limit:
            raise OverLimit(f"{self.url}: {name} has {len(data)} bytes; at most {limit} are read")
        return data

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = self._data(name)[offset : offset + length]
        if len(data) != length:
            raise Corrupt(f"{self.url}: {name} is too short")
        return data

    def size(self, name: str) -> int:
        return len(self._data(name))

    def create(self, name: str, content: Content) -> None:
        try:
            data = content if isinstance(content, bytes) else content.read_bytes()
        except OSError as error:
            raise StoreUnavailable(str(error)) from error
        if self.objects.setdefault(checked_name(name), data) is not data:
            raise ObjectExists(f"{self.url}: {name} exists")

    def list(self, prefix: str) -> Iterator[StoredObject]:
        import time

        inside = checked_name(prefix) + "/"
        for name, data in list(self.objects.items()):
            if name.startswith(inside):
                yield StoredObject(name, len(data), time.time())

    def delete(self, name: str) -> None:
        self.objects.pop(checked_name(name), None)

    def move(self, name: str, to: str) -> None:
        checked_name(to)
        self.objects[to] = self._data(name)
        self.objects.pop(name, None)

    def quarantine(self, name: str) -> str:
        self.aside[name] = self._data(name)
        del self.objects[name]
        return f"aside/{name}"

    def _data(self, name: str) -> bytes:
        try:
            return self.objects[checked_name(name)]
        except KeyError:
            raise ObjectNotFound(f"{self.url} has no {name}") from None


class DyingStore(MemoryStore):
    """Completes `lives` writes, then fails for good, as a cut session does."""

    def __init__(self, lives: int, *, exclusive_create: bool = True) -> None:
        super().__init__(exclusive_create=exclusive_create)
        self.lives = lives

    def create(self, name: str, content: Content) -> None:
        if self.lives == 0:
            raise StoreUnavailable("the session was cut")
        super().create(name, content)
        self.lives -= 1
