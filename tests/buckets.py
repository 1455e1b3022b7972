"""Stores in new, empty buckets of the servers in `servers`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import pytest
from fault_proxy import FaultProxy, fault_proxy
from servers import make_gcs_bucket, make_s3_bucket

from artcache.stores.faults import Limits
from artcache.stores.gcs import GcsBucket
from artcache.stores.remote import RemoteStore
from artcache.stores.s3 import S3Bucket

QUICK = Limits(connect=2.0, stall=1.2, least=2000, attempts=3, patience=6.0, first_wait=0.02)
"""As the defaults, for tests that wait for the end."""
BRIEF = QUICK._replace(stall=0.6, patience=1.0, first_wait=0.01)
"""For what never gets better, so that no try may succeed: the end is the same, and sooner."""


def gcs_store(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    bucket: str = "",
    limits: Limits | None = None,
) -> RemoteStore:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", url)
    name = bucket or make_gcs_bucket(url)
    limits = limits or Limits()
    return RemoteStore(
        f"gs://{name}/cache", GcsBucket(name, f"gs://{name}/cache", limits), "cache", limits=limits
    )


def s3_store(
    url: str,
    monkeypatch: pytest.MonkeyPatch,
    *,
    bucket: str = "",
    limits: Limits | None = None,
) -> RemoteStore:
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-1234")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    name = bucket or make_s3_bucket(url)
    limits = limits or Limits()
    return RemoteStore(
        f"s3://{name}/cache", S3Bucket(name, f"s3://{name}/cache", limits), "cache", limits=limits
    )


class HurtBucket(NamedTuple):
    """A folder in a new, empty bucket, for all that this test starts; and what can hurt it."""

    url: str
    proxy: FaultProxy


@pytest.fixture(params=["gs", "s3"])
def hurt_bucket(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[HurtBucket]:
    gs = request.param == "gs"
    server: str = request.getfixturevalue("gcs_url" if gs else "s3_url")
    name = make_gcs_bucket(server) if gs else make_s3_bucket(server)
    with fault_proxy(server) as proxy:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST" if gs else "AWS_ENDPOINT_URL", proxy.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing-1234")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        yield HurtBucket(f"{request.param}://{name}/some/folder", proxy)
