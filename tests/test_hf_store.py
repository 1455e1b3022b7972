"""Reading a repository of the Hugging Face hub."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from buckets import BRIEF, QUICK
from fault_proxy import Fault, FaultProxy, fault_proxy
from hf_server import TOKEN, HfServer, hf_server
from store_contract import StoreContract, names
from test_cache import Told
from toy import Machine

import artcache
from artcache.errors import ObjectExists, ObjectNotFound, StoreDenied, StoreUnavailable, UsageError
from artcache.store import Content, StoredObject, checked_name
from artcache.stores import open_store
from artcache.stores.hf import HfStore
from artcache.stores.posix import PosixStore

pytestmark = pytest.mark.usefixtures("loopback_only")

NAME = "v1/manifests/thing/0a.json"
PACK = "v1/packs/0a/0a.pack"
DATA = bytes(i % 251 for i in range(300_000))
URL = "hf://datasets/lab/cache/some/folder"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HfServer]:
    with hf_server() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


class Filled:
    """The repository as its owner fills it, read by `HfStore`."""

    def __init__(self, hub: HfServer) -> None:
        self._hub, self._read = hub, HfStore(URL, limits=QUICK)
        self.url, self.traits = self._read.url, self._read.traits
        self.get, self.get_range = self._read.get, self._read.get_range
        self.size = self._read.size

    def _at(self, name: str) -> str:
        return f"some/folder/{checked_name(name)}"

    def create(self, name: str, content: Content) -> None:
        try:
            data = content if isinstance(content, bytes) else content.read_bytes()
        except OSError as error:
            raise StoreUnavailable(str(error)) from error
        if self._hub.files.setdefault(self._at(name), data) is not data:
            raise ObjectExists(f"{self.url}: {name} exists")

    def list(self, prefix: str) -> Iterator[StoredObject]:
        for entry in self._read.list(prefix):
            yield entry._replace(modified=time.time())  # it has the last commit's for all

    def delete(self, name: str) -> None:
        self._hub.files.pop(self._at(name), None)

    def move(self, name: str, to: str) -> None:
        source, target = self._at(name), self._at(to)
        if source not in self._hub.files:
            raise ObjectNotFound(f"{self.url} has no {name}")
        self._hub.files[target] = self._hub.files.pop(source)

    def quarantine(self, name: str) -> str:
        self.move(name, f"v1/quarantine/{time.time_ns()}")
        return "aside"


class TestContract(StoreContract):
    @pytest.fixture
    def store(self, hub: HfServer) -> Filled:
        return Filled(hub)


class Rig(NamedTuple):
    hub: HfServer
    proxy: FaultProxy
    store: HfStore


@pytest.fixture
def rig(hub: HfServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    with fault_proxy(hub.url) as proxy:
        monkeypatch.setenv("HF_ENDPOINT", proxy.url)
        hub.public_url = proxy.url
        hub.files = {f"some/folder/{NAME}": b"content", f"some/folder/{PACK}": DATA}
        yield Rig(hub, proxy, HfStore(URL, limits=QUICK))


# -- reading ------------------------------------------------------------------------------


def test_a_range_of_a_large_file_is_no_more_than_that_range(rig: Rig) -> None:
    assert rig.store.get_range(PACK, 100_000, 5000) == DATA[100_000:105_000]
    asked = [headers["range"] for _, path, headers in rig.hub.requests if "/cdn/" in path]
    assert asked == ["bytes=100000-104999"]
    assert not [path for _, path, _ in rig.hub.requests if path.startswith("/api/")]


def test_a_new_file_is_seen_at_once(rig: Rig) -> None:
    other = NAME.replace("0a", "0b")
    with pytest.raises(ObjectNotFound):
        rig.store.get(other, limit=10)
    assert names(rig.store, "v1/manifests") == [NAME]
    rig.hub.files[f"some/folder/{other}"] = b"new"
    assert rig.store.get(other, limit=10) == b"new"
    assert names(rig.store, "v1/manifests") == [NAME, other]


def test_a_listing_comes_in_pages(rig: Rig) -> None:
    for number in range(5):
        rig.hub.files[f"some/folder/v1/many/{number}"] = b"x"
    rig.hub.page = 2
    assert names(rig.store, "v1/many") == [f"v1/many/{number}" for number in range(5)]


@pytest.mark.parametrize("url", ["hf://datasets/lab/cache", "hf://datasets/lab/cache@v1/"])
def test_a_revision_and_a_folder_are_optional(rig: Rig, url: str) -> None:
    store = HfStore(url)
    rig.hub.files[NAME] = b"at the top"
    assert store.get(NAME, limit=10) == b"at the top"
    assert names(store, "v1") == [NAME]
    assert store.url == url


@pytest.mark.parametrize(
    "fault",
    [Fault(keep=0), Fault(keep=3, then="close"), Fault(500), Fault(429, {"Retry-After": "0"})],
    ids=["reset", "cut", "500", "429"],
)
def test_a_fault_passes_or_ends_in_time(rig: Rig, fault: Fault) -> None:
    rig.proxy.plan(fault, times=1)
    assert rig.store.get(NAME, limit=10) == b"content"
    rig.proxy.plan(fault, times=1)
    assert names(rig.store, "v1/manifests") == [NAME]
    rig.proxy.plan(fault)
    brief = HfStore(URL, limits=BRIEF)
    for use in (lambda: brief.get(NAME, limit=10), lambda: names(brief, "v1")):
        with pytest.raises(StoreUnavailable):
            use()


# -- refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize("use", ["get", "list"])
def test_a_repository_that_is_not_there_is_no_miss(rig: Rig, use: str) -> None:
    store = HfStore("hf://datasets/lab/nothing", limits=QUICK)
    with pytest.raises(StoreDenied, match="no datasets/lab/nothing, or anonymous") as refused:
        store.get(NAME, limit=1) if use == "get" else names(store, "v1")
    assert "HF_TOKEN" in refused.value.hint


@pytest.mark.parametrize("use", ["get", "list"])
def test_a_revision_that_is_not_there_is_no_miss(rig: Rig, use: str) -> None:
    store = HfStore("hf://datasets/lab/cache@v2", limits=QUICK)
    with pytest.raises(StoreUnavailable, match="no revision v2"):
        store.get(NAME, limit=1) if use == "get" else names(store, "v1")


@pytest.mark.parametrize("where", ["variable", "file"])
def test_a_private_repository_is_read_with_a_token_that_goes_to_no_other_host(
    rig: Rig, where: str, isolated: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig.hub.private = True
    if where == "variable":
        monkeypatch.setenv("HF_TOKEN", TOKEN)
    else:
        (isolated / "cache/huggingface").mkdir(parents=True)
        (isolated / "cache/huggingface/token").write_text(f"{TOKEN}\n")
    store = HfStore(URL, limits=QUICK)
    assert store.get_range(PACK, 0, 100) == DATA[:100]
    sent = {path.split("/")[1]: headers for _, path, headers in rig.hub.requests}
    assert sent["datasets"]["authorization"] == f"Bearer {TOKEN}"
    assert "authorization" not in sent["cdn"]
    rig.proxy.plan(Fault(keep=0))
    with pytest.raises(StoreUnavailable) as failed:
        store.get(NAME, limit=10)
    assert TOKEN not in f"{failed.value} {failed.value.hint}"


def test_the_signature_of_a_large_file_s_address_is_not_shown(rig: Rig) -> None:
    rig.hub.cdn = "http://127.0.0.1:1/cdn"
    with pytest.raises(StoreUnavailable) as failed:
        rig.store.get_range(PACK, 0, 10)
    assert "Signature" not in str(failed.value)


def test_it_can_only_be_read_and_says_how_to_fill_it(hub: HfServer) -> None:
    store = HfStore(URL)
    assert not store.traits.writable
    for use in (
        lambda: store.create(NAME, b"x"),
        lambda: store.delete(NAME),
        lambda: store.move(NAME, PACK),
        lambda: store.quarantine(NAME),
    ):
        with pytest.raises(StoreDenied, match="only be read") as refused:
            use()
        assert "hf upload lab/cache FOLDER some/folder/ --repo-type dataset" in refused.value.hint
    assert not hub.requests


@pytest.mark.parametrize(
    "url",
    ["hf://", "hf://datasets", "hf://datasets/lab", "hf://lab", "hf://datasets/lab/x/../y"],
)
def test_a_url_that_names_no_repository_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no repository") as refused:
        open_store(url)
    assert "hf://datasets/" in refused.value.hint


# -- the main job -------------------------------------------------------------------------


def test_a_release_is_restored_without_an_account(hub: HfServer, tmp_path: Path) -> None:
    first, second = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    assert first.run("fetch", "toy", "--store", first.store).code == 0
    for path in first.store.rglob("*.*"):
        if path.is_file():
            hub.files[f"some/folder/{path.relative_to(first.store)}"] = path.read_bytes()
    done = second.run("fetch", "toy", "--store", f"read:{URL}", "--json")
    assert done.code == 0, done.err
    assert done.json["result"]["origin"] == URL
    assert not done.err.strip()


def test_a_release_that_was_published_on_a_drive_is_found(hub: HfServer, tmp_path: Path) -> None:
    @artcache.make_recipe("thing", fields={"commit": "1"})
    def recipe(context: artcache.BuildContext) -> None:
        (context.tree / "thing").write_bytes(DATA)

    drive, host = tmp_path / "drive", artcache.HostFacts(libc="glibc2.36")
    store = PosixStore(drive, mount_like=True)
    artcache.Cache([store], home=tmp_path / "a", host=host).fetch(recipe)
    for path in drive.rglob("*.*"):
        if path.is_file():
            hub.files[f"some/folder/{path.relative_to(drive)}"] = path.read_bytes()
    told = Told()
    done = artcache.Cache([URL], home=tmp_path / "b", host=host, observer=told).fetch(recipe)
    assert (done.origin, (done.path / "thing").read_bytes()) == (URL, DATA)
    assert not told.warnings
