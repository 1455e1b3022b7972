"""What may go wrong between here and a server, how long we put up with it, and its name.

For the stores that are reached over a network: deadlines, retries, and the one
table from a server's status to our errors.
"""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ..errors import (
    ArtcacheError,
    Corrupt,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
)

if TYPE_CHECKING:
    import tenacity

_Result = TypeVar("_Result")


class Limits(NamedTuple):
    """How long a server may keep us waiting. Tests shrink these; users get the defaults."""

    connect: float = 6.0
    """Seconds until there is a connection."""
    stall: float = 12.0
    """Seconds in which at least `least` bytes must move, in either direction."""
    least: int = 16 << 10
    attempts: int = 4
    patience: float = 30.0
    """Seconds after which a failed read is not tried again. A write has no such
    limit: it may have worked for minutes before it failed."""
    first_wait: float = 0.4
    """Seconds before the second attempt, on average; each further one doubles it."""
    budget: Budget | None = None
    """What all requests of all stores may take together."""

    @property
    def silence(self) -> float:
        """Seconds to wait for the next byte."""
        return min(self.stall, max(self.budget.left, 0.05)) if self.budget else self.stall

    def check(self) -> None:
        """Raises `StoreUnavailable` if the time for stores is over."""
        if self.budget:
            self.budget.check()


class Budget:
    """Seconds in which at least one request is under way. From any thread."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._lock = threading.Lock()
        self._spent, self._under_way, self._since = 0.0, 0, 0.0

    def begin(self) -> None:
        """Start over: for the next command."""
        with self._lock:
            self._spent, self._since = 0.0, time.monotonic()

    @property
    def left(self) -> float:
        with self._lock:
            running = time.monotonic() - self._since if self._under_way else 0.0
            return self._seconds - self._spent - running

    def check(self) -> None:
        if self.left <= 0:
            raise StoreUnavailable(
                f"the {self._seconds:g} s that stores may take are over",
                hint="set ARTCACHE_TIMEOUT to more; what was downloaded is kept for the next time",
            )

    @contextlib.contextmanager
    def spending(self) -> Iterator[None]:
        self.check()
        with self._lock:
            self._since = self._since if self._under_way else time.monotonic()
            self._under_way += 1
        try:
            yield
        finally:
            with self._lock:
                self._under_way -= 1
                if not self._under_way:
                    self._spent += time.monotonic() - self._since


class Passing(StoreUnavailable):
    """A fault that may be gone at the next attempt."""

    def __init__(
        self,
        message: str,
        *,
        after: float | None = None,
        silent: bool = False,
        busy: bool = False,
        hint: str = "",
    ) -> None:
        """Args:
        after: Seconds that the server asks to be left alone.
        silent: It did not answer in time; asking often would only wait often.
        busy: It is well and takes no more at the moment, from many clients at once: it
            is asked for as long as patience lasts, however often that is.
        """
        super().__init__(message, hint=hint)
        self.after = after
        self.busy = busy
        self.silent = silent


class Moved:
    """Counts the bytes of one request, so that a stall is seen whatever the library."""

    __slots__ = ("_seen", "count")

    def __init__(self) -> None:
        self.count = 0
        self._seen = 0

    def __call__(self, count: int) -> None:
        self.count += count

    def enough(self, limits: Limits) -> bool:
        """Whether enough moved since the last call."""
        moved, self._seen = self.count - self._seen, self.count
        return moved >= limits.least


class Watch:
    """The same for a thread that reads by itself: `tick` raises when it is too slow."""

    def __init__(self, limits: Limits) -> None:
        self._limits, self._moved = limits, Moved()
        self._until = time.monotonic() + limits.stall

    def tick(self, count: int) -> None:
        self._moved(count)
        self._limits.check()
        if time.monotonic() > self._until:
            if not self._moved.enough(self._limits):
                words = f"it sent almost nothing for {self._limits.stall:g} s"
                raise Passing(words, silent=True)
            self._until = time.monotonic() + self._limits.stall


def persist(
    limits: Limits,
    work: Callable[[int], _Result],
    *,
    patience: float | None = None,
    sleep: Callable[[float], object] = time.sleep,
) -> _Result:
    """Call `work` (with the attempt's number, from 1) until it does not raise `Passing`.

    Waits are random, so that the many who failed together don't come back together.

    Args:
        patience: Seconds, in place of the limits'.

    Raises:
        StoreUnavailable: it still raised `Passing` at the end, or the time for stores is over.
    """
    patience = limits.patience if patience is None else patience
    if limits.budget is None:
        return _persist(limits, work, patience, sleep)
    with limits.budget.spending():
        try:
            return _persist(limits, work, min(patience, limits.budget.left), sleep)
        except StoreUnavailable:
            limits.check()  # then that is why
            raise


def _persist(
    limits: Limits,
    work: Callable[[int], _Result],
    patience: float,
    sleep: Callable[[float], object],
) -> _Result:
    start = time.monotonic()
    try:
        return work(1)
    except Passing as error:
        first = error

    import tenacity  # longer to import than a good answer takes

    tries, number = _Tries(limits, patience, start), 0

    def once() -> _Result:
        nonlocal number
        number += 1
        if number == 1:
            raise first
        return work(number)

    def pause(seconds: float) -> None:
        sleep(seconds)

    retrying = tenacity.Retrying(
        retry=tenacity.retry_if_exception_type(Passing),
        wait=tries.wait,
        stop=tries.stop,
        sleep=pause,
        reraise=True,
    )
    try:
        return retrying(once)
    except Passing as error:
        raise _given_up(error, number, tries.seconds) from error


class _Tries:
    """Of one `persist`, once the first has failed: when the next one is, and when none is."""

    def __init__(self, limits: Limits, patience: float, start: float) -> None:
        from tenacity import wait_random_exponential

        self._limits, self._patience, self._start = limits, patience, start
        self._jitter = wait_random_exponential(multiplier=limits.first_wait * 2, max=8)
        self._silences = 0

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._start

    def wait(self, state: tenacity.RetryCallState) -> float:
        error = _fault_of(state)
        if error.after is None:
            return self._jitter(state)
        return error.after + self._jitter(state) / (1 if error.busy else 4)

    def stop(self, state: tenacity.RetryCallState) -> bool:
        error, gone = _fault_of(state), self.seconds
        self._silences += error.silent
        busy = error.busy and gone < self._limits.patience
        return (
            (state.attempt_number >= self._limits.attempts and not busy)
            or self._silences > 1
            or gone + state.upcoming_sleep > self._patience
        )


def _fault_of(state: tenacity.RetryCallState) -> Passing:
    """What the last try raised: after anything else there is no other."""
    error = state.outcome.exception() if state.outcome else None
    assert isinstance(error, Passing)
    return error


def _given_up(error: Passing, times: int, seconds: float) -> StoreUnavailable:
    asked = f"; it asks to be left alone for {error.after:g} s" if error.after else ""
    tried = "" if times == 1 else f", {times} times in {seconds:.0f} s"
    return StoreUnavailable(f"{error}{tried}{asked}", hint=error.hint)


# -- the table ------------------------------------------------------------------------------


class Party(NamedTuple):
    """Who talks to whom, for messages."""

    url: str
    identity: str
    """The credential in words: `anonymous`, `service account x@y`, ..."""
    advice: str = ""
    """How to get a credential, or a better one."""


def denied(party: Party, why: str, *, writing: bool) -> StoreDenied:
    wanted = "write to" if writing else "read"
    hint = party.advice
    if writing:
        hint += ("; or " if hint else "") + f"configure it as read-only: read:{party.url}"
    said = f" ({why})" if why else ""
    return StoreDenied(f"{party.url}: {party.identity} may not {wanted} it{said}", hint=hint)


def by_status(
    party: Party,
    name: str,
    status: int,
    said: str = "",
    *,
    after: str | None = None,
    writing: bool = False,
) -> ArtcacheError:
    """The error for an answer that is none of the wanted ones.

    Args:
        said: The server's own words.
        after: Its Retry-After header.
    """
    said = " ".join(said.split())[:200]
    if status in (401, 403):
        return denied(party, said or str(status), writing=writing)
    if status == 404:
        return ObjectNotFound(f"{party.url} has no {name}")
    if status == 412 and writing:
        return ObjectExists(f"{party.url}: {name} exists")
    if status == 416:
        return Corrupt(f"{party.url}: {name} is shorter than it should be")
    words = f"{party.url} answers {status}" + (f" ({said})" if said else "")
    if status in (408, 429) or status >= 500:
        return Passing(words, after=seconds_of(after), busy=status == 429)
    return StoreUnavailable(f"{words} for {name}")


def seconds_of(after: str | None) -> float | None:
    """What a Retry-After header asks for: seconds, or a date."""
    if not after:
        return None
    if re.fullmatch(r"\d{1,9}", after.strip()):
        return float(after)
    from email.utils import parsedate_to_datetime

    with contextlib.suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(after).timestamp() - time.time())
    return None


def no_bucket(party: Party, bucket: str, make: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{party.url}: there is no bucket {bucket}, or {party.identity} may not see it",
        hint=f"check its name, or make it: {make}",
    )


def unavailable(party: Party, error: BaseException) -> StoreUnavailable:
    """A connection's own fault, which may pass; a certificate's, which will not."""
    import ssl  # not where there is no network: it takes as long as a small artifact's restore

    mid_stream = (ssl.SSLEOFError, ssl.SSLZeroReturnError, ssl.SSLWantReadError)
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, ssl.SSLError) and not isinstance(seen, mid_stream):
            return StoreUnavailable(
                f"{party.url}: the secure connection failed: {error}",
                hint="check this machine's clock and certificates (SSL_CERT_FILE), or a proxy",
            )
        seen = seen.__cause__ or seen.__context__
    words = str(error) or type(error).__name__
    silent = "timeout" in type(error).__name__.lower() or isinstance(error, TimeoutError)
    return Passing(f"{party.url} does not answer: {words}", silent=silent)


def spanned(party: Party, name: str, content_range: str, offset: int, length: int) -> None:
    """Check the Content-Range of a partial answer to a request for these bytes.

    Raises:
        Corrupt: the object ends earlier.
        Passing: the answer is for other bytes.
    """
    match = re.fullmatch(r"bytes (\d+)-(\d+)/(\d+|\*)", content_range.strip())
    if not match or int(match[1]) != offset:
        raise Passing(f"{party.url} sent other bytes of {name} than asked for ({content_range!r})")
    if int(match[2]) - offset + 1 != length:
        if match[3].isdigit() and int(match[3]) < offset + length:
            raise Corrupt(
                f"{party.url}: {name} ends at byte {match[3]}, before its {offset + length}"
            )
        raise Passing(f"{party.url} sent {content_range!r} of {name}, not what was asked for")


@contextlib.contextmanager
def only_ours(party: Party) -> Iterator[None]:
    """Nothing but `ArtcacheError` leaves a store."""
    try:
        yield
    except ArtcacheError:
        raise
    except Exception as error:
        raise StoreUnavailable(
            f"{party.url}: {type(error).__name__}: {error}",
            hint="this is not expected: please report it with --debug",
        ) from error
