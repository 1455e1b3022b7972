"""Which S3 credential and endpoint are used, and that nobody waits for one that is not there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from buckets import QUICK
from fault_proxy import Fault, fault_proxy
from servers import make_s3_bucket

from artcache.errors import ArtcacheError, StoreDenied
from artcache.stores import s3
from artcache.stores.remote import RemoteStore
from artcache.stores.s3 import S3Bucket

pytestmark = pytest.mark.usefixtures("loopback_only")


def opened(bucket: str) -> RemoteStore:
    url = f"s3://{bucket}/cache"
    return RemoteStore(url, S3Bucket(bucket, url, QUICK), "cache", limits=QUICK)


def test_without_any_credential_it_is_anonymous_and_quick(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(s3, "_DMI", tmp_path / "none")
    bucket = make_s3_bucket(s3_url)
    with fault_proxy(s3_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        start = time.monotonic()
        store = opened(bucket)
        assert list(store.list("v1")) == []
        assert time.monotonic() - start < 3
        assert store.identity == "anonymous"
        assert "authorization" not in proxy.requests[-1].headers


def test_the_user_s_own_files_are_read(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, isolated: Path
) -> None:
    (isolated / ".aws").mkdir()
    (isolated / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = AKIAFILE\naws_secret_access_key = x\n"
    )
    bucket = make_s3_bucket(s3_url)
    with fault_proxy(s3_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        store = opened(bucket)
        store.create("v1/x", b"x")
        assert store.identity == "key ...FILE (shared-credentials-file)"
        assert "AKIAFILE" in proxy.requests[-1].headers["authorization"]


def test_a_denied_anonymous_is_told_how_to_be_somebody(
    s3_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy(s3_url) as proxy:
        proxy.plan(Fault(403))
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(StoreDenied, match="anonymous") as refused:
            opened("bucket").create("v1/x", b"x")
    assert "AWS_ACCESS_KEY_ID" in refused.value.hint


@pytest.mark.parametrize("endpoint", ["nonsense", "http://", "127.0.0.1:9000"])
def test_an_endpoint_that_is_none_is_our_error(
    endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint)
    with pytest.raises(ArtcacheError, match="s3://bucket"):
        opened("bucket").get("v1/x", limit=1)


def test_a_clock_that_is_wrong_is_said(s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    body = b"<Error><Code>RequestTimeTooSkewed</Code><Message>too large</Message></Error>"
    with fault_proxy(s3_url) as proxy:
        proxy.plan(Fault(403, {"Content-Type": "application/xml"}, body))
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(StoreDenied, match="clock"):
            opened("bucket").get("v1/x", limit=1)
