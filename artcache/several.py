"""Several fetches at once: what is cached comes in parallel, what is not is built in turn.

For `cache`. A restore that makes its last files leaves the link to the next one. Builds
wait for each other, since a compiler takes all cores.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from .errors import ArtcacheError, FetchesFailed, Stopped, UsageError
from .events import Observer, Relay
from .fetched import Fetched, Wish

if TYPE_CHECKING:
    from .cache import Cache
    from .fetched import Asked

_AT_ONCE = 3
"""Two that transfer, see `pack`; and one that asks for its manifest, or seals its files."""
_MANIFESTS = 4 << 20
"""Bytes of manifests that are under way at once, unless one alone has more: 50,000 files. Parsed
they take ten times that."""
_PATIENCE = 10.0
"""Seconds for those under way to end after Ctrl-C."""
_AGAIN = 0.2
"""Seconds after which they are told once more: a request may have begun a moment too late."""


def fetch_all(cache: Cache, wanted: Iterable[Asked], **how: Any) -> list[Fetched]:
    """See `Cache.fetch_all`.

    Args:
        how: Arguments of `Cache.wish`, for all.
    """
    if isinstance(wanted, str):
        raise UsageError(f"{wanted!r} is one name", hint=f"fetch_all([{wanted!r}])")
    jobs = [_Job(asked) for asked in wanted]
    for job in jobs:
        with job.failing():
            job.wish = cache.wish(*job.asked, **how)
            job.found = cache.hit(job.wish, at_hand=True)
    if missing := [job for job in jobs if job.wish and not job.found and not job.error]:
        if how.get("build") != "always":
            _restore(cache, missing)
        for job in missing:
            if not job.found and not job.error and job.wish:
                with job.failing():
                    job.wish.start = time.perf_counter()
                    job.found = cache.made(job.wish)
    results = [job.found or job.error for job in jobs]
    if any(job.error for job in jobs):
        raise FetchesFailed([job.name for job in jobs], results)
    return [job.found for job in jobs if job.found]


class _Job:
    """One of them, and what came of it."""

    def __init__(self, asked: Asked) -> None:
        self.asked = asked if isinstance(asked, tuple) else (asked, None)
        recipe = self.asked[0]
        self.name = recipe if isinstance(recipe, str) else recipe.name
        self.wish: Wish | None = None
        self.found: Fetched | None = None
        self.error: ArtcacheError | None = None
        self.crash: BaseException | None = None

    @contextlib.contextmanager
    def failing(self) -> Any:
        """What goes wrong inside is this one's failure, and no other's."""
        try:
            yield
        except ArtcacheError as error:
            self.error = error


# -- restoring ----------------------------------------------------------------------------


def _restore(cache: Cache, jobs: list[_Job]) -> None:
    """Look for each in the stores, several at once; those that nobody has are left as they are."""
    if len(jobs) == 1 or not cache.readers():  # there may be stand-ins in the home
        for job in jobs:
            _look(cache, job)
        return
    _mount(cache)
    crew = _Crew(cache, jobs)
    try:
        crew.work()
    except BaseException:
        crew.stop()
        raise
    for job in jobs:
        if job.crash:
            raise job.crash


def _look(cache: Cache, job: _Job) -> None:
    assert job.wish
    with job.failing():
        job.wish.start = time.perf_counter()
        job.found = cache.hit(job.wish)
        if job.found:
            job.found.entry.forget_files()  # else there are as many lists as artifacts


def _mount(cache: Cache) -> None:
    """Touch each folder from here: a notebook's Drive can be mounted by the main thread only."""
    from .layout import ROOT

    for tier in cache.readers():
        with contextlib.suppress(ArtcacheError):  # whoever reads it is told
            if tier.repository.store.traits.shared_disk:
                tier.repository.store.size(ROOT)


class _Crew:
    """Threads that restore; they end with the work, and so do the files that they keep open."""

    def __init__(self, cache: Cache, jobs: list[_Job]) -> None:
        import copy  # not for hits

        self._up = cache.readers()
        self._together = Together(cache.observer)
        self._cache = copy.copy(cache)
        self._cache.observer = self._together
        self._jobs = iter(jobs)
        self._load = Load(_MANIFESTS)
        for job in jobs:
            if job.wish:
                job.wish.admit = self._load.admit
        self._lock = threading.Lock()
        self._idle, self._working = threading.Condition(), 0
        # Daemons: one that waits for another process's lock holds up nobody's Ctrl-C.
        self._threads = [
            threading.Thread(target=self._run, name="artcache fetch", daemon=True)
            for _ in range(min(_AT_ONCE, len(jobs)))
        ]

    def work(self) -> None:
        for thread in self._threads:
            with self._idle:
                self._working += 1
            thread.start()
        # Not by `join`, which takes a thread for dead when Ctrl-C interrupts it (before 3.13).
        self._wait(None)
        for thread in self._threads:
            thread.join()

    def stop(self) -> None:
        """End all that is under way; what was read is kept for the next time."""
        self._together.stopped = True
        self._load.stop()
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            for tier in self._up:
                with contextlib.suppress(ArtcacheError):
                    if tier.is_open:
                        tier.repository.abort()
            if self._wait(_AGAIN):
                break
        for tier in self._up:
            tier.down = False  # it was stopped by us

    def _wait(self, seconds: float | None) -> bool:
        """Whether all threads are done, after so many seconds at most."""
        with self._idle:
            return self._idle.wait_for(lambda: self._working == 0, seconds)

    def _run(self) -> None:
        try:
            while job := self._next():
                try:
                    _look(self._cache, job)
                except BaseException as error:
                    job.crash = error
                finally:
                    self._load.done()
                    self._together.left()
        finally:
            with self._idle:
                self._working -= 1
                self._idle.notify_all()

    def _next(self) -> _Job | None:
        with self._lock:
            return None if self._together.stopped else next(self._jobs, None)


class Load:
    """What threads have under way, each so much; one more waits until it fits, or is alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._stopped = False
        self._taken: dict[int, int] = {}
        """By thread."""
        self._changed = threading.Condition()

    def admit(self, count: int) -> None:
        """Wait until so much fits; what the calling thread had is done. Raises `Stopped`."""
        self.done()
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._fits(count))
            if self._stopped:
                raise Stopped("interrupted")
            self._taken[threading.get_ident()] = count

    def done(self) -> None:
        with self._changed:
            self._taken.pop(threading.get_ident(), None)
            self._changed.notify_all()

    def stop(self) -> None:
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def _fits(self, count: int) -> bool:
        return not self._taken or sum(self._taken.values()) + count <= self._most


class Together(Relay):
    """Tells as one what several threads do: all that are restored, and the sum of their bytes."""

    def __init__(self, observer: Observer) -> None:
        super().__init__(observer, "interrupted")
        self._lock = threading.Lock()
        self._restores: dict[int, str] = {}
        """By thread."""
        self._bytes: dict[int, tuple[int, int]] = {}
        self._before = (0, 0)

    def phase(self, name: str, detail: str = "") -> None:
        self.check()
        self.left()
        if name == "restore":
            with self._lock:
                self._restores[threading.get_ident()] = detail
                detail = ", ".join(self._restores.values())
        self._observer.phase(name, detail)

    def left(self) -> None:
        """The calling thread is done with what it restored."""
        me = threading.get_ident()
        with self._lock:
            self._restores.pop(me, None)
            self._before = _sum([self._before, self._bytes.pop(me, (0, 0))])

    def progress(self, done: int, total: int) -> None:
        self.check()
        with self._lock:
            self._bytes[threading.get_ident()] = (done, total)
            done, total = _sum([self._before, *self._bytes.values()])
        self._observer.progress(done, total)


def _sum(pairs: list[tuple[int, int]]) -> tuple[int, int]:
    return sum(done for done, _ in pairs), sum(total for _, total in pairs)
