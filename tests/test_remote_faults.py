"""What becomes of each fault between here and a bucket: DESIGN.md, 8, by a proxy that makes them.

Every outcome is an `ArtcacheError`, within a deadline, and never another one's object.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from buckets import BRIEF, QUICK, gcs_store, s3_store
from fault_proxy import Fault, FaultProxy, fault_proxy
from servers import free_port

from artcache.errors import (
    ArtcacheError,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
)
from artcache.store import Store
from artcache.stores.http import HttpStore
from artcache.stores.remote import RemoteStore

pytestmark = pytest.mark.usefixtures("loopback_only")

NAME = "v1/manifests/thing/0a.json"
PACK = "v1/packs/0a/0a.pack"
DATA = bytes(i % 251 for i in range(300_000))
DEADLINE = 20.0


class Rig(NamedTuple):
    """A store behind a proxy, and the same without it."""

    proxy: FaultProxy
    store: RemoteStore
    brief: RemoteStore
    """The same, for a fault that stays."""
    direct: RemoteStore


@pytest.fixture(params=["gs", "s3"], scope="module")
def rigs(request: pytest.FixtureRequest) -> Iterator[Rig]:
    make = {"gs": gcs_store, "s3": s3_store}[request.param]
    upstream: str = request.getfixturevalue({"gs": "gcs_url", "s3": "s3_url"}[request.param])
    with pytest.MonkeyPatch.context() as patch, fault_proxy(upstream) as proxy:
        direct = make(upstream, patch)
        direct.create(NAME, b"content")
        direct.create(PACK, DATA)
        bucket = direct.url.split("/")[2]
        store, brief = (make(proxy.url, patch, bucket=bucket, limits=one) for one in (QUICK, BRIEF))
        assert store.identity == brief.identity
        yield Rig(proxy, store, brief, direct)


@pytest.fixture
def rig(rigs: Rig) -> Iterator[Rig]:
    rigs.proxy.heal()
    yield rigs
    rigs.proxy.heal()


def timed(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


PASSING = {
    "reset before the answer": Fault(keep=0),
    "closed before the answer": Fault(keep=0, then="close"),
    "never an answer": Fault(keep=0, then="hang"),
    "reset in the body": Fault(keep=3),
    "closed in the body": Fault(keep=3, then="close"),
    "stalled in the body": Fault(keep=3, then="hang"),
    "shorter by somebody's lie": Fault(keep=3, then="lie"),
    "other bytes of the same length": Fault(swap=b"CONTENT"),
    "429": Fault(429, {"Retry-After": "0"}),
    "500": Fault(500),
    "502 with a page": Fault(502, {"Content-Type": "text/html"}, b"<html>Bad gateway</html>"),
    "503": Fault(503, {}, b"<Error><Code>SlowDown</Code></Error>"),
    "408": Fault(408),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_not_noticed(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault, times=1)
    assert timed(lambda: rig.store.get(NAME, limit=100)) < DEADLINE
    assert rig.store.get(NAME, limit=100) == b"content"


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_stays_is_an_unavailable_store_in_time(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault)
    start = time.monotonic()
    with pytest.raises(StoreUnavailable) as stopped:
        rig.brief.get(NAME, limit=100)
    assert time.monotonic() - start < DEADLINE
    assert rig.store.url in str(stopped.value)
    # aiohttp by itself repeats a GET whose connection went away; who is busy is asked longer.
    assert len(rig.proxy.requests) <= (5 if fault.status == 429 else 2) * QUICK.attempts


RANGE_FAULTS = {
    "reset": Fault(keep=1000),
    "stalled": Fault(keep=1000, then="hang"),
    "shorter": Fault(keep=1000, then="lie"),
    "500": Fault(500),
    "other bytes than asked for": Fault(headers={"Content-Range": "bytes 0-49999/300000"}),
    "no Content-Range": Fault(headers={"Content-Range": "nonsense"}),
}


@pytest.mark.parametrize("fault", RANGE_FAULTS.values(), ids=RANGE_FAULTS)
def test_a_range_is_read_again_and_never_taken_for_corrupt(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault, times=1)
    assert rig.store.get_range(PACK, 100_000, 50_000) == DATA[100_000:150_000]
    rig.proxy.plan(fault)
    with pytest.raises(StoreUnavailable):
        rig.brief.get_range(PACK, 100_000, 50_000)


BREAKS = {
    "closed": Fault(keep=100_000, then="close"),
    "stalled": Fault(keep=100_000, then="hang"),
    "shorter": Fault(keep=100_000, then="lie"),
}


@pytest.mark.parametrize("fault", BREAKS.values(), ids=BREAKS)
def test_a_read_that_broke_off_goes_on_at_that_byte(rig: Rig, fault: Fault) -> None:
    out = bytearray(len(DATA))
    came: list[int] = []
    rig.proxy.plan(fault, times=1)
    rig.store.stream(PACK, 0, memoryview(out), came.append)
    assert out == DATA
    assert came == sorted(came) and came[-1] == len(DATA)
    if fault.then != "lie":  # whose head was wrong, so nothing of it counts
        starts = [int(r.headers["range"][6:].split("-")[0]) for r in rig.proxy.requests]
        assert starts[0] == 0 and 0 < starts[-1] <= 100_000


def test_a_link_that_breaks_again_and_again_brings_a_long_read_all_the_same(rig: Rig) -> None:
    name, data = "v1/packs/0b/0b.pack", bytes(i % 249 for i in range(9_000_000))
    rig.direct.create(name, data)
    out = bytearray(len(data))
    rig.proxy.plan(Fault(keep=1_200_000, then="close"))
    rig.store.stream(name, 0, memoryview(out), lambda count: None)
    assert out == data
    assert len(rig.proxy.requests) > QUICK.attempts


def test_a_read_ends_where_its_reader_wants_no_more(rig: Rig) -> None:
    def enough(count: int) -> None:
        raise StoreUnavailable("enough")

    with pytest.raises(StoreUnavailable, match="enough"):
        rig.store.stream(PACK, 0, memoryview(bytearray(len(DATA))), enough)
    assert len(rig.proxy.requests) == 1
    assert rig.store.get(NAME, limit=100) == b"content"


def test_a_server_that_drips_is_as_good_as_down(rig: Rig) -> None:
    rig.proxy.plan(Fault(drip=0.05))
    start = time.monotonic()
    with pytest.raises(StoreUnavailable):
        rig.brief.get_range(PACK, 0, 100_000)
    assert time.monotonic() - start < DEADLINE


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_is_not_tried_again_and_names_the_credential(rig: Rig, status: int) -> None:
    rig.proxy.plan(Fault(status))
    for use in (
        lambda: rig.store.get(NAME, limit=10),
        lambda: rig.store.create("v1/new", b"x"),
        lambda: list(rig.store.list("v1")),
        lambda: rig.store.delete(NAME),
    ):
        rig.proxy.requests.clear()
        with pytest.raises(StoreDenied) as refused:
            use()
        assert len(rig.proxy.requests) == 1
        assert rig.store.identity in str(refused.value)
        assert "sign in" in refused.value.hint or "AWS_ACCESS_KEY_ID" in refused.value.hint


def test_a_refused_write_says_how_to_do_without(rig: Rig) -> None:
    rig.proxy.plan(Fault(403))
    with pytest.raises(StoreDenied) as refused:
        rig.store.create("v1/new", b"x")
    assert f"read:{rig.store.url}" in refused.value.hint


def test_the_server_s_wish_to_be_left_alone_is_granted(rig: Rig) -> None:
    rig.proxy.plan(Fault(429, {"Retry-After": "1"}), times=1)
    assert 1.0 <= timed(lambda: rig.store.get(NAME, limit=100)) < 8


def test_a_server_that_is_asked_by_too_many_is_asked_for_as_long_as_we_are_patient(
    rig: Rig,
) -> None:
    rig.proxy.plan(Fault(429), times=QUICK.attempts + 2)
    assert rig.store.get(NAME, limit=100) == b"content"
    rig.proxy.plan(Fault(429))
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match="429"):
        rig.brief.create("v1/new", b"x")
    assert time.monotonic() - start < DEADLINE


def test_a_wish_beyond_our_patience_ends_at_once(rig: Rig) -> None:
    rig.proxy.plan(Fault(503, {"Retry-After": "3600"}))
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match="3600 s"):
        rig.store.get(NAME, limit=100)
    assert time.monotonic() - start < 5
    assert len(rig.proxy.requests) == 1


@pytest.mark.parametrize("make", [gcs_store, s3_store])
def test_a_server_that_is_down_is_unavailable_in_time(
    make: Callable[..., RemoteStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    store = make(url, monkeypatch, bucket="abc", limits=QUICK)
    start = time.monotonic()
    with pytest.raises(StoreUnavailable):
        store.get(NAME, limit=100)
    assert time.monotonic() - start < DEADLINE


# -- writing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [Fault(keep=0), Fault(503), Fault(keep=0, then="hang"), Fault(429, {"Retry-After": "0"})],
    ids=["reset", "503", "hang", "429"],
)
def test_an_answer_that_was_lost_is_no_other_s_object(
    rig: Rig, fault: Fault, tmp_path: Path
) -> None:
    """The first attempt may have stored it: the second finds its own object."""
    name = f"v1/lost/{time.time_ns()}"
    (tmp_path / "pack").write_bytes(DATA[:100_000])
    for end, content in ((".json", b"mine"), (".pack", tmp_path / "pack")):
        rig.proxy.plan(fault, times=1, when=lambda request: request.method in ("POST", "PUT"))
        rig.store.create(name + end, content)
    assert rig.direct.get(f"{name}.json", limit=10) == b"mine"
    assert rig.direct.get(f"{name}.pack", limit=100_000) == DATA[:100_000]


def test_the_same_bytes_by_another_are_another_s(rig: Rig) -> None:
    with pytest.raises(ObjectExists):
        rig.store.create(NAME, b"content")


def test_another_s_object_is_another_s_also_after_a_fault(rig: Rig) -> None:
    rig.proxy.plan(Fault(500), times=1)
    with pytest.raises(ObjectExists):
        rig.store.create(NAME, b"other!!")
    assert rig.direct.get(NAME, limit=100) == b"content"


def test_an_upload_to_a_deaf_server_ends_in_time_and_leaves_nothing(
    rig: Rig, tmp_path: Path
) -> None:
    big = tmp_path / "pack"
    big.write_bytes(bytes(12_000_000))  # more than the sockets hold
    rig.proxy.plan(Fault(deaf=100_000), when=lambda request: request.method in ("POST", "PUT"))
    start = time.monotonic()
    with pytest.raises(StoreUnavailable):
        rig.brief.create("v1/big.pack", big)
    assert time.monotonic() - start < DEADLINE
    assert not [entry for entry in rig.direct.list("v1") if entry.name == "v1/big.pack"]


def test_a_pack_that_is_there_is_not_sent_again(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(DATA)
    with pytest.raises(ObjectExists):
        rig.store.create(PACK, tmp_path / "pack")
    assert not [r for r in rig.proxy.requests if r.method in ("POST", "PUT")]


def test_an_object_is_whole_whatever_its_bytes(rig: Rig) -> None:
    """gcsfs parts an upload at `--==0==`, which may as well be in the object."""
    content = b"a\r\n--==0==\r\nContent-Type: text/plain\r\n\r\nb\n--==0==--\r\n"
    rig.store.create("v1/odd", content)
    assert rig.direct.get("v1/odd", limit=1000) == content


# -- what is not there --------------------------------------------------------------------


def test_a_bucket_that_is_not_there_is_named_with_the_way_to_make_it(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = gcs_store if rig.store.url.startswith("gs") else s3_store
    store = make(rig.proxy.url, monkeypatch, bucket="no-such-bucket", limits=QUICK)
    for use in (
        lambda: store.get(NAME, limit=10),
        lambda: store.get_range(NAME, 0, 1),
        lambda: store.size(NAME),
        lambda: store.create(NAME, b"x"),
        lambda: list(store.list("v1")),
        lambda: store.quarantine(NAME),
    ):
        with pytest.raises(StoreUnavailable, match="no-such-bucket") as missing:
            use()
        assert not isinstance(missing.value, StoreDenied)
        assert "no-such-bucket" in missing.value.hint


def test_a_miss_is_one_request_once_the_bucket_is_known(rig: Rig) -> None:
    rig.store.get(NAME, limit=100)
    rig.proxy.requests.clear()
    with pytest.raises(ObjectNotFound):
        rig.store.get("v1/manifests/thing/0b.json", limit=10)
    assert len(rig.proxy.requests) == 1


def test_a_listing_comes_in_pages_and_survives_a_fault_between_them(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def small_page(top: str, token: str, most: int = 2) -> object:
        return page(top, token, 2)

    for number in range(5):
        rig.direct.create(f"v1/many/{number}", b"x")
    page = rig.store._page
    monkeypatch.setattr(rig.store, "_page", small_page)
    listing = rig.store.list("v1/many")
    first = next(listing)
    rig.proxy.plan(Fault(503), times=1)
    assert sorted([first.name, *(entry.name for entry in listing)]) == [
        f"v1/many/{number}" for number in range(5)
    ]


# -- names and certificates ---------------------------------------------------------------


def certificate(folder: Path) -> Path:
    """A certificate that nobody has signed but itself, with its key."""
    x509 = pytest.importorskip("cryptography.x509")
    import datetime
    import ipaddress

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.timezone.utc)
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "certificate.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    path.write_bytes(built.public_bytes(serialization.Encoding.PEM) + private)
    return path


@pytest.mark.parametrize("kind", ["gs", "s3", "https"])
def test_a_certificate_that_nobody_knows_is_said_and_not_tried_again(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import ssl

    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(certificate(tmp_path))
    with fault_proxy("http://127.0.0.1:1", tls=tls) as proxy:
        store: Store
        if kind == "gs":
            store = gcs_store(proxy.url, monkeypatch, bucket="abc", limits=QUICK)
        elif kind == "s3":
            store = s3_store(proxy.url, monkeypatch, bucket="abc", limits=QUICK)
        else:
            store = HttpStore(proxy.url, limits=QUICK)
        with pytest.raises(StoreUnavailable, match="secure connection") as refused:
            store.get(NAME, limit=10)
    assert "certificates" in refused.value.hint
    assert "times" not in str(refused.value)


@pytest.mark.parametrize("kind", ["gs", "s3"])
def test_a_host_that_does_not_exist_is_unavailable(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    make = gcs_store if kind == "gs" else s3_store
    store = make("http://no-such-host.invalid", monkeypatch, bucket="abc", limits=QUICK)
    with pytest.raises(StoreUnavailable):
        store.get(NAME, limit=10)


def test_a_machine_that_swallows_packets_costs_the_connection_s_deadline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A listening socket whose queue is full answers nothing at all."""
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        with contextlib.ExitStack() as stack:
            for _ in range(4):
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(("127.0.0.1", port))
            store = gcs_store(f"http://127.0.0.1:{port}", monkeypatch, bucket="abc", limits=QUICK)
            start = time.monotonic()
            with pytest.raises(StoreUnavailable):
                store.get(NAME, limit=10)
            assert time.monotonic() - start < DEADLINE


def test_a_fault_of_our_own_making_is_ours_all_the_same(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*arguments: object) -> None:
        raise RuntimeError("a library's surprise")

    monkeypatch.setattr(rig.store, "_once", broken)
    with pytest.raises(ArtcacheError, match="a library's surprise"):
        rig.store.get(NAME, limit=10)


def test_sizes_are_asked_of_the_server(rig: Rig) -> None:
    rig.proxy.plan(Fault(503), times=1)
    assert rig.store.size(PACK) == len(DATA)
