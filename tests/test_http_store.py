"""Reading a store over plain http, as from a public bucket or any web server."""

from __future__ import annotations

import functools
import http.server
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from buckets import BRIEF, QUICK, gcs_store
from fault_proxy import Fault, FaultProxy, fault_proxy
from store_contract import StoreContract

from artcache.errors import (
    Corrupt,
    ObjectNotFound,
    OverLimit,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from artcache.store import Content, StoredObject, StoreTraits
from artcache.stores import open_store
from artcache.stores.http import HttpStore
from artcache.stores.remote import RemoteStore

pytestmark = pytest.mark.usefixtures("loopback_only")

NAME = "v1/manifests/thing/0a.json"
PACK = "v1/packs/0a/0a.pack"
DATA = bytes(i % 251 for i in range(300_000))


class Mirror:
    """A public bucket: written by its own protocol, read over http."""

    def __init__(self, bucket: RemoteStore, mirror: HttpStore) -> None:
        self._bucket, self._mirror = bucket, mirror
        self.url = self._mirror.url
        self.traits: StoreTraits = bucket.traits

    def get(self, name: str, *, limit: int) -> bytes:
        return self._mirror.get(name, limit=limit)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        return self._mirror.get_range(name, offset, length)

    def size(self, name: str) -> int:
        return self._mirror.size(name)

    def create(self, name: str, content: Content) -> None:
        self._bucket.create(name, content)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        return self._bucket.list(prefix)

    def delete(self, name: str) -> None:
        self._bucket.delete(name)

    def move(self, name: str, to: str) -> None:
        self._bucket.move(name, to)

    def quarantine(self, name: str) -> str:
        return self._bucket.quarantine(name)


def public(url: str, bucket: RemoteStore) -> str:
    return f"{url}/{bucket.url.removeprefix('gs://')}"


class TestMirror(StoreContract):
    @pytest.fixture
    def store(self, gcs_url: str, monkeypatch: pytest.MonkeyPatch) -> Mirror:
        bucket = gcs_store(gcs_url, monkeypatch)
        return Mirror(bucket, HttpStore(public(gcs_url, bucket)))


class Rig(NamedTuple):
    proxy: FaultProxy
    store: HttpStore
    brief: HttpStore
    """The same, for a fault that stays."""


@pytest.fixture(scope="module")
def rigs(gcs_url: str) -> Iterator[Rig]:
    with pytest.MonkeyPatch.context() as patch, fault_proxy(gcs_url) as proxy:
        bucket = gcs_store(gcs_url, patch)
        bucket.create(NAME, b"content")
        bucket.create(PACK, DATA)
        url = public(proxy.url, bucket)
        yield Rig(proxy, HttpStore(url, limits=QUICK), HttpStore(url, limits=BRIEF))


@pytest.fixture
def rig(rigs: Rig) -> Iterator[Rig]:
    rigs.proxy.heal()
    yield rigs
    rigs.proxy.heal()


FAULTS = {
    "reset before the answer": Fault(keep=0),
    "closed before the answer": Fault(keep=0, then="close"),
    "never an answer": Fault(keep=0, then="hang"),
    "reset in the body": Fault(keep=1000),
    "closed in the body": Fault(keep=1000, then="close"),
    "stalled in the body": Fault(keep=1000, then="hang"),
    "429": Fault(429, {"Retry-After": "0"}),
    "500": Fault(500),
    "503": Fault(503, {}, b"<html>away</html>"),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_a_fault_passes_or_ends_in_time(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault, times=1)
    assert rig.store.get(PACK, limit=len(DATA)) == DATA
    rig.proxy.plan(fault, times=1)
    assert rig.store.get_range(PACK, 1000, 5000) == DATA[1000:6000]
    rig.proxy.plan(fault)
    for read in (
        lambda: rig.brief.get(PACK, limit=len(DATA)),
        lambda: rig.brief.get_range(PACK, 1000, 5000),
    ):
        start = time.monotonic()
        with pytest.raises(StoreUnavailable, match=rig.store.url):
            read()
        assert time.monotonic() - start < 12


def test_a_range_that_is_another_is_not_taken(rig: Rig) -> None:
    rig.proxy.plan(Fault(headers={"Content-Range": "bytes 0-4999/300000"}), times=1)
    assert rig.store.get_range(PACK, 1000, 5000) == DATA[1000:6000]


def test_a_drip_is_as_good_as_nothing(rig: Rig) -> None:
    rig.proxy.plan(Fault(drip=0.05))
    start = time.monotonic()
    with pytest.raises(StoreUnavailable):
        rig.brief.get_range(PACK, 0, 200_000)
    assert time.monotonic() - start < 12


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_asked_for_once(rig: Rig, status: int) -> None:
    rig.proxy.plan(Fault(status))
    with pytest.raises(StoreDenied):
        rig.store.get(NAME, limit=10)
    assert len(rig.proxy.requests) == 1


def test_an_object_that_was_compressed_on_its_way_is_refused(rig: Rig) -> None:
    rig.proxy.plan(Fault(headers={"Content-Encoding": "gzip"}))
    with pytest.raises(StoreUnavailable, match="compresses"):
        rig.store.get_range(PACK, 0, 10)


def test_an_endless_answer_is_cut_at_the_limit(rig: Rig) -> None:
    rig.proxy.plan(Fault(200, {"Content-Length": "99999999999"}, b"x" * 100, keep=100))
    with pytest.raises(OverLimit):
        rig.store.get(NAME, limit=50)


def test_connections_are_kept(rig: Rig) -> None:
    """Frames are many: a new connection for each would double their time."""
    ports = set()
    for at in range(5):
        rig.store.get_range(PACK, at, 10)
        ports.add(rig.proxy.requests[-1].port)
    assert len(ports) == 1


def test_it_can_only_be_read_and_says_so(rig: Rig) -> None:
    assert (rig.store.traits.writable, rig.store.traits.lists) == (False, False)
    assert list(rig.store.list("v1")) == []
    for use in (
        lambda: rig.store.create(NAME, b"x"),
        lambda: rig.store.delete(NAME),
        lambda: rig.store.quarantine(NAME),
    ):
        with pytest.raises(StoreDenied) as refused:
            use()
        assert f"read:{rig.store.url}" in refused.value.hint


@pytest.fixture
def plain(tmp_path: Path) -> Iterator[HttpStore]:
    """Python's own web server, which knows no ranges."""
    folder = tmp_path / "www"
    (folder / "v1").mkdir(parents=True)
    (folder / "v1" / "small").write_bytes(DATA)
    (folder / "v1" / "page.pack").write_bytes(bytes(100))
    with (folder / "v1" / "big").open("wb") as file:
        file.truncate(40 << 20)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *arguments: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        yield HttpStore(f"http://127.0.0.1:{server.server_address[1]}/", limits=QUICK)
        server.shutdown()


def test_a_server_without_ranges_gives_the_right_bytes_of_small_objects(plain: HttpStore) -> None:
    assert plain.get_range("v1/small", 1000, 10) == DATA[1000:1010]
    assert plain.size("v1/small") == len(DATA)
    with pytest.raises(Corrupt):
        plain.get_range("v1/small", len(DATA) - 5, 10)
    with pytest.raises(ObjectNotFound):
        plain.get("v1/none", limit=10)


def test_a_server_without_ranges_is_refused_for_large_objects(plain: HttpStore) -> None:
    with pytest.raises(StoreUnavailable, match="no ranges"):
        plain.get_range("v1/big", 0, 10)


@pytest.mark.parametrize(
    "url",
    [
        "https://",
        "https:///folder",
        "http://host:port/folder",
        "https://name:secret@host/folder",
        "https://host/folder?x=1",
        "https://[::1/folder",
    ],
)
def test_a_url_that_means_nothing_is_refused_at_once(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_store(url)
    assert "secret" not in str(refused.value) + refused.value.hint


@pytest.mark.parametrize("keep", [0, 1000], ids=["before the answer", "in the body"])
def test_reads_under_way_end_at_once_when_they_are_aborted(rig: Rig, keep: int) -> None:
    store = HttpStore(rig.store.url)  # with the usual, long deadlines
    rig.proxy.plan(Fault(keep=keep, then="hang"))
    with ThreadPoolExecutor() as pool:
        reads = [pool.submit(store.get_range, PACK, 0, 50_000) for _ in range(3)]
        until = time.monotonic() + 20
        while len(rig.proxy.requests) < 3 and time.monotonic() < until:
            time.sleep(0.02)
        time.sleep(0.2)
        start = time.monotonic()
        store.abort()
        for read in reads:
            with pytest.raises(StoreUnavailable, match="interrupted"):
                read.result(20)
        assert time.monotonic() - start < 8
    rig.proxy.heal()
    assert store.get_range(PACK, 0, 50_000) == DATA[:50_000]
