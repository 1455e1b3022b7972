"""The local home: verified trees, staged out of sight and renamed into place whole.

<home>/v1/entries/<recipe>/<hash>/   seal.json, manifest.json, tree/
<home>/v1/tmp/<random>/              being made; swept when its maker is gone
<home>/v1/partial/                   restores that were cut, see `partial`
<home>/v1/locks/                     one maker of an entry at a time on this machine
<home>/v1/logs/<recipe>/             of builds
<home>/v1/quarantine/                entries that were found broken
<home>/v1/pending/                   interrupted installs, see `install`
<home>/v1/pins/                      entries that `gc` leaves alone, see `pins`
<home>/v1/downloads/                 what recipes fetched, checked by digest
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import seal as seals
from .disk import boot_id, disk_errors, remove_tree, replace_file, spread, sweep
from .errors import ArtcacheError, Busy, Corrupt, LocalDisk
from .key import Key
from .seal import Seal, Trust

if TYPE_CHECKING:
    from .manifest import Manifest
    from .memory import Memory

_MAKING = 60.0
"""Seconds; the maker of a folder may be about to lock it."""
SUPPLIED = "supplied.json"
"""Beside a tree: the folders that its shared libraries come from, written by `supply`."""


class Entry:
    """A tree in the home that passed its check just now."""

    __slots__ = ("_manifest", "_seal", "key")

    def __init__(self, key: Key, seal: Seal, manifest: Manifest | None = None) -> None:
        """Args:
        manifest: What the entry's file of that name holds, if it is known.
        """
        self.key = key
        self._seal = seal
        self._manifest = manifest

    @property
    def path(self) -> Path:
        return Path(self._seal.tree)

    @property
    def tree(self) -> str:
        """`path` as a string: making a Path costs as much as a part of a warm hit."""
        return self._seal.tree

    @property
    def entry_folder(self) -> str:
        """What holds the tree, its manifest and its seal."""
        return self._seal.folder

    @property
    def lacks_libraries(self) -> bool:
        """Whether its binaries need shared libraries that nobody saw to yet, or that went away."""
        if not self._seal.body["needs"]:
            return False
        try:
            with open(f"{self._seal.folder}/{SUPPLIED}", "rb") as file:
                return not all(os.path.exists(source) for source in json.loads(file.read()))
        except (OSError, ValueError):
            return True

    @property
    def folder(self) -> Path:
        return Path(self._seal.folder)

    @property
    def origin(self) -> str:
        """Where it came from when it was made: `built`, or a store's URL."""
        return str(self._seal.body["origin"])

    @property
    def build_seconds(self) -> float:
        return float(self._seal.body["milliseconds"]) / 1000

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return int(self._seal.body["size"])

    @property
    def made(self) -> float:
        """Seconds since the epoch."""
        return self._seal.stamp[0] / 1e9

    @property
    def used(self) -> float:
        """When it was last used, in seconds since the epoch."""
        return os.stat(f"{self._seal.folder}/{seals.NAME}").st_atime

    def manifest(self) -> Manifest:
        """Raises `Corrupt`."""
        if self._manifest is not None:
            return self._manifest
        from .manifest import Manifest

        path = self.folder / "manifest.json"
        try:
            return Manifest.from_bytes(path.read_bytes())
        except OSError as error:
            raise Corrupt(f"{path}: {error.strerror}") from error

    def forget_files(self) -> None:
        """Hold no list of the tree's files: both are read again when they are needed."""
        self._manifest = None
        self._seal.forget_files()


class Home:
    def __init__(self, root: Path) -> None:
        self.root = root
        self._v1 = f"{root}/v1"

    @property
    def url(self) -> str:
        return str(self.root)

    def folder(self, name: str) -> Path:
        """A folder of the home, by its name in the layout above. It need not exist."""
        return Path(self._v1, name)

    # -- reading --------------------------------------------------------------------------

    def lookup(self, key: Key, *, verify: bool = False) -> Entry | None:
        """The entry of that key, if it is there and sound.

        Args:
            verify: Read every byte against its digest.

        Raises:
            Corrupt: it is there and broken; `quarantine` takes it away.
        """
        folder = f"{self._v1}/entries/{key.recipe}/{key.hash}"
        try:
            seal = seals.read(folder)
        except ValueError as error:
            raise Corrupt(f"{key.recipe} {key.hash[:12]} in the home: {error}") from None
        if seal is None:
            if os.path.lexists(folder):
                raise Corrupt(f"{key.recipe} {key.hash[:12]} in the home has no seal")
            return None
        if _key_of(seal) != key:
            raise Corrupt(f"{key.recipe} {key.hash[:12]} in the home belongs to another key")
        trust, why = seal.trust()
        if trust is Trust.BROKEN:
            raise Corrupt(f"{key.recipe} {key.hash[:12]} in the home: {why}")
        entry = Entry(key, seal)
        if verify or trust is Trust.READ_ALL:
            manifest = self._read_all(entry)
            if trust is Trust.READ_ALL:
                entry = self._sealed_anew(entry, manifest)
        seal.touch()
        return entry

    def _read_all(self, entry: Entry) -> Manifest:
        """Check every byte."""
        from .tree import differing

        manifest = entry.manifest()
        if manifest.key != entry.key:
            raise Corrupt(f"{entry.folder}: its manifest belongs to another key")
        if problems := differing(entry.path, manifest.files, manifest.links):
            raise Corrupt(
                f"{entry.key.recipe} {entry.key.hash[:12]} in the home: " + "; ".join(problems[:5])
            )
        return manifest

    def _sealed_anew(self, entry: Entry, manifest: Manifest) -> Entry:
        """For a tree of an earlier boot that was just read: it came from the disk."""
        with contextlib.suppress(LocalDisk):
            self._write_seal(entry.folder, manifest, entry.origin, durable=True)
        seal = seals.read(str(entry.folder))
        assert seal
        return Entry(entry.key, seal)

    def entries(self, recipe: str | None = None) -> Iterator[Entry | Corrupt]:
        """All entries, without a look at their trees; a broken one as its error."""
        top = self.folder("entries")
        for folder in sorted(top.glob(f"{recipe or '*'}/*")):
            try:
                found = seals.read(str(folder))
                if found is None:
                    raise ValueError(f"{folder} has no seal")
                key = _key_of(found)
                if key is None:
                    raise ValueError(f"{folder} has a seal without a key")
                yield Entry(key, found)
            except ValueError as error:
                yield Corrupt(str(error))

    @property
    def memory(self) -> Memory:
        from .memory import Memory

        return Memory(Path(self._v1))

    # -- writing --------------------------------------------------------------------------

    @contextlib.contextmanager
    def staging(self) -> Iterator[Path]:
        """An empty folder on the home's disk, gone at the end whatever happens."""
        import fcntl

        top, handle = self.folder("tmp"), -1
        folder = top / os.urandom(8).hex()
        try:
            with disk_errors(self.root, doing="make a folder"):
                top.mkdir(parents=True, exist_ok=True)
                spread(top)
                sweep(top, _MAKING)
                folder.mkdir()
            handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield folder
        finally:
            try:
                remove_tree(folder)
            except KeyboardInterrupt:  # it came while all was over
                remove_tree(folder)
                raise
            finally:
                if handle >= 0:
                    os.close(handle)

    def commit(
        self,
        staged: Path,
        manifest: Manifest,
        origin: str,
        *,
        data: bytes = b"",
        stamps: Sequence[int] = (),
    ) -> Entry:
        """Make `staged` (a folder in a staging folder, holding `tree`) the manifest's entry.

        The entry appears whole or not at all. If there is one already, it stays
        and is returned.

        Args:
            data: The manifest's bytes, if it has some already.
            stamps: Each file's modification time in ns, if whoever wrote them saw it.

        Raises:
            LocalDisk: the disk is full or not ours.
        """
        key = manifest.key
        target = self.folder("entries") / key.recipe / key.hash
        with disk_errors(self.root, doing="store the tree"):
            (staged / "manifest.json").write_bytes(data or manifest.to_bytes())
            body = self._write_seal(staged, manifest, origin, durable=False, stamps=stamps)
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                staged.rename(target)
                return Entry(key, seals.just_written(str(target), body), manifest)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
        entry = self.lookup(key)
        if entry is None:
            raise LocalDisk(f"the tree could not be moved to {target}")
        return entry

    def _write_seal(
        self,
        folder: Path,
        manifest: Manifest,
        origin: str,
        *,
        durable: bool,
        stamps: Sequence[int] = (),
    ) -> dict[str, Any]:
        facts = {
            "fields": manifest.key.fields,
            "origin": origin,
            "size": manifest.size,
            "needs": manifest.needs.sonames,
            "milliseconds": round(manifest.build_seconds * 1000),
        }
        if not durable and not boot_id():
            os.sync()  # no way to notice a crash later, so pay for it now
            durable = True
        with disk_errors(self.root, doing="seal the tree"):
            rows = seals.rows_of(f"{folder}/tree", manifest, stamps)
            body = seals.make(rows, facts, durable=durable)
            replace_file(folder / seals.NAME, seals.encoded(body))
        return body

    def quarantine(self, key: Key) -> Path:
        """Take a broken entry out of the way; returns where it is now."""
        source = self.folder("entries") / key.recipe / key.hash
        aside = self.folder("quarantine")
        target = aside / f"{key.recipe}.{key.hash}.{time.time_ns():x}"
        with disk_errors(self.root, doing="set a broken tree aside"):
            aside.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # another process was quicker
                source.rename(target)
        return target

    def remove(self, key: Key) -> bool:
        """Remove an entry; False if there was none."""

        source = self.folder("entries") / key.recipe / key.hash
        top = self.folder("tmp")
        with disk_errors(self.root, doing="remove the tree"):
            top.mkdir(parents=True, exist_ok=True)
            doomed = top / os.urandom(8).hex()
            try:
                source.rename(doomed)
            except FileNotFoundError:
                return False
            remove_tree(doomed)
        return True

    @contextlib.contextmanager
    def lock(
        self, key: Key, *, waiting: Callable[[str], None], wait: bool = True
    ) -> Iterator[None]:
        """Be the only one on this machine who makes this entry. The kernel frees it on death.

        Args:
            waiting: Called once, with who holds it, if it has to be waited for.

        Raises:
            Busy: it is held and `wait` is False.
        """
        import fcntl

        path = self.folder("locks") / f"{key.recipe}.{key.hash}"
        with disk_errors(self.root, doing="lock the entry"):
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = _open_lock(path)
        try:
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    other = os.pread(handle, 200, 0).decode(errors="replace") or "another process"
                    if not wait:
                        raise Busy(f"{other} is making {key.recipe} {key.hash[:12]}") from None
                    waiting(other)
                    fcntl.flock(handle, fcntl.LOCK_EX)
                if _is_at(path, handle):
                    break
                os.close(handle)  # `gc` removed it before we held it
                handle = _open_lock(path)
            note = f"process {os.getpid()} since {time.strftime('%H:%M:%S')}"
            with contextlib.suppress(OSError):  # it is only for messages, and a disk may be full
                os.ftruncate(handle, 0)
                os.pwrite(handle, note.encode(), 0)
            yield
        finally:
            os.close(handle)

    def new_log(self, key: Key) -> Path:
        """A path for a build's log; its folder exists. The ten newest of a recipe are kept."""
        top = self.folder("logs") / key.recipe
        with disk_errors(self.root, doing="make a log"):
            top.mkdir(parents=True, exist_ok=True)
            for old in sorted(top.glob("*.log"))[:-9]:  # their names begin with the time
                old.unlink(missing_ok=True)
        return top / f"{time.strftime('%Y%m%d-%H%M%S')}-{key.hash[:12]}-{os.getpid()}.log"


def _key_of(seal: Seal) -> Key | None:
    """The key in a seal; None if what is there is none."""
    try:
        return Key(seal.body["fields"])
    except (ArtcacheError, KeyError):
        return None


def _open_lock(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)


def _is_at(path: Path, handle: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(handle))
    except FileNotFoundError:
        return False
