"""Slow stores on loopback: a proxy for HTTP servers, a mount for folders."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from . import peers
from .bucket import Bucket
from .children import ROOT

_PIECE = 1 << 16
_METHOD = re.compile(rb"(GET|HEAD|POST|PUT|PATCH|DELETE) ")


class Proxy:
    """Forwards to an HTTP server on loopback, slowly; counts requests and bytes.

    Runs in threads of this process, which only waits while contenders run.
    """

    def __init__(self, port: int, *, rate: float = 0, latency: float = 0) -> None:
        """Args:
        rate: Bytes a second of all answers together; 0: no limit.
        latency: Seconds that each request waits before the server sees it.
        """
        self.requests: Counter[str] = Counter()
        self.received = 0
        """Bytes of answers."""
        self._target, self._latency, self._bucket = port, latency, Bucket(rate)
        self._up = Bucket(rate)
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def reset(self) -> None:
        self.requests.clear()
        self.received = 0

    def close(self) -> None:
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            for way in (client, server):
                way.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 18)
            for job in (self._up_stream, self._down_stream):
                threading.Thread(target=job, args=(client, server), daemon=True).start()

    def _up_stream(self, client: socket.socket, server: socket.socket) -> None:
        for piece in _pieces(client, server):
            if method := _METHOD.match(piece):
                self.requests[method[1].decode()] += 1
                time.sleep(self._latency)
            self._up.take(len(piece))
            _send(server, piece)

    def _down_stream(self, client: socket.socket, server: socket.socket) -> None:
        for piece in _pieces(server, client):
            self._bucket.take(len(piece))
            self.received += len(piece)
            _send(client, piece)


def _pieces(source: socket.socket, target: socket.socket) -> Iterator[memoryview]:
    """What comes, until either side is gone; then both are told."""
    buffer = memoryview(bytearray(_PIECE))
    with contextlib.suppress(OSError):
        while count := source.recv_into(buffer):
            yield buffer[:count]
    for way in (source, target):
        with contextlib.suppress(OSError):
            way.shutdown(socket.SHUT_RDWR)


def _send(target: socket.socket, piece: memoryview) -> None:
    """To one that may be gone: then the next read ends."""
    with contextlib.suppress(OSError):
        target.sendall(piece)


@contextlib.contextmanager
def mounted(folder: Path, at: Path, *, rate: float = 0, latency: float = 0) -> Iterator[Mount]:
    """See a folder through a slow mount while the context lasts."""
    mount = Mount(folder, at, rate=rate, latency=latency)
    try:
        yield mount
    finally:
        mount.close()


class Mount:
    """A folder seen through FUSE, read-only, at a rate and with a latency for each call.

    Raises `OSError` if this machine mounts nothing; the message says why.
    """

    def __init__(self, folder: Path, at: Path, *, rate: float = 0, latency: float = 0) -> None:
        """Args:
        rate: Bytes a second of all reads together; 0: no limit.
        latency: Seconds that each call of the kernel takes.
        """
        python = peers.python_with("mfusepy")
        if not python:
            raise OSError("mfusepy is not installed, or there is no libfuse")
        at.mkdir(parents=True, exist_ok=True)
        self.at = at
        self._counts = at.with_name(at.name + ".counts")
        words = [folder, at, str(rate), str(latency), self._counts]
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.mount", *map(str, words)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        deadline = time.monotonic() + 10
        while not at.is_mount():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self._process.kill()
                told = self._process.communicate()[1].strip().splitlines() or ["no answer"]
                raise OSError(f"cannot mount here: {told[-1]}")
            time.sleep(0.02)
        _read_ahead(at)

    def close(self) -> dict[str, int]:
        """Unmount; how often the kernel called for what."""
        subprocess.run(["fusermount3", "-u", "-z", str(self.at)], capture_output=True)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(10)
        self._process.kill()
        self._process.wait()
        with contextlib.suppress(OSError, ValueError):
            counts: dict[str, int] = json.loads(self._counts.read_text())
            return counts
        return {}


def _read_ahead(mount: Path) -> None:
    """Let the kernel ask for more than one piece at a time, as mounted stores do."""
    device = os.stat(mount).st_dev
    knob = Path(f"/sys/class/bdi/{os.major(device)}:{os.minor(device)}/read_ahead_kb")
    with contextlib.suppress(OSError):
        knob.write_text("1024")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# -- calibration --------------------------------------------------------------------------


def measured_rate(mount: Path, file: str, most: int) -> float:
    """Bytes a second that a plain reader gets of a file behind a mount."""
    with (mount / file).open("rb", buffering=0) as stream:
        return _rate(stream.readinto, most)


def measured_proxy(url: str, path: str, most: int) -> float:
    """Bytes a second that a plain HTTP client gets of an object behind a proxy."""
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    try:
        connection.request("GET", path)
        return _rate(connection.getresponse().readinto, most)
    finally:
        connection.close()


def _rate(read: Callable[[bytearray], int | None], most: int) -> float:
    """Of `most` bytes, after half a second's worth that fills what lies between."""
    buffer = bytearray(1 << 18)
    count, start = -most // 8, 0.0
    while count < most and (done := read(buffer)):
        count += done
        if count >= 0 and not start:
            count, start = 0, time.perf_counter()
    return count / (time.perf_counter() - start)
