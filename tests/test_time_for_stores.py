"""`timeout`: what all servers together may take of one command."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from buckets import gcs_store, s3_store
from fault_proxy import Fault, fault_proxy
from test_cache import Told

import artcache
from artcache.errors import StoreUnavailable
from artcache.recipe import FunctionRecipe
from artcache.stores import open_store
from artcache.stores.faults import Budget, Limits

pytestmark = pytest.mark.usefixtures("loopback_only")

HOST = artcache.HostFacts(libc="glibc2.36")
NAME = "v1/thing"


def test_only_time_with_a_request_under_way_counts_and_overlap_counts_once() -> None:
    budget = Budget(1.0)
    time.sleep(0.1)
    with budget.spending(), budget.spending():
        time.sleep(0.2)
    time.sleep(0.1)
    assert 0.5 < budget.left <= 0.8
    with pytest.raises(StoreUnavailable, match="1 s"), budget.spending():
        time.sleep(0.9)
        budget.check()
    budget.begin()
    assert budget.left == 1.0


@pytest.mark.parametrize("kind", ["gs", "s3", "https"])
@pytest.mark.parametrize(
    "fault",
    [Fault(keep=0, then="hang"), Fault(keep=1000, then="hang"), Fault(drip=0.01), Fault(503)],
    ids=["silent", "stalled", "drips", "503"],
)
def test_a_read_ends_with_the_time(
    kind: str, fault: Fault, gcs_url: str, s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    upstream = s3_url if kind == "s3" else gcs_url
    make = s3_store if kind == "s3" else gcs_store
    direct = make(upstream, monkeypatch)
    direct.create(NAME, bytes(500_000))
    bucket = direct.url.split("/")[2]
    limits = Limits(budget=Budget(0.5))
    with fault_proxy(upstream) as proxy:
        if kind == "https":
            store = open_store(f"{proxy.url}/{bucket}/cache", limits=limits)
        else:
            store = make(proxy.url, monkeypatch, bucket=bucket, limits=limits)
        proxy.plan(fault)
        start = time.monotonic()
        with pytest.raises(StoreUnavailable):
            store.get_range(NAME, 0, 400_000)
        assert time.monotonic() - start < 6  # far below a stall's 12 s


def test_a_restore_that_takes_too_long_is_given_up_kept_and_built(
    gcs_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = bytes(range(256)) * 100_000
    builds = []

    @artcache.make_recipe("thing", fields={"commit": "1"})
    def build(context: artcache.BuildContext) -> None:
        builds.append(1)
        (context.tree / "thing").write_bytes(content)

    recipe: FunctionRecipe = build
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    bucket = gcs_store(gcs_url, monkeypatch).url.split("/")[2]
    url = f"gs://{bucket}/cache"
    artcache.Cache([url], home=tmp_path / "a", host=HOST).fetch(recipe)
    told = Told()
    with fault_proxy(gcs_url) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", proxy.url)
        proxy.plan(Fault(), times=2, when=lambda request: ".pack" in request.path)
        proxy.plan(Fault(keep=0, then="hang"), when=lambda request: ".pack" in request.path)
        monkeypatch.setenv("ARTCACHE_TIMEOUT", "2s")
        cache = artcache.Cache([url], home=tmp_path / "b", host=HOST, observer=told)
        start = time.monotonic()
        assert cache.fetch(recipe).origin == "built"
        assert time.monotonic() - start < 9
    assert len(builds) == 2
    assert any("2 s that stores may take" in warning for warning in told.warnings)
    assert list((tmp_path / "b" / "v1" / "partial").iterdir())
