"""HTTP on the calling thread: what kept connections, proxies and odd bodies do."""

from __future__ import annotations

import base64
import http.client
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from buckets import QUICK

from artcache.errors import StoreUnavailable
from artcache.stores.faults import Moved, Party, Passing
from artcache.stores.wire import Wire

pytestmark = pytest.mark.usefixtures("loopback_only")

PARTY = Party("gs://bucket", "anonymous")
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "no_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


class Scripted:
    """A server that gives each connection's requests the answers of its row, then closes it."""

    def __init__(self, *rows: list[bytes]) -> None:
        self.heads: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, args=(rows,), daemon=True)
        self._thread.start()

    def _serve(self, rows: tuple[list[bytes], ...]) -> None:
        for row in rows:
            connection, _ = self._listening.accept()
            with connection, connection.makefile("rb") as lines:
                for answer in row:
                    self.heads.append(b"".join(iter(lines.readline, b"\r\n")))
                    connection.sendall(answer)

    def close(self) -> None:
        self._thread.join(5)
        self._listening.close()


@contextmanager
def scripted(*rows: list[bytes]) -> Iterator[Scripted]:
    server = Scripted(*rows)
    try:
        yield server
    finally:
        server.close()


def read(wire: Wire, limit: int = 1000) -> bytes:
    with wire.ask("GET", "/object?alt=media", {}, Moved()) as answer:
        return answer.read(limit)


def test_a_connection_is_kept() -> None:
    with scripted([OK, OK, OK]) as server:
        wire = Wire(f"http://{server.host}", QUICK, PARTY)
        assert [read(wire) for _ in range(3)] == [b"hello"] * 3


def test_one_that_the_server_closed_meanwhile_is_replaced_without_a_word() -> None:
    with scripted([OK], [OK]) as server:
        wire = Wire(f"http://{server.host}", QUICK, PARTY)
        assert [read(wire), read(wire)] == [b"hello", b"hello"]


def test_what_cannot_be_sent_twice_never_meets_an_old_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with scripted([OK], [OK, OK]) as server:
        wire = Wire(f"http://{server.host}", QUICK, PARTY)
        read(wire)
        monkeypatch.setattr("artcache.stores.wire._FRESH", 0.0)
        with wire.ask("DELETE", "/object", {}, Moved()) as answer:
            assert answer.read(10) == b"hello"
        read(wire)


def test_an_answer_that_was_not_read_to_its_end_costs_the_connection() -> None:
    with scripted([OK], [OK]) as server:
        wire = Wire(f"http://{server.host}", QUICK, PARTY)
        assert read(wire, limit=2) == b"he"
        assert read(wire) == b"hello"


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
    ],
    ids=["chunked", "until it ends"],
)
def test_a_body_of_unknown_length_is_read(answer: bytes) -> None:
    with scripted([answer]) as server:
        assert read(Wire(f"http://{server.host}", QUICK, PARTY)) == b"hello"


def test_a_body_goes_into_the_callers_memory_and_no_further() -> None:
    room = bytearray(b"........")
    with (
        scripted([OK]) as server,
        Wire(f"http://{server.host}", QUICK, PARTY).ask("GET", "/", {}, Moved()) as answer,
    ):
        assert answer.read_into(memoryview(room)[:3]) == 3
        assert answer.read_into(memoryview(room)[3:]) == 2
    assert room == b"hello..."


@pytest.mark.parametrize("answer", [b"", b"what?\r\n\r\n"])
def test_what_is_no_answer_may_pass(answer: bytes) -> None:
    with scripted([answer]) as server, pytest.raises(Passing, match="gs://bucket"):
        read(Wire(f"http://{server.host}", QUICK, PARTY))


def test_the_environments_proxy_is_used_with_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    with scripted([OK]) as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@{proxy.host}")
        assert read(Wire("http://storage.example:81/top", QUICK, PARTY)) == b"hello"
    assert proxy.heads[0].startswith(b"GET http://storage.example:81/top/object?alt=media HTTP")
    secret = base64.b64encode(b"me:p@ss")
    assert b"Proxy-Authorization: Basic " + secret in proxy.heads[0]
    assert b"Host: storage.example:81\r\n" in proxy.heads[0]


def test_a_secure_server_is_reached_through_a_tunnel(monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = b"HTTP/1.1 407 Who are you\r\n\r\n"
    with scripted([refusal]) as proxy:
        monkeypatch.setenv("https_proxy", proxy.host)
        with pytest.raises(StoreUnavailable, match="407"):
            read(Wire("https://storage.example", QUICK, PARTY))
    assert proxy.heads[0].startswith(b"CONNECT storage.example:443 HTTP")


def test_no_proxy_is_minded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with scripted([OK]) as server:
        assert read(Wire(f"http://{server.host}", QUICK, PARTY)) == b"hello"


def test_a_read_under_way_can_be_ended_also_on_a_kept_connection() -> None:
    with scripted([OK, b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"]) as server:
        wire = Wire(f"http://{server.host}", QUICK, PARTY)
        read(wire)
        timer = threading.Timer(0.2, wire.abort)
        timer.start()
        with wire.ask("GET", "/", {}, Moved()) as answer:
            assert answer.read_into(memoryview(bytearray(5))) == 2
        timer.join()


def test_a_read_that_is_ended_while_it_connects_asks_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    connect = http.client.HTTPConnection.connect
    with scripted([OK]) as server:
        wire = Wire(f"http://{server.host}", QUICK, PARTY)

        def slowly(connection: http.client.HTTPConnection) -> None:
            wire.abort()
            connect(connection)

        with monkeypatch.context() as patch:
            patch.setattr(http.client.HTTPConnection, "connect", slowly)
            with pytest.raises(StoreUnavailable, match="interrupted"):
                read(wire)
    assert b"GET" not in b"".join(server.heads)
