"""HTTP on the calling thread: kept connections, and bodies read into the caller's memory.

For adapters whose reads must cost little more than the kernel's share. `http.client`
does the protocol; what is here is the pool, the proxy of the environment, deadlines
and the end of a wait.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from urllib.parse import SplitResult, unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

from .faults import Limits, Moved, Party, Watch, unavailable

_PIECE = 1 << 20
"""Bytes asked of a connection at once."""
_FRESH = 20.0
"""Seconds for which a kept connection is used for more than a GET: a server that closed it in
the meantime tells nobody, and what is not a GET is not simply sent again."""
_GONE = (http.client.RemoteDisconnected, ConnectionError)


class Answer:
    """The head of an answer, and its body as it comes."""

    def __init__(self, inner: http.client.HTTPResponse, limits: Limits, moved: Moved) -> None:
        self._inner = inner
        self._watch = Watch(limits)
        self._moved = moved
        self.status = inner.status
        self.headers = inner.headers
        self.length = inner.length
        """Content-Length; None for a body that ends where it ends."""

    def read_into(self, out: memoryview, came: Callable[[int], object] | None = None) -> int:
        """Fill `out` from the body; fewer bytes than it holds where the body ends.

        Args:
            came: Told of each piece, once it is there.
        """
        # Past `HTTPResponse`, whose `readinto` waits for all it was asked for, however slowly
        # it drips, and whose `read1` copies.
        inner = self._inner
        straight = inner.length is not None and not inner.chunked
        done = 0
        while done < len(out):
            most = min(len(out) - done, _PIECE)
            if not straight:
                count = inner.readinto1(out[done : done + most])
            elif inner.length:
                count = inner.fp.readinto1(out[done : done + min(most, inner.length)])
                inner.length -= count
            else:
                break
            if not count:
                break
            done += count
            self._moved(count)
            if came:
                came(count)
            self._watch.tick(count)
        return done

    def read(self, limit: int) -> bytes:
        """The body, up to `limit` bytes of it."""
        out = bytearray(min(limit, 1 << 16 if self.length is None else self.length))
        done = self.read_into(memoryview(out))
        while done == len(out) < limit and self.length is None:
            out += bytes(min(len(out), limit - done))
            done += self.read_into(memoryview(out)[done:])
        return bytes(memoryview(out)[:done])

    @property
    def ended(self) -> bool:
        """Whether the connection can be used for another request."""
        inner = self._inner
        if inner.length == 0 and not inner.chunked:
            inner.read()  # nothing: it lets go of the connection
        return inner.isclosed() and not inner.will_close


class Wire:
    """One server. From any thread; a connection serves one request at a time."""

    def __init__(
        self, base: str, limits: Limits, party: Party, tls: ssl.SSLContext | None = None
    ) -> None:
        """Args:
        base: Scheme, host and perhaps a port and a path: `https://host`.
        tls: None: the machine's certificates.
        """
        parts = urlsplit(base)
        self._host, self._port = parts.hostname or "", parts.port
        self._path = parts.path.rstrip("/")
        self._secure = parts.scheme == "https"
        self._limits, self._party = limits, party
        self._tls = tls
        self._proxy = _proxy_of(parts.scheme, parts.netloc)
        self._idle: list[tuple[float, http.client.HTTPConnection]] = []
        """Since when, and which."""
        self._busy: set[http.client.HTTPConnection] = set()
        self._lock = threading.Lock()
        weakref.finalize(self, _close, self._idle)

    @contextlib.contextmanager
    def ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        moved: Moved,
        body: Iterable[bytes] = (),
    ) -> Iterator[Answer]:
        """One attempt at a request. Raises `StoreUnavailable`; `Passing` may be tried again.

        Args:
            body: In pieces, each of which must be on its way in a stall's time. The headers
                tell its length.
        """
        kept, connection = self._connection(method)
        answer = None
        try:
            try:
                answer = self._ask(connection, method, path, headers, moved, body)
            except _GONE:
                if not kept or method != "GET" or connection not in self._busy:
                    raise
                # The server closed what was idle for long.
                connection.close()
                answer = self._ask(connection, method, path, headers, moved, body)
            yield answer
        except (OSError, http.client.HTTPException) as error:
            answer = None
            raise unavailable(self._party, error) from error
        finally:
            good = answer is not None and answer.ended
            with self._lock:
                self._busy.discard(connection)
                if good:
                    self._idle.append((time.monotonic(), connection))
            if not good:
                connection.close()

    def abort(self) -> None:
        """End what is under way: whoever waits gets an error."""
        with self._lock:
            busy = tuple(self._busy)
            self._busy.clear()
        for connection in busy:
            with contextlib.suppress(OSError):
                if connection.sock:  # the plain one: TLS would say goodbye first
                    socket.socket.shutdown(connection.sock, socket.SHUT_RDWR)

    # -- inside ---------------------------------------------------------------------------

    def _connection(self, method: str) -> tuple[bool, http.client.HTTPConnection]:
        """One to use, and whether it was used before."""
        with self._lock:
            since, connection = self._idle.pop() if self._idle else (0.0, self._new())
            if since and method != "GET" and time.monotonic() - since > _FRESH:
                connection.close()
                since, connection = 0.0, self._new()
            self._busy.add(connection)
            return bool(since), connection

    def _ask(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        headers: Mapping[str, str],
        moved: Moved,
        body: Iterable[bytes],
    ) -> Answer:
        if connection.sock is None:
            connection.timeout = min(self._limits.connect, self._limits.silence)
            connection.connect()
            assert connection.sock is not None  # connect() has made one
        connection.sock.settimeout(self._limits.silence)
        if connection not in self._busy:  # `abort` looked before there was a socket
            raise ConnectionAbortedError("interrupted")
        target = self._path + path
        if self._proxy.hostname and not self._secure:
            target = f"http://{_netloc(self._host, self._port)}{target}"
            headers = {**_authorization(self._proxy), **headers}
        headers = {"Accept-Encoding": "identity", **headers}
        pieces = self._in_time(body) if "Content-Length" in headers else None
        try:
            connection.request(method, target, pieces, headers)
        except ConnectionError as error:
            # The server may have answered before it had read all.
            with contextlib.suppress(OSError, http.client.HTTPException):
                return Answer(connection.getresponse(), self._limits, moved)
            raise error from None
        return Answer(connection.getresponse(), self._limits, moved)

    def _in_time(self, body: Iterable[bytes]) -> Iterator[bytes]:
        for piece in body:
            self._limits.check()
            yield piece

    def _new(self) -> http.client.HTTPConnection:
        host, port = self._host, self._port
        if self._proxy.hostname:
            host, port = self._proxy.hostname, self._proxy.port or 80
        if not self._secure:
            return http.client.HTTPConnection(host, port)
        if self._tls is None:
            self._tls = ssl.create_default_context()
        connection = http.client.HTTPSConnection(host, port, context=self._tls)
        if self._proxy.hostname:
            connection.set_tunnel(self._host, self._port, _authorization(self._proxy))
        return connection


def _close(idle: list[tuple[float, http.client.HTTPConnection]]) -> None:
    for _, connection in idle:
        connection.close()


def _proxy_of(scheme: str, netloc: str) -> SplitResult:
    """The environment's proxy for a host; an empty one if there is none."""
    proxy = "" if proxy_bypass(netloc) else getproxies().get(scheme, "")
    return urlsplit(proxy if not proxy or "://" in proxy else f"http://{proxy}")


def _authorization(proxy: SplitResult) -> dict[str, str]:
    if proxy.username is None:
        return {}
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return {"Proxy-Authorization": f"Basic {base64.b64encode(words.encode()).decode()}"}


def _netloc(host: str, port: int | None) -> str:
    host = f"[{host}]" if ":" in host else host
    return f"{host}:{port}" if port else host
