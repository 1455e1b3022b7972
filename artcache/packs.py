"""One store's packs, as they are read: from the trash too, into memory that is used again, and
ahead of who decodes them. Only `repository` imports it."""

from __future__ import annotations

import contextlib
import mmap
import threading
from collections.abc import Callable, Iterator, Sequence

from .ahead import MEMORY, Ahead
from .errors import ObjectNotFound
from .layout import TRASH, pack_name
from .manifest import Manifest, Pack
from .shares import Shares
from .store import Abortable, Filling, Store, Streaming

_MEMORY = Shares(MEMORY, most=2)
"""Bytes that all restores under way may have read and not decoded; as `pack` has it for theirs."""


class Packs:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._local = threading.local()
        self._moved: dict[str, str] = {}
        self._reading: list[Ahead] = []

    def fetch(self, pack: Pack, offset: int, length: int) -> bytes:
        """Some bytes of a pack; from the trash too, if `gc` moved it a moment ago."""
        name = pack_name(pack.blake3)
        try:
            return self._store.get_range(self._moved.get(name, name), offset, length)
        except ObjectNotFound:
            for found in self._store.list(f"{TRASH}/{pack.blake3}"):
                with contextlib.suppress(ObjectNotFound):
                    data = self._store.get_range(found.name, offset, length)
                    self._moved[name] = found.name
                    return data
            self._moved.pop(name, None)
            return self._store.get_range(name, offset, length)  # it may be back by now

    def lend(self, pack: Pack, offset: int, length: int) -> bytes | memoryview:
        """`fetch` into memory of the calling thread's, good until its next call."""
        name = pack_name(pack.blake3)
        if isinstance(self._store, Filling) and name not in self._moved:
            if len(getattr(self._local, "memory", b"")) < length:
                # Not of malloc, which keeps a few MB of what each thread gave back.
                self._local.memory = mmap.mmap(-1, (length >> 20) + 1 << 20)
            out = memoryview(self._local.memory)[:length]
            with contextlib.suppress(ObjectNotFound):
                self._store.fill(name, offset, out)
                return out
        return self.fetch(pack, offset, length)

    @contextlib.contextmanager
    def ahead(
        self, manifest: Manifest, there: Sequence[int], arrived: Callable[[int], object]
    ) -> Iterator[Ahead | None]:
        """Reads what is not there of a far store; None for one that is near."""
        if not (most := self._store.traits.parallel):
            yield None
            return
        with _MEMORY.one() as share:
            # What does not stream makes new memory for each read, twice for a moment.
            memory = share() if isinstance(self._store, Streaming) else share() // 2
            with Ahead(
                manifest, there, self._stream, most=most, memory=memory, abort=self.abort,
                arrived=arrived,
            ) as ahead:  # fmt: skip
                self._reading.append(ahead)
                try:
                    yield ahead
                finally:
                    self._reading.remove(ahead)

    def _stream(
        self, pack: Pack, offset: int, out: memoryview, came: Callable[[int], object]
    ) -> bytes | memoryview:
        name = pack_name(pack.blake3)
        if isinstance(self._store, Streaming) and name not in self._moved:
            with contextlib.suppress(ObjectNotFound):
                self._store.stream(name, offset, out, came)
                return out
        return self.fetch(pack, offset, len(out))

    def abort(self) -> None:
        """End the reads under way, if the store can."""
        for ahead in tuple(self._reading):
            ahead.stop()
        if isinstance(self._store, Abortable):
            self._store.abort()
