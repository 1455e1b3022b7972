"""A proxy on loopback that hurts the connection in one chosen way, and else passes it on."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace

from loopback import Handler, Server

PER_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "host", "expect"})


@dataclass
class Request:
    method: str
    path: str
    headers: dict[str, str]
    """By lower-case names."""
    port: int
    """The client's: the same for requests on one connection."""


@dataclass
class Fault:
    """What happens to a request. The parts may be combined."""

    status: int = 0
    """Answer with this status, without asking the server."""
    headers: dict[str, str] = field(default_factory=dict)
    """Put these into the answer, over the server's own."""
    body: bytes = b""
    keep: int | None = None
    """Send only so many bytes of the answer's body (0: not even its head)..."""
    then: str = "reset"
    """...and then `reset`, `close`, `hang`, or `lie` (the length was never more than that)."""
    drip: float = 0.0
    """Seconds between single bytes of the body."""
    delay: float = 0.0
    """Seconds before the request is passed on."""
    deaf: int | None = None
    """Read only so many bytes of the request's body, and then no more."""
    swap: bytes = b""
    """Send this body in place of the server's."""
    forget: tuple[str, ...] = ()
    """Pass on no header (by its lower-case name) and no parameter of the query called so."""


class FaultProxy:
    """`plan` faults; `requests` tells what came."""

    def __init__(self, upstream: str, *, tls: ssl.SSLContext | None = None) -> None:
        self.upstream = upstream
        self.requests: list[Request] = []
        self._plans: list[tuple[Fault, Callable[[Request], bool], list[int]]] = []
        self._lock = threading.Lock()
        self.over = threading.Event()
        self._server = Server(type("Proxy", (_Handler,), {"owner": self}), tls=tls)
        self.url = self._server.url

    def plan(
        self,
        fault: Fault,
        *,
        times: int = 1 << 30,
        when: Callable[[Request], bool] = lambda request: True,
    ) -> None:
        """Hurt the next `times` requests for which `when` is true."""
        with self._lock:
            self._plans.append((fault, when, [times]))

    def heal(self) -> None:
        """Forget all plans and requests, and let go of what hangs."""
        with self._lock:
            self._plans.clear()
            self.requests.clear()
        self.over.set()
        self.over = threading.Event()

    def fault_for(self, request: Request) -> Fault:
        with self._lock:
            self.requests.append(request)
            for fault, when, left in self._plans:
                if left[0] and when(request):
                    left[0] -= 1
                    return fault
        return Fault()

    def close(self) -> None:
        self.over.set()
        self._server.close()


@contextlib.contextmanager
def fault_proxy(upstream: str, *, tls: ssl.SSLContext | None = None) -> Iterator[FaultProxy]:
    proxy = FaultProxy(upstream, tls=tls)
    try:
        yield proxy
    finally:
        proxy.close()


class _Handler(Handler):
    owner: FaultProxy

    def __getattr__(self, name: str) -> object:
        if name.startswith("do_"):
            return self._do
        raise AttributeError(name)

    def _do(self) -> None:
        request = Request(
            self.command,
            self.path,
            {name.lower(): value for name, value in self.headers.items()},
            self.client_address[1],
        )
        fault = self.owner.fault_for(request)
        if fault.deaf is not None:
            self.rfile.read(fault.deaf)
            self.owner.over.wait(30)
            return
        if self.headers.get("Expect", "").lower() == "100-continue":
            self.send_response_only(100)
            self.end_headers()
        body = self.body()
        time.sleep(fault.delay)
        if fault.status:
            self._answer(fault.status, fault.headers, fault.body, fault)
            return
        host = self.owner.upstream.removeprefix("http://")
        up = http.client.HTTPConnection(host, timeout=30)
        try:
            dropped = PER_HOP.union(fault.forget)
            headers = {k: v for k, v in request.headers.items() if k.lower() not in dropped}
            place, _, query = self.path.partition("?")
            kept = [word for word in query.split("&") if word.split("=")[0] not in fault.forget]
            path = f"{place}?{'&'.join(kept)}" if query else place
            up.request(self.command, path, body, headers)
            answer = up.getresponse()
            content = answer.read()
            passed = {k: v for k, v in answer.getheaders() if k.lower() not in PER_HOP}
            if self.command == "HEAD":
                length = answer.getheader("Content-Length", "0")
                fault = replace(fault, headers={"Content-Length": length, **fault.headers})
            self._answer(answer.status, {**passed, **fault.headers}, fault.swap or content, fault)
        finally:
            up.close()

    def _answer(self, status: int, headers: dict[str, str], body: bytes, fault: Fault) -> None:
        headers = {k: v for k, v in headers.items() if k.lower() != "content-length"}
        length = next((v for k, v in fault.headers.items() if k.lower() == "content-length"), "")
        whole = len(body)
        if fault.keep is not None:
            body = body[: fault.keep]
        if fault.then == "lie":
            whole = len(body)
        if fault.keep != 0:
            self.send_response_only(status)
            for name, value in headers.items():
                self.send_header(name, value)
            if status not in (204, 304):
                self.send_header("Content-Length", length or str(whole))
            self.end_headers()
            if self.command != "HEAD":
                self._send(body, fault.drip)
        if fault.keep is None or fault.then == "lie":
            return
        self.wfile.flush()
        self.close_connection = True
        if fault.then == "hang":
            self.owner.over.wait(30)
        elif fault.then == "reset":
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()

    def _send(self, body: bytes, drip: float) -> None:
        if not drip:
            self.wfile.write(body)
            return
        over = self.owner.over
        for at in range(len(body)):
            if over.wait(drip):  # healed: the rest comes at once
                self.wfile.write(body[at:])
                return
            self.wfile.write(body[at : at + 1])
            self.wfile.flush()
