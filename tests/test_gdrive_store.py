"""A folder of Google Drive by its API: the contract, and what only Drive does."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import pytest
from buckets import BRIEF, QUICK
from drive_server import TOKEN, DriveServer, drive_server
from fault_proxy import Fault, FaultProxy, Request, fault_proxy
from store_contract import NAME, PACK, StoreContract, names
from test_google_login import key_file, user_file

from artcache.errors import (
    ArtcacheError,
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
)
from artcache.stores import google_login
from artcache.stores.faults import Limits
from artcache.stores.gdrive import GDriveStore

pytest.importorskip("googleapiclient")
pytestmark = pytest.mark.usefixtures("loopback_only")

DATA = bytes(i % 251 for i in range(300_000))
DEADLINE = 20.0


@pytest.fixture
def drive() -> Iterator[DriveServer]:
    with drive_server() as server:
        yield server


@pytest.fixture(scope="session")
def robot(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A service account's key; put the token's address into it with `sign_in`."""
    return key_file(tmp_path_factory.mktemp("robot") / "key.json", "TOKEN-URL")


@pytest.fixture(autouse=True)
def sign_in(
    request: pytest.FixtureRequest, robot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(google_login, "_DMI", tmp_path / "none")
    drive: DriveServer = request.getfixturevalue("drive")
    key = tmp_path / "key.json"
    key.write_text(robot.read_text().replace("TOKEN-URL", f"{drive.url}/token"))
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(key))


def opened(
    drive: DriveServer, root: str = "", folder: str = "my cache", limits: Limits = QUICK
) -> GDriveStore:
    root = root or drive.add("root")
    return GDriveStore(
        f"gdrive://{root}/{folder}", root, folder, limits=limits, endpoint=drive.public_url
    )


class TestContract(StoreContract):
    @pytest.fixture
    def store(self, drive: DriveServer) -> GDriveStore:
        return opened(drive)


class Rig(NamedTuple):
    """A store behind a proxy."""

    drive: DriveServer
    proxy: FaultProxy
    store: GDriveStore
    brief: GDriveStore
    """The same, for a fault that stays."""


@pytest.fixture
def rig(drive: DriveServer) -> Iterator[Rig]:
    with fault_proxy(drive.url) as proxy:
        drive.public_url = proxy.url
        store = opened(drive)
        store.create(NAME, b"content")
        store.create(PACK, DATA)
        brief = opened(drive, store.url.split("/")[2], limits=BRIEF)
        assert brief.get(NAME, limit=10) == b"content"  # as `store`, it knows the folders
        proxy.heal()
        yield Rig(drive, proxy, store, brief)


def is_media(request: Request) -> bool:
    return "alt=media" in request.path


def is_upload(request: Request) -> bool:
    return request.path.startswith("/upload")


def refusal(reason: str, status: int = 403) -> Fault:
    row = f'{{"domain": "x", "reason": "{reason}", "message": "because {reason}"}}'
    body = f'{{"error": {{"code": {status}, "message": "because {reason}", "errors": [{row}]}}}}'
    return Fault(status, {"Content-Type": "application/json"}, body.encode())


# -- names --------------------------------------------------------------------------------


def test_folders_are_made_once_also_by_many_threads(drive: DriveServer) -> None:
    store = opened(drive)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: store.create(f"v1/packs/0a/{n}.pack", b"x"), range(8)))
    assert [len(drive.named(name)) for name in ("my cache", "v1", "packs", "0a")] == [1, 1, 1, 1]


def test_doubled_folders_are_read_as_one(drive: DriveServer) -> None:
    store = opened(drive)
    store.create("v1/manifests/thing/1.json", b"1")
    (cache,) = drive.named("my cache")
    for above, below in (("v1", "manifests"), ("v1", "other")):
        other = drive.add(above, cache.id)
        drive.add("2.json", drive.add("thing", drive.add(below, other)), content=b"22")

    fresh = opened(drive, cache.parents[0])

    assert names(fresh, "v1/manifests") == [f"v1/manifests/thing/{n}.json" for n in (1, 2)]
    assert fresh.get("v1/manifests/thing/2.json", limit=9) == b"22"
    assert fresh.get("v1/other/thing/2.json", limit=9) == b"22"
    fresh.create("v1/manifests/thing/3.json", b"3")
    assert len(drive.named("thing")) == 3  # no fourth one


def test_a_listing_comes_in_pages(drive: DriveServer) -> None:
    store = opened(drive)
    for number in range(5):
        store.create(f"v1/many/{number}", b"x")
    drive.page = 2
    assert names(store, "v1") == [f"v1/many/{number}" for number in range(5)]


def test_of_files_with_one_name_the_oldest_is_the_object(drive: DriveServer) -> None:
    store = opened(drive)
    store.create(NAME, b"first")
    (first,) = drive.named("0a.json")
    second = drive.items[drive.add("0a.json", first.parents[0], content=b"second")]
    assert store.get(NAME, limit=10) == b"first"
    assert [entry.size for entry in store.list("v1")] == [5]
    first.created, second.created = second.created, first.created
    store = opened(drive, store.url.split("/")[2])
    assert store.get(NAME, limit=10) == b"second"
    store.quarantine(NAME)
    assert store.get(NAME, limit=10) == b"first"
    drive.add("0a.json", first.parents[0], content=b"third")
    store.delete(NAME)
    assert names(store, "v1/manifests") == []


def test_a_writer_that_finds_an_older_one_takes_its_own_away(rig: Rig) -> None:
    """Two machines look, find nothing, and both upload."""
    name = "v1/packs/0b/0b.pack"
    other = opened(rig.drive, rig.store.url.split("/")[2])
    here, there = threading.Event(), threading.Event()
    upload = rig.store._api.upload

    def late(*words: object) -> object:
        here.set()
        there.wait(10)
        return upload(*words)  # type: ignore[arg-type]

    rig.store._api.upload = late  # type: ignore[assignment, method-assign]
    with ThreadPoolExecutor() as pool:
        second = pool.submit(rig.store.create, name, DATA)
        here.wait(10)
        other.create(name, DATA)
        there.set()
        with pytest.raises(ObjectExists):
            second.result(20)
    assert len(rig.drive.named("0b.pack")) == 1
    assert rig.store.get_range(name, 5, 100) == DATA[5:105]


def test_what_is_in_the_trash_is_not_there(rig: Rig) -> None:
    (file,) = rig.drive.named("0a.json")
    file.trashed = True
    with pytest.raises(ObjectNotFound):
        rig.store.get(NAME, limit=10)
    assert names(rig.store, "v1/manifests") == []
    rig.store.create(NAME, b"again")
    assert rig.store.get(NAME, limit=10) == b"again"


def test_a_folder_that_was_put_into_the_trash_is_made_anew(rig: Rig) -> None:
    for item in rig.drive.named("manifests"):
        item.trashed = True
    rig.store.create("v1/manifests/thing/0b.json", b"new")
    assert rig.store.get("v1/manifests/thing/0b.json", limit=10) == b"new"


def test_a_folder_that_was_deleted_is_made_anew(rig: Rig) -> None:
    for item in rig.drive.named("thing"):
        del rig.drive.items[item.id]
    rig.store.create("v1/manifests/thing/0b.json", b"new")
    assert rig.store.get("v1/manifests/thing/0b.json", limit=10) == b"new"


def test_a_name_of_other_letters_is_another_name(rig: Rig) -> None:
    with pytest.raises(ObjectNotFound):
        rig.store.get(NAME.upper().replace("V1/MANIFESTS/THING", "v1/manifests/thing"), limit=10)


def test_what_drive_calls_a_document_is_no_object(rig: Rig) -> None:
    (file,) = rig.drive.named("0a.json")
    note = rig.drive.items[rig.drive.add("note", file.parents[0], content=b"")]
    note.mime = "application/vnd.google-apps.document"
    assert names(rig.store, "v1/manifests") == [NAME]


def test_what_may_not_be_deleted_goes_into_the_trash(rig: Rig) -> None:
    rig.drive.may_delete = False
    rig.store.delete(NAME)
    assert rig.drive.named("0a.json")[0].trashed
    assert names(rig.store, "v1/manifests") == []


def test_quarantine_moves_the_file_and_says_where(rig: Rig) -> None:
    where = rig.store.quarantine(NAME)
    assert where.startswith(f"{rig.store.url}/v1/quarantine/v1.manifests.thing.0a.json.")
    assert where.removeprefix(f"{rig.store.url}/") in "\n".join(
        path.removeprefix("my cache/") for path in rig.drive.paths()
    )


# -- the folder ---------------------------------------------------------------------------

USES = {
    "get": lambda store: store.get(NAME, limit=10),
    "get_range": lambda store: store.get_range(NAME, 0, 1),
    "size": lambda store: store.size(NAME),
    "create": lambda store: store.create(NAME, b"x"),
    "list": lambda store: list(store.list("v1")),
    "quarantine": lambda store: store.quarantine(NAME),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("folder", ["", "my cache"])
def test_a_folder_that_is_not_there_is_no_miss_and_says_whom_to_share_it_with(
    drive: DriveServer, use: Callable[[GDriveStore], object], folder: str
) -> None:
    drive.account = "robot@example.org"
    with pytest.raises(StoreUnavailable, match="there is no folder 1abcdef") as missing:
        use(opened(drive, "1abcdef", folder))
    assert "robot@example.org" in missing.value.hint
    assert "Editor" in missing.value.hint


def test_a_root_in_the_trash_and_one_that_is_a_file_are_said(drive: DriveServer) -> None:
    root = drive.add("root")
    drive.items[root].trashed = True
    with pytest.raises(StoreUnavailable, match="in the trash"):
        opened(drive, root).create(NAME, b"x")
    with pytest.raises(StoreUnavailable, match="no folder"):
        opened(drive, drive.add("notes.txt", content=b"x")).get(NAME, limit=1)


def test_whether_it_may_be_written_is_asked_without_a_trace(drive: DriveServer) -> None:
    store = opened(drive)
    store.probe()
    drive.may_write = False
    with pytest.raises(StoreDenied, match="no new files") as refused:
        store.probe()
    assert "as Editor" in refused.value.hint
    assert drive.paths() == []
    with pytest.raises(StoreDenied, match="Not for you"):
        store.create(NAME, b"x")


# -- credentials --------------------------------------------------------------------------


def test_without_a_credential_the_fix_is_named_at_once(
    drive: DriveServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    start = time.monotonic()
    with pytest.raises(StoreDenied, match="no Google credential") as refused:
        opened(drive).get(NAME, limit=10)
    assert time.monotonic() - start < 3
    assert "--client-id-file" in refused.value.hint
    assert "authenticate_user" in refused.value.hint
    assert not drive.requests


def test_the_token_goes_to_drive_and_into_no_message(rig: Rig) -> None:
    assert rig.store.identity == "service account robot@example.org"
    rig.store.get(NAME, limit=10)
    assert {request.headers["authorization"] for request in rig.proxy.requests} == {
        f"Bearer {TOKEN}"
    }
    rig.proxy.plan(Fault(keep=0))
    said = []
    for use in (*USES.values(), lambda store: store.create("v1/new", DATA * 20)):
        with pytest.raises(ArtcacheError) as failed:
            use(rig.store)
        said.append(f"{failed.value} {failed.value.hint}")
    assert TOKEN not in " ".join(said)


def test_netrc_does_not_take_the_token_s_place(rig: Rig, isolated: Path) -> None:
    netrc = isolated / ".netrc"
    netrc.write_text("machine 127.0.0.1 login someone password else\n")
    netrc.chmod(0o600)
    assert rig.store.get(NAME, limit=10) == b"content"


def test_a_user_is_named_by_the_address_that_drive_knows(
    drive: DriveServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from google.oauth2 import credentials

    user_file(tmp_path / "user.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "user.json"))

    def refreshed(self: credentials.Credentials, request: object) -> None:
        self.token = TOKEN

    monkeypatch.setattr(credentials.Credentials, "refresh", refreshed)
    with pytest.raises(StoreUnavailable, match=r"me@example\.org may not see it"):
        opened(drive, "1abcdef").get(NAME, limit=10)


# -- refusals -----------------------------------------------------------------------------

PASSING_REASONS = ["rateLimitExceeded", "userRateLimitExceeded", "sharingRateLimitExceeded"]


@pytest.mark.parametrize("reason", PASSING_REASONS)
def test_too_many_requests_is_no_refusal(rig: Rig, reason: str) -> None:
    rig.proxy.plan(refusal(reason), times=2)
    assert rig.store.get(NAME, limit=10) == b"content"
    rig.proxy.plan(refusal(reason))
    with pytest.raises(StoreUnavailable, match=reason) as stopped:
        rig.brief.get(NAME, limit=10)
    assert not isinstance(stopped.value, StoreDenied)


REFUSALS = {
    "storageQuotaExceeded": (StoreUnavailable, "a service account has no space in My Drive"),
    "dailyLimitExceeded": (StoreUnavailable, ""),
    "cannotDownloadAbusiveFile": (StoreUnavailable, ""),
    "accessNotConfigured": (StoreDenied, "gcloud services enable drive.googleapis.com"),
    "insufficientPermissions": (StoreDenied, "--scopes="),
    "insufficientFilePermissions": (StoreDenied, "share the folder with service account robot@"),
}


@pytest.mark.parametrize("reason", REFUSALS)
def test_a_refusal_is_asked_for_once_and_names_the_fix(rig: Rig, reason: str) -> None:
    kind, hint = REFUSALS[reason]
    rig.proxy.plan(refusal(reason), when=is_upload)
    for content in (b"x", DATA * 20):
        rig.proxy.requests.clear()
        with pytest.raises(kind, match=reason) as refused:
            rig.store.create("v1/new", content)
        assert hint in refused.value.hint
        assert len(list(filter(is_upload, rig.proxy.requests))) == 1


def test_a_drive_that_is_full_says_so(drive: DriveServer) -> None:
    store = opened(drive)
    drive.space = 1_000_000
    with pytest.raises(StoreUnavailable, match="is full for service account") as full:
        store.create(PACK, bytes(2_000_000))
    assert "Shared Drive" in full.value.hint
    assert drive.named("0a.pack") == []


@pytest.mark.parametrize("status", [401, 403])
def test_other_refusals_name_the_credential(rig: Rig, status: int) -> None:
    rig.proxy.plan(Fault(status))
    for use in USES.values():
        rig.proxy.requests.clear()
        with pytest.raises(StoreDenied, match="robot@example") as refused:
            use(rig.store)
        assert refused.value.hint
        assert len(rig.proxy.requests) == 1


# -- faults that pass ---------------------------------------------------------------------

PASSING = {
    "reset before the answer": Fault(keep=0),
    "closed before the answer": Fault(keep=0, then="close"),
    "never an answer": Fault(keep=0, then="hang"),
    "reset in the body": Fault(keep=3),
    "closed in the body": Fault(keep=3, then="close"),
    "stalled in the body": Fault(keep=3, then="hang"),
    "shorter by somebody's lie": Fault(keep=3, then="lie"),
    "429": Fault(429, {"Retry-After": "0"}),
    "500": Fault(500),
    "503": Fault(503),
    "a page": Fault(200, {"Content-Type": "text/html"}, b"<html>Welcome to the hotel</html>"),
}


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_passes_is_not_noticed(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault, times=1)
    rig.proxy.plan(fault, times=1, when=is_media)
    assert rig.store.get(NAME, limit=100) == b"content"
    rig.proxy.plan(fault, times=1, when=is_media)
    assert rig.store.get_range(PACK, 1000, 5000) == DATA[1000:6000]


@pytest.mark.parametrize("fault", PASSING.values(), ids=PASSING)
def test_a_fault_that_stays_ends_in_time(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault)
    start = time.monotonic()
    with pytest.raises(StoreUnavailable) as stopped:
        rig.brief.get(NAME, limit=100)
    assert time.monotonic() - start < DEADLINE
    assert rig.store.url in str(stopped.value)


RANGE_FAULTS = {
    "shorter": Fault(keep=1000, then="lie"),
    "other bytes": Fault(headers={"Content-Range": "bytes 0-49999/300000"}),
    "no Content-Range": Fault(headers={"Content-Range": "nonsense"}),
    "the whole": Fault(200, {}, DATA[:50_000]),
}


@pytest.mark.parametrize("fault", RANGE_FAULTS.values(), ids=RANGE_FAULTS)
def test_a_range_is_read_again_and_never_taken_for_corrupt(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault, times=1, when=is_media)
    assert rig.store.get_range(PACK, 100_000, 50_000) == DATA[100_000:150_000]
    rig.proxy.plan(fault, when=is_media)
    with pytest.raises(StoreUnavailable):
        rig.brief.get_range(PACK, 100_000, 50_000)


def test_other_bytes_than_drive_stores_are_asked_for_again(rig: Rig) -> None:
    rig.proxy.plan(Fault(swap=b"CONTENT"), times=1, when=is_media)
    assert rig.store.get(NAME, limit=10) == b"content"


def test_a_wish_to_be_left_alone_is_granted(rig: Rig) -> None:
    rig.proxy.plan(Fault(429, {"Retry-After": "1"}), times=1)
    start = time.monotonic()
    rig.store.get(NAME, limit=100)
    assert time.monotonic() - start >= 1.0
    rig.proxy.plan(Fault(429, {"Retry-After": "3600"}))
    with pytest.raises(StoreUnavailable, match="3600 s"):
        rig.store.get(NAME, limit=100)


def test_frames_are_read_with_one_request_each(rig: Rig) -> None:
    rig.store.get_range(PACK, 0, 10)
    rig.proxy.requests.clear()
    for offset in range(0, 1000, 100):
        rig.store.get_range(PACK, offset, 100)
    assert len(rig.proxy.requests) == 10


def test_what_was_just_listed_is_not_looked_for(rig: Rig) -> None:
    fresh = opened(rig.drive, rig.store.url.split("/")[2])
    assert names(fresh, "v1/manifests") == [NAME]
    rig.proxy.requests.clear()
    assert fresh.get(NAME, limit=10) == b"content"
    assert [is_media(request) for request in rig.proxy.requests] == [True]
    names(fresh, "v1/manifests")
    fresh.delete(NAME)
    with pytest.raises(ObjectNotFound):
        fresh.get(NAME, limit=10)


def test_many_threads_look_once(rig: Rig) -> None:
    fresh = opened(rig.drive, rig.store.url.split("/")[2])
    with ThreadPoolExecutor(8) as pool:
        parts = pool.map(lambda at: fresh.get_range(PACK, at, 1000), range(0, 8000, 1000))
        assert b"".join(parts) == DATA[:8000]
    # the root's folder, v1, what is in it, the shard, the pack
    assert sum(not is_media(request) for request in rig.proxy.requests) == 5


def test_a_server_that_is_down_is_unavailable(drive: DriveServer) -> None:
    store = opened(drive)
    assert store.identity
    drive.close()
    with pytest.raises(StoreUnavailable):
        store.get(NAME, limit=10)


# -- uploads ------------------------------------------------------------------------------

BIG = bytes(range(256)) * 80_000  # 20 MB: three chunks
LOST = {
    "reset": Fault(keep=0),
    "503": Fault(503),
    "hang": Fault(keep=0, then="hang"),
    "429": Fault(429, {"Retry-After": "0"}),
}


@pytest.mark.parametrize("fault", LOST.values(), ids=LOST)
def test_an_answer_that_was_lost_makes_no_second_file(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault, times=1, when=is_upload)
    rig.store.create("v1/small", b"mine")
    assert rig.store.get("v1/small", limit=10) == b"mine"
    assert len(rig.drive.named("small")) == 1


@pytest.mark.parametrize(
    ("fault", "at"),
    [
        (LOST["reset"], 1),
        (LOST["reset"], 2),
        (LOST["reset"], 3),
        (LOST["503"], 2),
        (LOST["hang"], 3),
        (Fault(deaf=3_000_000), 2),
    ],
    ids=["first", "second", "last", "503", "hang", "deaf"],
)
def test_an_upload_goes_on_where_it_was_cut(
    rig: Rig, tmp_path: Path, fault: Fault, at: int
) -> None:
    (tmp_path / "pack").write_bytes(BIG)
    seen = [0]

    def chunk(request: Request) -> bool:
        seen[0] += request.method == "PUT"
        return request.method == "PUT" and seen[0] == at

    rig.proxy.plan(fault, times=1, when=chunk)
    rig.store.create("v1/big.pack", tmp_path / "pack")
    (stored,) = rig.drive.named("big.pack")
    assert stored.content == BIG
    assert len(rig.drive.uploads) == 1
    sent = [r for r in rig.proxy.requests if r.method == "PUT"]
    assert len(sent) <= 5  # three chunks, the question how far it came, one chunk again


def test_an_upload_that_drive_forgot_begins_anew(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(BIG)
    forget = refusal("notFound", 404)
    rig.proxy.plan(forget, times=1, when=lambda request: request.method == "PUT")
    rig.store.create("v1/big.pack", tmp_path / "pack")
    assert [item.content == BIG for item in rig.drive.named("big.pack")] == [True]


def test_an_upload_that_does_not_advance_ends(rig: Rig) -> None:
    rig.proxy.plan(Fault(308), when=lambda request: request.method == "PUT")
    with pytest.raises(StoreUnavailable, match="takes no more"):
        rig.store.create("v1/big.pack", DATA * 10)


def test_an_upload_to_a_dead_server_ends_and_shows_no_upload_s_address(
    rig: Rig, tmp_path: Path
) -> None:
    (tmp_path / "pack").write_bytes(BIG)
    rig.proxy.plan(Fault(keep=0), when=lambda request: request.method == "PUT")
    with pytest.raises(StoreUnavailable) as stopped:
        rig.store.create("v1/big.pack", tmp_path / "pack")
    assert "upload-" not in str(stopped.value)
    assert rig.drive.named("big.pack") == []


def test_other_bytes_than_were_sent_do_not_stay(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    create = rig.drive.create
    monkeypatch.setattr(rig.drive, "create", lambda facts, data: create(facts, data[:-1] + b"?"))
    for content in (b"small", BIG):
        with pytest.raises(StoreUnavailable, match="other bytes"):
            rig.store.create("v1/spoiled", content)
    assert rig.drive.named("spoiled") == []


def test_an_object_is_whole_whatever_its_bytes(rig: Rig) -> None:
    content = b"From me\r\n.\r\n--==0==\r\nContent-Type: text/plain\n\nb\n--==0==--\r\n"
    rig.store.create("v1/odd", content)
    assert rig.drive.named("odd")[0].content == content


def test_a_pack_that_is_there_is_not_sent_again(rig: Rig, tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(DATA)
    with pytest.raises(ObjectExists):
        rig.store.create(PACK, tmp_path / "pack")
    assert not list(filter(is_upload, rig.proxy.requests))


def test_a_machine_that_swallows_packets_costs_the_connection_s_deadline(
    drive: DriveServer,
) -> None:
    store = opened(drive)
    assert store.identity
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(8)
        silent = f"http://127.0.0.1:{deaf.getsockname()[1]}"
        store = GDriveStore("gdrive://1abcdef", "1abcdef", limits=BRIEF, endpoint=silent)
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.get(NAME, limit=10)
        assert time.monotonic() - start < DEADLINE
