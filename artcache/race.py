"""A fetch that takes longer than the build did: to say so, and to run both. For `restore`.

The fetch goes on where it is; the build runs in a thread, on a cache of its own
(other connections, a quieter observer) that can be stopped at any time. Whoever
is done first claims the entry, and the other one is stopped before it changes
anything.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from .errors import ArtcacheError, Corrupt, SourceUnavailable, Stopped, StoreUnavailable
from .events import Relay
from .manifest import Pack
from .opening import Fetch
from .tier import Tier

if TYPE_CHECKING:
    from .cache import Cache, Wish
    from .home import Entry
    from .process import Runner
    from .recipe import Variant
    from .repository import Found

_LOOK = 0.5
"""Seconds between two looks at the pace."""
_WORTH = 2.0
"""Seconds that the build would save at least, or nothing is said."""
_PATIENCE = 10.0
"""Seconds for a build that lost to come to its end."""
FETCHED, BUILT = "fetched", "built"


def first(
    cache: Cache,
    wish: Wish,
    tier: Tier,
    found: Found,
    variant: Variant | None,
    bring: Callable[[Contest], Entry],
) -> tuple[Entry, str]:
    """The entry and where it is from: what `bring` fetches, or built if that is quicker.

    Args:
        variant: What a build would make; None: nothing of the kind, so nothing races.
        bring: Fetches from `Contest.tier`; its reads go through `Contest.fetch`, and it
            calls `claim` before its tree enters the home.
    """
    contest = Contest(cache, wish, tier, found, variant)
    contest.begin()
    try:
        return bring(contest), tier.url
    except Exception as error:
        built = contest.built_instead(error)
        if built is None:
            raise
        return built, BUILT
    finally:
        contest.end()
        cache.tell_problems(contest.tier)


class Pace:
    """How fast stored bytes arrive, by the reads of the restore itself. For any thread."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._start = 0.0
        self._lock = threading.Lock()
        self._done = self._under_way = self._arrived = 0

    def arrived(self, length: int) -> None:
        """So many bytes came, of frames that were asked for or will be."""
        with self._lock:
            self._arrived += length

    def asked(self, length: int) -> None:
        with self._lock:
            self._start = self._start or time.monotonic()  # not while it waits for its turn
            self._under_way += length

    def came(self, length: int, *, whole: bool) -> None:
        with self._lock:
            self._under_way -= length
            self._done += length * whole

    @property
    def rate(self) -> float:
        """Bytes a second; 0.0 before the first."""
        return self._here / max(time.monotonic() - self._start, 1e-3)

    @property
    def seconds_left(self) -> float:
        rate = self.rate
        left = self.total - self._here
        return max(0.0, left) / rate if rate else 0.0

    @property
    def _here(self) -> float:
        """Bytes. Of what is under way half is taken as come, where no more is known to be."""
        with self._lock:
            return max(self._arrived, self._done + self._under_way / 2)


class Contest:
    """The two ways to one entry, and which of them was first."""

    def __init__(
        self, cache: Cache, wish: Wish, tier: Tier, found: Found, variant: Variant | None
    ) -> None:
        self._cache, self._wish, self._store = cache, wish, tier
        self._variant = variant if wish.race else None
        self._can_race = variant is not None
        self.tier = _opened_anew(tier) if self._variant else tier
        """A connection of its own where there may be a race: its reads may be aborted."""
        self._usual = found.manifest.build_seconds
        self.pace = Pace(sum(pack.length for pack in found.manifest.packs))
        self.winner = ""
        self._rival: Rival | None = None
        self._built: Entry | None = None
        self._error: Exception | None = None
        self._lost_by_store = False
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="artcache race", daemon=True)

    def begin(self) -> None:
        """Watch the pace from now on, if anybody knows how long the build took."""
        if self._usual:
            self._thread.start()

    def fetch(self, inner: Fetch) -> Fetch:
        """`inner`, timed; it raises `Stopped` once the build was quicker."""

        def fetch(pack: Pack, offset: int, length: int) -> bytes | memoryview:
            if self.winner == BUILT:
                raise Stopped("the build was quicker")
            self.pace.asked(length)
            whole = False
            try:
                data = inner(pack, offset, length)
                whole = True
                return data
            finally:
                self.pace.came(length, whole=whole)

        return fetch

    def claim(self, who: str) -> None:
        """Be the one whose tree enters the home. Raises `Stopped` if the other one was first."""
        with self._lock:
            if self.winner:
                raise Stopped(f"{self.winner} already")
            self.winner = who
        if who == BUILT:
            self.tier.repository.abort()

    def built_instead(self, error: Exception) -> Entry | None:
        """The build's entry, waited for after the fetch ended with an error; None: no build runs.

        Raises:
            BuildFailed: neither way led to the entry.
        """
        if self._rival is None:
            return None
        if self.winner != BUILT:
            self._lost_by_store = isinstance(error, Corrupt)
            if isinstance(error, StoreUnavailable):
                self._cache.give_up(self._store, error)
        self._thread.join()
        if self._error and not isinstance(self._error, SourceUnavailable):
            raise self._error from error
        return self._built

    def end(self) -> None:
        """The fetch is over: stop the build, unless it won."""
        self._over.set()
        with self._lock:
            won = self.winner == BUILT
            self.winner = self.winner or FETCHED
            rival = self._rival
        if rival and not won:
            rival.stop()
        if self._thread.ident is not None:
            # One that waits for another process's lock is left to itself: it stops then.
            self._thread.join(None if won else _PATIENCE)

    # -- the thread -----------------------------------------------------------------------

    def _watch(self) -> None:
        while not self._over.wait(_LOOK):
            if self.pace.seconds_left > self._usual + _WORTH:
                self._tell()
                if self._variant:
                    self._build(self._variant)
                return

    def _tell(self) -> None:
        total, rate = self.pace.total, self.pace.rate
        more = "; --race builds it at the same time" if self._can_race else ""
        more = "; building it at the same time" if self._variant else more
        self._cache.observer.note(
            f"fetching {_megabytes(total)} at {_megabytes(rate)}/s takes"
            f" {_seconds(total / rate)}; the build took {_seconds(self._usual)}{more}"
        )

    def _build(self, variant: Variant) -> None:
        from .builder import build_rival

        with self._lock:
            if self.winner:
                return
            self._rival = rival = Rival(self._cache)
        try:
            self._built = build_rival(
                rival.cache,
                self._wish.recipe,
                variant,
                claim=lambda: self.claim(BUILT),
                running=rival.runs,
                publish=lambda: self._lost_by_store,
            ).fetched.entry
        except Stopped:
            return
        except Exception as error:
            self._error = error
            if not self.winner:
                words = str(error).partition("\n")[0]
                self._cache.observer.note(f"the build at the same time failed: {words}")


class Rival:
    """A cache for a build that may have to stop: nothing it does is felt by the other one."""

    def __init__(self, cache: Cache) -> None:
        self.cache = copy.copy(cache)
        self.cache.observer = _Aside(cache.observer, "the fetch was quicker")
        self.cache.tiers = [_opened_anew(tier) for tier in cache.tiers]
        self._observer = self.cache.observer
        self._runner: Runner | None = None

    def runs(self, runner: Runner) -> None:
        self._runner = runner
        if self._observer.stopped:
            runner.stop()

    def stop(self) -> None:
        """End its process and its reads; whatever it tries next raises `Stopped`."""
        self._observer.stopped = True
        if self._runner:
            self._runner.stop()
        for tier in self.cache.tiers:
            with contextlib.suppress(ArtcacheError):
                if tier.is_open:
                    tier.repository.abort()


def _opened_anew(tier: Tier) -> Tier:
    found = copy.copy(tier)
    found.close()
    return found


class _Aside(Relay):
    """Tells what the build does beside the fetch, which has the progress line."""

    def phase(self, name: str, detail: str = "") -> None:
        self.line(f"build: {name} {detail}".rstrip())

    def progress(self, done: int, total: int) -> None:
        self.check()


def _megabytes(count: float) -> str:
    return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.2g} MB"


def _seconds(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
