"""From a URL to a store, and what a URL that means nothing is told."""

from __future__ import annotations

import importlib.util
import time
from typing import Any

import pytest

from artcache.errors import UsageError
from artcache.stores import open_store
from artcache.stores.gdrive import GDriveStore
from artcache.stores.hf import HfStore
from artcache.stores.http import HttpStore
from artcache.stores.posix import PosixStore
from artcache.stores.remote import RemoteStore


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("/mnt/cache", PosixStore),
        ("file:///mnt/cache", PosixStore),
        ("gs://bucket/a/folder", RemoteStore),
        ("gcs://bucket", RemoteStore),
        ("GS://bucket/", RemoteStore),
        ("s3://bucket/a/folder/", RemoteStore),
        ("gs://bucket/my folder/größer/工具", RemoteStore),
        ("gdrive://1aB_c-D/my folder/cache/", GDriveStore),
        ("gdrive://root", GDriveStore),
        ("hf://datasets/owner/name@v1/folder", HfStore),
        ("hf://owner/name", HfStore),
        ("https://host.example/folder", HttpStore),
        ("http://host.example:8080", HttpStore),
    ],
)
def test_the_scheme_decides(url: str, kind: type) -> None:
    start = time.monotonic()
    store = open_store(url)
    assert isinstance(store, kind)
    assert store.url in (url, url.removeprefix("file://"))
    assert time.monotonic() - start < 1  # it contacts nobody


@pytest.mark.parametrize(
    "url",
    [
        "gs://",
        "gs:///folder",
        "gs://B/folder",
        "gs://bu cket",
        "gs://bucket/../other",
        "gs://bucket//a",
        "gs://bucket/a?x=1",
        "gs://bucket/a#b",
        "gs://bucket/a\nb",
        "s3://bucket/a\\b",
        "gs://bucket/" + "ö" * 300,
        "gs://user@bucket/a",
        "s3://",
        "s3://x/a",
        "s3://bucket/.hidden",
        "gdrive://",
        "gdrive:///folder",
        "gdrive://my folder/cache",
        "gdrive://1aBcD/../other",
        "gdrive://1aBcD/.hidden",
        "ftp://host/folder",
        "memory://x",
    ],
)
def test_a_url_that_means_nothing_is_a_usage_error_with_an_example(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        open_store(url)
    assert url in str(refused.value) or repr(url) in str(refused.value)
    assert refused.value.hint


@pytest.mark.parametrize(
    ("url", "module", "extra"),
    [
        ("gs://bucket", "gcsfs", "artcache[gcs]"),
        ("s3://bucket", "s3fs", "artcache[s3]"),
        ("gdrive://1aBcD", "googleapiclient", "artcache[gdrive]"),
    ],
)
def test_what_is_not_installed_is_said_with_the_way_to_it(
    monkeypatch: pytest.MonkeyPatch, url: str, module: str, extra: str
) -> None:
    real = importlib.util.find_spec

    def without(name: str, *more: Any) -> Any:
        return None if name == module else real(name, *more)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(UsageError, match=module) as refused:
        open_store(url)
    assert extra in refused.value.hint
