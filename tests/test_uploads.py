"""Large packs go up in parts: what arrived is not sent again, and nothing half-done stays."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import QUICK, gcs_store, s3_store
from fault_proxy import Fault, FaultProxy, Request, fault_proxy
from resumable import Resumable, resumable_server
from servers import open_url

from artcache.errors import ObjectExists, StoreUnavailable
from artcache.stores.remote import RemoteStore

pytestmark = pytest.mark.usefixtures("loopback_only")

NAME = "v1/packs/0a/0a.pack"
SIZE = 40_000_000
UNIT = 256 << 10


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("pack") / "pack"
    file.write_bytes(random.Random(1).randbytes(SIZE))
    return file


# -- Google: one session ------------------------------------------------------------------


@pytest.fixture
def google() -> Iterator[Resumable]:
    with resumable_server() as server:
        yield server


@pytest.fixture
def gs(google: Resumable, monkeypatch: pytest.MonkeyPatch) -> RemoteStore:
    return gcs_store(google.url, monkeypatch, bucket="abc", limits=QUICK)


def test_a_large_pack_arrives_with_its_digest_and_create_only(
    gs: RemoteStore, google: Resumable, pack: Path
) -> None:
    gs.create(NAME, pack)
    assert google.content[f"cache/{NAME}"] == pack.read_bytes()
    assert (google.received, google.begun, google.asked) == (SIZE, 1, 0)
    assert google.sessions["session-1"].over == "0"
    assert google.objects[f"cache/{NAME}"]["cacheControl"].startswith("public")


@pytest.mark.parametrize("fault", ["reset", "stalled"])
@pytest.mark.parametrize("after", [100_000, 10_000_000])
def test_what_a_cut_request_brought_is_not_sent_again(
    gs: RemoteStore, google: Resumable, pack: Path, fault: str, after: int
) -> None:
    google.cut = [(after, fault)]
    gs.create(NAME, pack)
    assert google.content[f"cache/{NAME}"] == pack.read_bytes()
    assert google.received <= SIZE + UNIT
    assert (google.begun, google.asked) == (1, 1)


def test_an_upload_that_gets_on_is_never_given_up(
    gs: RemoteStore, google: Resumable, pack: Path
) -> None:
    google.cut = [(4_000_000, "reset")] * 8
    assert len(google.cut) > 2 * QUICK.attempts
    gs.create(NAME, pack)
    assert google.content[f"cache/{NAME}"] == pack.read_bytes()
    assert google.received <= SIZE + 9 * UNIT


def test_one_that_does_not_get_on_is(gs: RemoteStore, google: Resumable, pack: Path) -> None:
    google.cut = [(1000, "reset")] * 50
    with pytest.raises(StoreUnavailable, match=f"{QUICK.attempts} times"):
        gs.create(NAME, pack)
    assert not google.objects


def test_a_lost_last_answer_is_asked_for(gs: RemoteStore, google: Resumable, pack: Path) -> None:
    google.cut = [(1 << 30, ""), (1 << 30, "lost")]
    gs.create(NAME, pack)
    assert (google.received, google.begun, google.asked) == (SIZE, 1, 1)


def test_a_session_that_the_server_forgot_is_begun_anew(
    gs: RemoteStore, google: Resumable, pack: Path
) -> None:
    google.cut = [(1_000_000, "reset")]
    google.forget = False

    class Forgetful(list[tuple[int, str]]):
        def pop(self, at: int = -1) -> tuple[int, str]:  # type: ignore[override]
            google.forget = True
            return super().pop(at)

    google.cut = Forgetful(google.cut)
    gs.create(NAME, pack)
    assert google.begun == 2
    assert google.content[f"cache/{NAME}"] == pack.read_bytes()


def test_another_s_pack_that_came_meanwhile_is_another_s(
    gs: RemoteStore, google: Resumable, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    google.objects[f"cache/{NAME}"] = {"size": "1", "generation": "1", "metadata": {}}
    monkeypatch.setattr(gs, "_is_there", lambda name: False)
    with pytest.raises(ObjectExists):
        gs.create(NAME, pack)
    assert google.objects[f"cache/{NAME}"]["size"] == "1"


def test_other_bytes_than_were_sent_are_removed_and_told(
    gs: RemoteStore, google: Resumable, pack: Path
) -> None:
    google.spoil = True
    with pytest.raises(StoreUnavailable, match="other bytes"):
        gs.create(NAME, pack)
    assert not google.objects


def test_a_real_emulator_takes_it_too(
    gcs_url: str, pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = gcs_store(gcs_url, monkeypatch)
    store.create(NAME, pack)
    assert store.size(NAME) == SIZE
    data = pack.read_bytes()
    assert store.get_range(NAME, 33_000_000, 5_000_000) == data[33_000_000:38_000_000]


# -- S3: parts ----------------------------------------------------------------------------


@pytest.fixture
def s3(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[RemoteStore, FaultProxy]]:
    with fault_proxy(s3_url) as proxy:
        direct = s3_store(s3_url, monkeypatch)
        bucket = direct.url.split("/")[2]
        store = s3_store(proxy.url, monkeypatch, bucket=bucket, limits=QUICK)
        yield store, proxy


def parts(proxy: FaultProxy) -> list[str]:
    """The number of each part that was sent."""
    return [
        r.path.partition("partNumber=")[2][:1] for r in proxy.requests if "partNumber" in r.path
    ]


def open_uploads(proxy: FaultProxy, store: RemoteStore) -> bool:
    return b"<UploadId>" in open_url(f"{proxy.upstream}/{store.url.split('/')[2]}?uploads")


def test_parts_make_one_object(s3: tuple[RemoteStore, FaultProxy], pack: Path) -> None:
    store, proxy = s3
    store.create(NAME, pack)
    assert sorted(parts(proxy)) == ["1", "2", "3"]
    data = pack.read_bytes()
    assert store.get_range(NAME, 16_000_000, 2_000_000) == data[16_000_000:18_000_000]
    assert store.size(NAME) == SIZE
    done = next(r for r in proxy.requests if r.method == "POST" and "uploadId" in r.path)
    assert done.headers["if-none-match"] == "*"


@pytest.mark.parametrize(
    "fault", [Fault(keep=0), Fault(503), Fault(deaf=1000)], ids=["reset", "503", "stalled"]
)
def test_only_the_part_that_failed_is_sent_again(
    s3: tuple[RemoteStore, FaultProxy], pack: Path, fault: Fault
) -> None:
    store, proxy = s3
    proxy.plan(fault, times=1, when=lambda request: "partNumber=2" in request.path)
    store.create(NAME, pack)
    assert sorted(parts(proxy)) == ["1", "2", "2", "3"]
    assert store.size(NAME) == SIZE


def test_an_upload_that_fails_leaves_no_parts_to_pay_for(
    s3: tuple[RemoteStore, FaultProxy], pack: Path
) -> None:
    store, proxy = s3
    proxy.plan(Fault(503), when=lambda request: "partNumber=3" in request.path)
    with pytest.raises(StoreUnavailable):
        store.create(NAME, pack)
    assert not open_uploads(proxy, store)
    assert not list(store.list("v1"))


def test_a_lost_answer_to_the_completion_is_no_other_s_object(
    s3: tuple[RemoteStore, FaultProxy], pack: Path
) -> None:
    def completes(request: Request) -> bool:
        return request.method == "POST" and "uploadId" in request.path

    store, proxy = s3
    proxy.plan(Fault(keep=0), times=1, when=completes)
    store.create(NAME, pack)
    assert sorted(parts(proxy)) == ["1", "2", "3"]
    assert store.size(NAME) == SIZE


def test_a_pack_that_came_meanwhile_stays_and_the_parts_go(
    s3: tuple[RemoteStore, FaultProxy], pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, proxy = s3
    store.create(NAME, b"another's")
    monkeypatch.setattr(store, "_is_there", lambda name: False)
    with pytest.raises(ObjectExists):
        store.create(NAME, pack)
    assert store.get(NAME, limit=100) == b"another's"
    assert not open_uploads(proxy, store)


def test_a_server_without_conditions_on_completion_is_written_all_the_same(
    s3: tuple[RemoteStore, FaultProxy], pack: Path
) -> None:
    store, proxy = s3
    refusal = b"<Error><Code>NotImplemented</Code><Message>no</Message></Error>"
    proxy.plan(Fault(501, {}, refusal), when=lambda request: "if-none-match" in request.headers)
    store.create(NAME, pack)
    assert store.size(NAME) == SIZE
