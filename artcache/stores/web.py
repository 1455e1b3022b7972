"""`requests` under our limits, for the stores that speak plain HTTP (`http`, `drive_http`).

A session for each thread, and bodies that are read, or sent, under a watch.
"""

from __future__ import annotations

import contextlib
import io
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import StoreUnavailable
from .faults import Limits, Party, Passing, Watch, persist, unavailable

if TYPE_CHECKING:
    import requests

_Result = TypeVar("_Result")

_PIECE = 256 << 10


class Sessions:
    """`requests.Session` is not safe for several threads: each has its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._local = threading.local()
        self._connections: weakref.WeakSet[Any] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._stop = threading.Event()

    def mine(self) -> requests.Session:
        import requests

        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.headers["Accept-Encoding"] = "identity"
            adapter = _adapter(self._opened)
            session.mount("https://", adapter)
            session.mount("http://", adapter)
        return session

    def persist(
        self,
        limits: Limits,
        work: Callable[[int], _Result],
        *,
        patience: float | None = None,
    ) -> _Result:
        """As `faults.persist`, until `abort`."""
        stop: threading.Event | None = getattr(self._local, "stop", None)
        if stop is None:
            with self.as_one():
                return self.persist(limits, work, patience=patience)

        def attempt(number: int) -> _Result:
            try:
                if not stop.is_set():
                    return work(number)
            except Passing:
                if not stop.is_set():
                    raise
            raise StoreUnavailable(f"{self._url}: interrupted")

        return persist(limits, attempt, patience=patience, sleep=stop.wait)

    @contextlib.contextmanager
    def as_one(self) -> Iterator[None]:
        """An `abort` also ends those of this thread's requests inside that did not begin yet."""
        self._local.stop = self._stop
        try:
            yield
        finally:
            del self._local.stop

    def abort(self) -> None:
        """End the requests under way, whatever they wait for."""
        self._stop.set()
        self._stop = threading.Event()
        with self._lock:
            connections = tuple(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                if connection.sock:  # the plain one: TLS would say goodbye first
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    def _opened(self, connection: Any) -> None:
        with self._lock:
            self._connections.add(connection)
        stop: threading.Event | None = getattr(self._local, "stop", None)
        if stop and stop.is_set():  # `abort` may have looked a moment too early
            raise ConnectionAbortedError("interrupted")


def _adapter(opened: Callable[[Any], None]) -> requests.adapters.HTTPAdapter:
    """What makes a session's connections, and tells of each."""
    import requests
    import urllib3

    class Plain(urllib3.connection.HTTPConnection):
        def connect(self) -> None:
            super().connect()
            opened(self)

    class Tls(urllib3.connection.HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            opened(self)

    class PlainPool(urllib3.HTTPConnectionPool):
        ConnectionCls = Plain

    class TlsPool(urllib3.HTTPSConnectionPool):
        ConnectionCls = Tls

    class Adapter(requests.adapters.HTTPAdapter):
        def init_poolmanager(self, *words: Any, **more: Any) -> None:
            super().init_poolmanager(*words, **more)
            self.poolmanager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}

        def proxy_manager_for(self, *words: Any, **more: Any) -> Any:
            manager = super().proxy_manager_for(*words, **more)
            manager.pool_classes_by_scheme = {"http": PlainPool, "https": TlsPool}
            return manager

    return Adapter()


class Sent(io.BytesIO):
    """A request's body that is refused to a server that hardly takes it."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        super().__init__(data)
        self._watch = Watch(limits)

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._watch.tick(len(data))
        return data


def read_body(answer: requests.Response, most: int, limits: Limits, party: Party) -> bytes:
    """Up to `most` bytes of an answer; fewer where it ends. Raises as `pieces` does."""
    return b"".join(pieces(answer, most, limits, party))


def pieces(answer: requests.Response, most: int, limits: Limits, party: Party) -> Iterator[bytes]:
    """Up to `most` bytes of an answer, as they come.

    Raises:
        StoreUnavailable: the connection broke, or almost nothing came for too long.
    """
    import urllib3

    watch, count = Watch(limits), 0
    try:
        while count < most and (
            # What has come so far: `read` would wait for all of it, however long.
            part := answer.raw.read1(min(_PIECE, most - count), decode_content=False)
        ):
            count += len(part)
            yield part
            watch.tick(len(part))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise unavailable(party, error) from error


def length_of(answer: requests.Response) -> int | None:
    """What its Content-Length says."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None
