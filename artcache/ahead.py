"""Reads runs of neighbouring frames of a far store, one request each, ahead of the threads that
decode them. Only `repository` imports it.

Which frames a restore wants, and in which order, is known from its manifest; so threads of its
own read them into one ring of memory, in that order, and a frame is handed out as soon as its
own bytes came, while its run is still being read. Long runs therefore cost neither time nor
memory that single frames would not, and a run that breaks off loses no frame that was whole.
"""

from __future__ import annotations

import contextlib
import mmap
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from .errors import StoreUnavailable
from .link import Link
from .manifest import Manifest, Pack

MEMORY = 32 << 20
_NOTICED = 256 << 10
"""Bytes after which it is noticed that some came, also where no frame is whole yet."""

Read = Callable[[Pack, int, memoryview, Callable[[int], object]], "bytes | memoryview"]
"""(pack, offset, out, came): fill `out` and return it, or other memory with these bytes; `came`
as for `store.Streaming`."""


class Ring:
    """Places in a piece of memory, given away in its order and given back in about that order."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._taken: deque[list[int]] = deque()
        """[place, length, whether it is still in use], the oldest first."""

    def find(self, lengths: Sequence[int]) -> tuple[int, int]:
        """A place where these lengths may lie one behind the other, and how many of them: all,
        or at least half of the bytes where the memory ends sooner; 0: there is no room now.

        Args:
            lengths: The first of them fits into the whole memory.
        """
        for start, end in self._gaps():
            place, count = start, 0
            while count < len(lengths) and place + lengths[count] <= end:
                place, count = place + lengths[count], count + 1
            if count == len(lengths) or (end == self._size and 2 * (place - start) >= sum(lengths)):
                return start, count
        return 0, 0

    def take(self, place: int, lengths: Sequence[int]) -> None:
        """Use what `find` found."""
        for length in lengths:
            self._taken.append([place, length, True])
            place += length

    def _gaps(self) -> list[tuple[int, int]]:
        if not self._taken:
            return [(0, self._size)]
        oldest, newest = self._taken[0][0], sum(self._taken[-1][:2])
        if self._taken[-1][0] >= oldest:
            return [(newest, self._size), (0, oldest)]
        return [(newest, oldest)]

    def give(self, place: int) -> None:
        """One of the lengths is free again; its memory once all older ones are."""
        next(entry for entry in self._taken if entry[0] == place)[2] = False
        while self._taken and not self._taken[0][2]:
            self._taken.popleft()


class _Wanted(NamedTuple):
    """A frame that is to be read."""

    number: int
    pack: Pack
    offset: int
    length: int


class _Run(NamedTuple):
    frames: Sequence[_Wanted]
    place: int
    """In the ring."""

    @property
    def length(self) -> int:
        return sum(frame.length for frame in self.frames)


def _memory(size: int) -> memoryview:
    memory = mmap.mmap(-1, size)
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)  # 8,000 faults less: a part in 20 of a read's CPU
    return memoryview(memory)


class Ahead:
    """A restore's frames. `with` ends the threads; `fetch`, `back` and `left` are for
    `pack.unpack`, whose threads ask for each frame once, in about the manifest's order."""

    def __init__(
        self,
        manifest: Manifest,
        there: Sequence[int],
        read: Read,
        *,
        most: int,
        memory: int = MEMORY,
        abort: Callable[[], object],
        arrived: Callable[[int], object] = lambda count: None,
    ) -> None:
        """Args:
        there: For each frame whether it is not to be read; empty: all are.
        read: Called from several threads.
        most: Reads that the store likes at once.
        memory: Bytes of frames that were asked for and are not decoded yet; more only if a
            single frame has more.
        abort: Ends the reads under way.
        arrived: Called with the bytes that came since the last call, from any thread;
                it does not take long.
        """
        self._wanted = deque(
            _Wanted(number, manifest.packs[frame.pack], frame.offset, frame.stored)
            for number, frame in enumerate(manifest.frames)
            if not (there and there[number])
        )
        self._numbers: dict[tuple[Pack, int], deque[int]] = {}
        for frame in self._wanted:
            self._numbers.setdefault((frame.pack, frame.offset), deque()).append(frame.number)
        self._left = sum(frame.length for frame in self._wanted)
        longest = max((frame.length for frame in self._wanted), default=1)
        size = max(longest, min(memory, self._left))
        self._memory = _memory(size)
        self._ring, self.link = Ring(size), Link(most, size)
        self._read, self._abort, self._arrived = read, abort, arrived
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._lengths: Sequence[int] = ()
        """Of the run that waits for room; empty: none does."""
        self._waiting: dict[int, threading.Condition] = {}
        """By number, who waits for a frame: only they are woken."""
        self._coming: set[int] = set()
        self._whole: dict[int, tuple[int, bytes | memoryview]] = {}
        """By number: its place and bytes; until it is fetched."""
        self._held = threading.local()
        self._failed: BaseException | None = None
        self._stopped = self._over = False
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Ahead:
        try:
            with self._lock:
                self._start_threads()
        except BaseException as error:
            self.__exit__(type(error))
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is KeyboardInterrupt:  # perhaps before anybody waited for a frame
            self.stop()
        self._over = True
        self._end(StoreUnavailable("the restore is over"))
        for thread in self._threads:
            while thread.is_alive():
                if self._stopped:
                    self._abort()  # again and again: it may have begun its read just after
                thread.join(0.2)

    def stop(self) -> None:
        """The reads are being aborted: nothing begins any more, and whoever waits gets an error."""
        self._stopped = True
        self._end(StoreUnavailable("interrupted"))

    def _end(self, why: BaseException) -> None:
        with self._lock:
            self._failed = self._failed or why
            self._room.notify_all()
            for waiting in self._waiting.values():
                waiting.notify()

    # -- for the threads that decode ------------------------------------------------------

    def fetch(self, pack: Pack, offset: int, length: int) -> bytes | memoryview:
        """An `opening.Fetch` for the frames that are to be read; `back` says that it was used.

        Raises:
            ArtcacheError: what the store raised, for this frame or an earlier one.
        """
        with self._lock:
            number = self._numbers[pack, offset].popleft()
            self.link.asked(waited=number not in self._whole)
            while number not in self._whole:
                if self._failed and (self._stopped or number not in self._coming):
                    raise self._failed
                waiting = self._waiting[number] = threading.Condition(self._lock)
                waiting.wait()
                del self._waiting[number]
            place, data = self._whole.pop(number)
        self._held.place = place
        return data

    def back(self) -> None:
        """The calling thread is done with what `fetch` gave it last, if it gave anything."""
        if (place := getattr(self._held, "place", None)) is not None:
            self._held.place = None
            with self._lock:
                self._ring.give(place)
                if self._lengths and self._ring.find(self._lengths)[1]:
                    self._room.notify()

    def left(self, number: int) -> bool:
        """After an error: whether `fetch` still gives this frame, or one behind it."""
        with self._lock:
            coming = () if self._stopped else self._coming
            return any(one >= number for one in (*self._whole, *coming))

    # -- the threads that read ------------------------------------------------------------

    def _start_threads(self) -> None:
        while len(self._threads) < min(self.link.connections, len(self._wanted)):
            name, number = "artcache read", len(self._threads)
            thread = threading.Thread(target=self._work, args=(number,), name=name, daemon=True)
            self._threads.append(thread)
            thread.start()

    def _work(self, number: int) -> None:
        while run := self._next(number):
            self._bring(run)

    def _next(self, number: int) -> _Run | None:
        """What to read now, once there is room for it; None: nothing any more."""
        with self._lock:
            while self._wanted and not self._failed and number < self.link.connections:
                frames = self._neighbours()
                lengths = [frame.length for frame in frames]
                place, count = self._ring.find(lengths)
                if count:
                    self._ring.take(place, lengths[:count])
                    self._room.notify()  # there may be more
                    return self._taken(frames[:count], place)
                self._lengths = lengths
                self._room.wait()
                self._lengths = ()
            self._room.notify_all()
        return None

    def _neighbours(self) -> Sequence[_Wanted]:
        """The next frames, as many as lie behind one another and the link is good for."""
        most, found = self.link.length(self._left), [self._wanted[0]]
        length, last = found[0].length, found[0]
        for index in range(1, len(self._wanted)):
            frame = self._wanted[index]
            length += frame.length
            if frame[1:3] != (last.pack, last.offset + last.length) or length > most:
                break
            found.append(frame)
            last = frame
        return found

    def _taken(self, frames: Sequence[_Wanted], place: int) -> _Run:
        for frame in frames:
            self._wanted.popleft()
            self._coming.add(frame.number)
            self._left -= frame.length
        return _Run(frames, place)

    def _bring(self, run: _Run) -> None:
        """Read a run, and hand over each frame once its bytes are there."""
        out = self._memory[run.place : run.place + run.length]
        waiting = deque(run.frames)
        asked = time.monotonic()
        start = seen = until = 0
        first = 0.0

        def here(done: int, data: bytes | memoryview) -> None:
            nonlocal start, seen, until
            self.link.came(done - seen)
            self._arrived(done - seen)
            seen = done
            while waiting and start + waiting[0].length <= done:
                end = start + waiting[0].length
                self._hand_over(waiting.popleft(), run.place + start, memoryview(data)[start:end])
                start = end
            until = min(done + _NOTICED, start + waiting[0].length if waiting else done)

        def came(done: int) -> None:
            nonlocal first
            if self._over or self._stopped:
                raise StoreUnavailable("interrupted")
            if done >= until:
                first = first or time.monotonic()
                with self._lock:
                    here(done, out)

        try:
            data = self._read(run.frames[0].pack, run.frames[0].offset, out, came)
        except BaseException as error:
            with self._lock:
                self._coming.difference_update(frame.number for frame in waiting)
            self._end(error)
            return
        now = time.monotonic()
        with self._lock:
            here(run.length, data)
            first = first or asked  # of what does not stream
            self.link.ended(run.length, first - asked, now - first, now)
            self._start_threads()

    def _hand_over(self, frame: _Wanted, place: int, data: memoryview) -> None:
        self._whole[frame.number] = place, data
        self._coming.discard(frame.number)
        if frame.number in self._waiting:
            self._waiting[frame.number].notify()
