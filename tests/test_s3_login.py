"""Which S3 credential and endpoint are used, and that nobody waits for one that is not there."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from buckets import QUICK
from fault_proxy import Fault, fault_proxy
from servers import free_port, make_s3_bucket

from artcache.errors import ArtcacheError, StoreDenied, UsageError
from artcache.stores import open_store, s3
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


def test_each_url_may_name_its_own_server_and_profile(
    s3_url: str, monkeypatch: pytest.MonkeyPatch, isolated: Path
) -> None:
    (isolated / ".aws").mkdir()
    (isolated / ".aws" / "credentials").write_text(
        "[default]\naws_access_key_id = AKIAHOME\naws_secret_access_key = x\n"
        "[lab]\naws_access_key_id = AKIATLAB\naws_secret_access_key = x\n"
    )
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
    bucket = make_s3_bucket(s3_url)
    with fault_proxy(s3_url) as proxy:
        store = open_store(f"s3://{bucket}/cache?endpoint_url={proxy.url}&profile=lab&region=auto")
        store.create("v1/x", b"x")
        assert [found.name for found in store.list("v1")] == ["v1/x"]
        said = proxy.requests[-1].headers["authorization"]
        assert "AKIATLAB" in said and "/auto/s3/" in said


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("endpoint=http://x", "no option endpoint"),
        ("endpoint_url=minio:9000", "endpoint_url is no URL"),
        ("endpoint_url=", "endpoint_url is no URL"),
        ("endpoint_url=http://me:secret@host", "endpoint_url is no URL"),
    ],
)
def test_an_option_that_is_none_is_a_usage_error(query: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        open_store(f"s3://bucket/cache?{query}")
    assert "endpoint_url=https://" in refused.value.hint


def test_a_profile_that_is_not_there_is_named(s3_url: str, isolated: Path) -> None:
    store = open_store(f"s3://bucket/cache?endpoint_url={s3_url}&profile=lab")
    with pytest.raises(UsageError, match="no profile 'lab'"):
        store.get("v1/x", limit=1)
