"""One store's artifacts: how they are published, found and restored; `layout` has the names.

Pack first, manifest last; the first manifest wins. Readers look for both forms
of a manifest's name, since one folder may be a real disk to one machine and a
Drive mount to another. For `cache` only.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from . import digest
from .errors import (
    ArtcacheError,
    Corrupt,
    NewerFormat,
    ObjectExists,
    ObjectNotFound,
    OverLimit,
    StoreUnavailable,
    UsageError,
)
from .key import Key
from .late import late
from .layout import MANIFESTS, ROOT, UNIQUE, Listed, listed, manifest_name, root_object
from .layout import pack_name as pack_name
from .layout import siblings_folder as siblings_folder
from .manifest import MAX_BYTES, Manifest, Pack
from .opening import Fetch, open_frame
from .pack import Progress, unpack
from .packs import Packs
from .partial import Partial
from .store import Probed, Store

_MOST_SIBLINGS = 1000
_TIMED = 4 << 20
"""Bytes of a pack from which its upload tells how quick the link is."""
_BAD_HINT = (ObjectNotFound, OverLimit, UsageError, ValueError, RecursionError)


class Found(NamedTuple):
    manifest: Manifest
    name: str
    """The object's name in the store."""
    data: bytes
    """The manifest as it was published, byte for byte."""


class Published(NamedTuple):
    url: str
    first: bool
    """False: somebody else's manifest was there, and stays."""
    winner: Manifest
    durable: bool
    """False where the bytes may still wait on this machine (a mounted Drive)."""


class Repository:
    def __init__(self, store: Store) -> None:
        self.store = store
        self.problems: list[str] = []
        """Objects that were found bad and what became of them; the caller reports them."""
        self.upload_rate = 0.0
        """Bytes a second at which the store took the last pack of some size; 0.0: none yet."""
        self._packs = Packs(store)

    @property
    def url(self) -> str:
        return self.store.url

    # -- finding --------------------------------------------------------------------------

    def find(self, key: Key, admit: Callable[[int], object] = lambda length: None) -> Found | None:
        """The artifact of that key, if the store has a sound manifest for it.

        A bad manifest is quarantined and noted in `problems`.

        Args:
            admit: Called with a manifest's length before it is parsed, which takes ten times
                the memory; returns when there is room.

        Raises:
            NewerFormat, OverLimit: the only manifest there is one that this version
                can't read.
            StoreUnavailable: the store does not answer.
        """
        unreadable: NewerFormat | OverLimit | None = None
        for name in self._names(key):
            try:
                if found := self._read(name, key, admit):
                    return found
            except (NewerFormat, OverLimit) as error:
                unreadable = error
        if unreadable:
            raise unreadable
        return None

    def _names(self, key: Key) -> Iterator[str]:
        """Where its manifest may be; many machines may have published, and all choose alike."""
        folder = f"{MANIFESTS}/{key.recipe}/{key.hash}"
        yield f"{folder}.json"
        yield from sorted(
            entry.name
            for entry in self.store.list(folder)
            if UNIQUE.fullmatch(entry.name.removeprefix(f"{folder}/"))
        )

    def _read(
        self, name: str, key: Key | None, admit: Callable[[int], object] = lambda length: None
    ) -> Found | None:
        try:
            data = self.store.get(name, limit=MAX_BYTES)
        except ObjectNotFound:
            return None
        admit(len(data))
        try:
            manifest = Manifest.from_bytes(data)
            if key and manifest.key != key:
                different = ", ".join(d.field for d in key.differences(manifest.key))
                raise Corrupt(f"its fields are not the key's ({different})")
            if not manifest.packed:
                raise Corrupt("it names no pack")
            named = UNIQUE.fullmatch(name.rpartition("/")[2])
            if named and digest.blake3(data) != named[1]:
                raise Corrupt("its bytes are not those of its name")
        except NewerFormat as error:
            raise NewerFormat(f"{self.url}: {name} is {error}", hint=error.hint) from None
        except Corrupt as error:
            self.set_aside(name, str(error))
            return None
        return Found(manifest, name, data)

    def set_aside(self, name: str, why: str) -> None:
        """Quarantine an object, or say that it could not be done."""
        if not self.store.traits.writable:
            self.problems.append(f"{self.url}: {name} is corrupt ({why})")
            return
        try:
            where = self.store.quarantine(name)
        except ObjectNotFound:
            self.problems.append(f"{self.url}: {name} is gone")
        except ArtcacheError as error:
            self.problems.append(
                f"{self.url}: {name} is corrupt ({why}) and could not be moved away: {error}"
            )
        else:
            self.problems.append(f"{self.url}: {name} is corrupt ({why}); moved to {where}")

    def manifests(self, recipe: str | None = None) -> Iterator[Listed]:
        """Every manifest in the store, by name alone."""
        for entry in self.store.list(f"{MANIFESTS}/{recipe}" if recipe else MANIFESTS):
            if found := listed(*entry):
                yield found

    def read(self, one: Listed) -> Manifest | None:
        """A listed manifest; None if it went away or was bad (see `problems`)."""
        found = self._read(one.name, None)
        if not found:
            return None
        key = found.manifest.key
        if (key.recipe, key.hash) != (one.recipe, one.hash):
            self.set_aside(one.name, f"it is of {key.recipe} {key.hash[:12]}")
            return None
        return found.manifest

    def siblings(self, key: Key) -> Iterator[Key]:
        """Keys that artifacts in this store may have, differing in `FLEXIBLE` fields only.

        Hints: `find` decides. The newest come first, a bad one is passed over.
        """
        listed = sorted(self.store.list(siblings_folder(key)), key=lambda found: -found.modified)
        for entry in listed[:_MOST_SIBLINGS]:
            with contextlib.suppress(*_BAD_HINT):
                sibling = Key(json.loads(self.store.get(entry.name, limit=1 << 16)))
                if siblings_folder(sibling) == siblings_folder(key):
                    yield sibling

    # -- restoring ------------------------------------------------------------------------

    def restore(
        self,
        found: Found,
        partial: Partial,
        progress: Progress = lambda count: None,
        *,
        around: Callable[[Fetch], Fetch] = lambda fetch: fetch,
        arrived: Callable[[int], object] = lambda count: None,
    ) -> Path:
        """Unpack the artifact into the partial's tree, and return that.

        Args:
            partial: Of this manifest. What it has already is not read again.
            around: Puts something around the reading of each frame's stored bytes.
            arrived: Told how many stored bytes came of frames that are still under way, if
                that can be known.

        Raises:
            Corrupt: a byte is not what was published, or the pack is gone, twice in
                a row. The manifest, and the pack if it is there, are quarantined.
            StoreUnavailable: the store stopped answering.
        """

        parallel = 0 if self.store.traits.exclusive_create else 2  # mounts answer late

        def read(into: Path) -> None:
            with self._packs.ahead(found.manifest, partial.done, arrived) as ahead:
                partial.stamps = unpack(
                    found.manifest,
                    around(ahead.fetch if ahead else self.lend),
                    into,
                    again=around(self.lend),
                    loans=ahead,
                    parallel=parallel,
                    abort=self.abort,
                    progress=progress,
                    there=partial.done,
                    mark=partial.mark,
                )

        if any(partial.done):
            with contextlib.suppress(Corrupt, ObjectNotFound):  # not the store's fault
                read(partial.tree)
                return partial.tree
        return self.read_twice(found, partial.afresh, read)

    def read_twice(
        self, found: Found, afresh: Callable[[], Path], read: Callable[[Path], object]
    ) -> Path:
        """Have `read` fill the empty folder that `afresh` makes, once more if what it read was bad.

        Raises as `restore` does.
        """
        for _ in range(2):
            into = afresh()
            try:
                read(into)
                return into
            except (Corrupt, ObjectNotFound) as error:
                failure = error  # once may be this machine's own accident
        if note := late(self.store, found.name, failure):
            self.problems.append(note)
            raise Corrupt(note) from failure
        bad = self.bad_packs(found.manifest)
        for pack, why in bad.items():
            self.set_aside(pack_name(pack.blake3), why)
        if not bad or self.store.traits.writable:  # without its pack it is none
            self.set_aside(found.name, str(failure))
        raise Corrupt(f"{self.url}: {failure}") from failure

    def fetch(self, pack: Pack, offset: int, length: int) -> bytes:
        """As `Packs.fetch`."""
        return self._packs.fetch(pack, offset, length)

    def lend(self, pack: Pack, offset: int, length: int) -> bytes | memoryview:
        """As `Packs.lend`."""
        return self._packs.lend(pack, offset, length)

    def bad_packs(self, manifest: Manifest) -> dict[Pack, str]:
        """Read every stored byte of an artifact; the packs that fail, each with why."""
        local, bad = threading.local(), {}
        for frame in manifest.frames:
            pack = manifest.packs[frame.pack]
            if pack in bad:
                continue
            try:
                open_frame(pack, frame, self.lend, local)
            except (Corrupt, ObjectNotFound) as error:
                bad[pack] = str(error)
        return bad

    def abort(self) -> None:
        """End the reads under way, if the store can."""
        self._packs.abort()

    # -- publishing -----------------------------------------------------------------------

    def probe(self) -> None:
        """Find out whether anything can be published, at the price of at most one small write.

        Raises:
            StoreDenied: it cannot.
            StoreUnavailable: the store does not answer.
        """
        if isinstance(self.store, Probed):
            self.store.probe()
        else:
            self._mark()  # a server looks at who asks before it looks whether the name is free

    def publish(
        self,
        manifest: Manifest,
        pack_files: Callable[[Pack], Path],
        data: bytes = b"",
        there: Collection[Pack] = (),
    ) -> Published:
        """Store an artifact: packs first, manifest last.

        Args:
            pack_files: The local file of each pack.
            data: The manifest's bytes if it was published before: they stay the same.
            there: Packs that the store holds already.

        Raises:
            StoreUnavailable: it could not be stored; nothing half-done is visible.
        """
        self._mark()
        for pack in (pack for pack in manifest.packs if pack not in there):
            self._put_pack(pack, pack_files(pack))
        data, traits = data or manifest.to_bytes(), self.store.traits
        name = manifest_name(manifest.key, "" if traits.exclusive_create else digest.blake3(data))
        for _ in range(3):
            # Under both forms of a name: whoever was first stays. A bad one is moved away.
            if winner := self.find(manifest.key):
                return Published(self.url, False, winner.manifest, traits.durable_on_return)
            try:
                self.store.create(name, data)
            except ObjectExists:
                continue
            for pack in manifest.packs:
                if not self.holds([pack]):  # `gc` moved it before it could see who names it
                    self._put_pack(pack, pack_files(pack))
            self._hint(manifest.key)
            return Published(self.url, True, manifest, traits.durable_on_return)
        raise StoreUnavailable(f"{self.url}: {name} is bad and cannot be replaced")

    def holds(self, packs: Sequence[Pack]) -> bool:
        """Whether every pack is there with its length; its bytes are not read."""
        try:
            return all(self.store.size(pack_name(pack.blake3)) == pack.length for pack in packs)
        except ObjectNotFound:
            return False

    def _put_pack(self, pack: Pack, file: Path) -> None:
        name = pack_name(pack.blake3)
        for _ in range(3):
            try:
                start = time.monotonic()
                self.store.create(name, file)
                if pack.length >= _TIMED:
                    self.upload_rate = pack.length / (time.monotonic() - start + 1e-6)
                return
            except ObjectExists:
                # A writer that was killed may have left a part of it (a mount has no rename).
                with contextlib.suppress(ObjectNotFound):
                    if self.store.size(name) == pack.length:
                        return
                    self.set_aside(name, "it is not whole")
        raise StoreUnavailable(f"{self.url}: {name} is not whole and cannot be replaced")

    def _hint(self, key: Key) -> None:
        """List the key among its siblings; without it only exact fetches find the artifact."""
        with contextlib.suppress(ArtcacheError):
            self.store.create(f"{siblings_folder(key)}/{key.hash}.json", key.canonical)

    def _mark(self) -> None:
        with contextlib.suppress(ObjectExists):
            now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
            self.store.create(ROOT, root_object(now))

    def remove(self, key: Key) -> list[str]:
        """Remove an artifact's manifests; packs, which others may share, are left to `gc`."""
        removed = []
        for name in self._names(key):
            with contextlib.suppress(ObjectNotFound):
                self.store.size(name)
                self.store.delete(name)
                removed.append(name)
        return removed
