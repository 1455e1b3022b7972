"""Answers that nobody planned for, and folders in any language: the same for every server."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from email.utils import formatdate
from typing import NamedTuple
from urllib.parse import quote

import pytest
from buckets import BRIEF, QUICK, gcs_store, s3_store
from fault_proxy import Fault, FaultProxy, fault_proxy
from servers import make_gcs_bucket, make_s3_bucket

from artcache.errors import ObjectExists, ObjectNotFound, StoreDenied, StoreUnavailable
from artcache.store import Store
from artcache.stores import open_store
from artcache.stores.faults import Limits
from artcache.stores.http import HttpStore

pytestmark = pytest.mark.usefixtures("loopback_only")

NAME = "v1/packs/0a/0a.pack"
DATA = bytes(i % 251 for i in range(100_000))
DEADLINE = 20.0
FOLDER = "my cache/größer/工具 (2)"


class Rig(NamedTuple):
    proxy: FaultProxy
    store: Store
    brief: Store
    """The same, for a fault that stays."""


@pytest.fixture(params=["gs", "s3", "https"], scope="module")
def rigs(request: pytest.FixtureRequest) -> Iterator[Rig]:
    s3 = request.param == "s3"
    upstream: str = request.getfixturevalue("s3_url" if s3 else "gcs_url")
    with pytest.MonkeyPatch.context() as patch, fault_proxy(upstream) as proxy:
        make = s3_store if s3 else gcs_store
        direct = make(upstream, patch)
        direct.create(NAME, DATA)
        bucket = direct.url.split("/")[2]

        def behind(limits: Limits) -> Store:
            if request.param == "https":
                return HttpStore(f"{proxy.url}/{bucket}/cache", limits=limits)
            return make(proxy.url, patch, bucket=bucket, limits=limits)

        rig = Rig(proxy, behind(QUICK), behind(BRIEF))
        for store in rig[1:]:
            assert store.get(NAME, limit=len(DATA)) == DATA
        yield rig


@pytest.fixture
def rig(rigs: Rig) -> Iterator[Rig]:
    rigs.proxy.heal()
    yield rigs
    rigs.proxy.heal()


@pytest.mark.parametrize("status", [400, 402, 405, 409, 412, 451])
def test_an_odd_status_is_a_store_that_does_not_serve_and_is_asked_once(
    rig: Rig, status: int
) -> None:
    rig.proxy.plan(Fault(status, {}, b"<html>what?</html>"))
    with pytest.raises(StoreUnavailable, match=rig.store.url) as odd:
        rig.store.get_range(NAME, 0, 1000)
    assert not isinstance(odd.value, StoreDenied)
    assert len(rig.proxy.requests) == 1


def test_a_login_page_in_place_of_the_server_is_no_store(rig: Rig) -> None:
    rig.proxy.plan(Fault(302, {"Location": "/login"}, b"<html>Log in</html>"))
    with pytest.raises(StoreUnavailable, match=rig.store.url) as elsewhere:
        rig.store.get_range(NAME, 0, 1000)
    assert "report" not in elsewhere.value.hint


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_no_outage(rig: Rig, status: int) -> None:
    rig.proxy.plan(Fault(status), when=lambda request: "0a.pack" in request.path)
    if status == 410 and not isinstance(rig.store, HttpStore):
        pytest.skip("buckets do not answer 410")
    with pytest.raises(ObjectNotFound):
        rig.store.get_range(NAME, 0, 1000)


@pytest.mark.parametrize("length", ["999999999", "many", "7"])
def test_a_wrong_content_length_is_never_taken_for_the_object(rig: Rig, length: str) -> None:
    rig.proxy.plan(Fault(headers={"Content-Length": length}))
    start = time.monotonic()
    with contextlib.suppress(StoreUnavailable):
        assert rig.brief.get_range(NAME, 10, 1000) == DATA[10:1010]
    assert time.monotonic() - start < DEADLINE
    rig.proxy.heal()
    assert rig.store.get_range(NAME, 10, 1000) == DATA[10:1010]


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_wish_to_be_left_alone_is_granted_in_both_forms(rig: Rig, form: str) -> None:
    wish = "1" if form == "seconds" else formatdate(time.time() + 2, usegmt=True)
    status = 429 if form == "seconds" else 503
    rig.proxy.plan(Fault(status, {"Retry-After": wish}), times=1)
    start = time.monotonic()
    assert rig.store.get_range(NAME, 0, 1000) == DATA[:1000]
    assert 0.9 <= time.monotonic() - start < 8


@pytest.mark.parametrize("status", [409, 412])
def test_who_may_not_create_for_another_is_told_so(rig: Rig, status: int) -> None:
    """A conflict is a race that was lost, or one that is not over."""
    if isinstance(rig.store, HttpStore):
        pytest.skip("nothing is created over plain http")
    rig.proxy.plan(Fault(status), when=lambda request: request.method in ("POST", "PUT"))
    with pytest.raises(ObjectExists if status == 412 else StoreUnavailable):
        rig.store.create("v1/new", b"x")


@pytest.mark.parametrize("kind", ["gs", "s3", "https"])
def test_a_folder_may_have_spaces_and_any_letters(
    kind: str, gcs_url: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-1234")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    bucket = make_s3_bucket(s3_url) if kind == "s3" else make_gcs_bucket(gcs_url)
    store = open_store(f"{'s3' if kind == 's3' else 'gs'}://{bucket}/{FOLDER}")
    store.create(NAME, DATA)
    if kind == "https":
        for folder in (FOLDER, quote(FOLDER)):
            mirror = open_store(f"{gcs_url}/{bucket}/{folder}")
            assert mirror.get_range(NAME, 5, 100) == DATA[5:105]
        return
    assert store.get(NAME, limit=len(DATA)) == DATA
    assert [entry.name for entry in store.list("v1")] == [NAME]
    store.move(NAME, "v1/moved")
    assert store.get_range("v1/moved", 5, 100) == DATA[5:105]
    store.delete("v1/moved")
    assert not list(store.list("v1"))
