"""How Cloud Storage is reached: by ourselves, or as it is configured for fsspec."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from servers import make_gcs_bucket

from artcache.stores.gcs_access import Access

_USE = """
from artcache.stores import open_store
import sys
store = open_store(sys.argv[1])
store.create("v1/a", b"x")
assert store.get("v1/a", limit=1) == b"x" and [one.name for one in store.list("v1")] == ["v1/a"]
store.move("v1/a", "v1/b")
store.delete("v1/b")
heavy = {"gcsfs", "fsspec", "aiohttp", "asyncio", "requests", "google.auth"}
print(sorted(heavy & set(sys.modules)))
"""


@pytest.fixture
def no_emulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STORAGE_EMULATOR_HOST", raising=False)


def test_without_a_credential_nothing_heavy_is_imported(
    gcs_url: str, isolated: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    url = f"gs://{make_gcs_bucket(gcs_url)}/cache"
    done = subprocess.run([sys.executable, "-c", _USE, url], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_what_fsspec_is_told_of_it_holds(
    gcs_url: str, no_emulator: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FSSPEC_GS", json.dumps({"token": "anon", "requester_pays": "project-1"}))
    monkeypatch.setenv("FSSPEC_GS_ENDPOINT_URL", gcs_url)
    script = (
        "from artcache.stores.gcs_access import Access; import json; a = Access();"
        'print(json.dumps([a.base, a.identity, a.query({"alt": "media"})]))'
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert json.loads(done.stdout) == [
        gcs_url,
        "the token in fsspec's configuration",
        {"alt": "media", "userProject": "project-1"},
    ], done.stderr
    url = f"gs://{make_gcs_bucket(gcs_url)}/cache"
    done = subprocess.run([sys.executable, "-c", _USE, url], capture_output=True, text=True)
    assert "gcsfs" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("variables", "base"),
    [
        ({}, "https://storage.googleapis.com"),
        ({"STORAGE_EMULATOR_HOST": "default"}, "https://storage.googleapis.com"),
        ({"STORAGE_EMULATOR_HOST": "localhost:9"}, "http://localhost:9"),
        ({"STORAGE_EMULATOR_HOST": "https://host/"}, "https://host"),
        ({"GOOGLE_CLOUD_UNIVERSE_DOMAIN": "example.org"}, "https://storage.example.org"),
    ],
)
def test_the_endpoint_is_found_as_gcsfs_finds_it(
    variables: dict[str, str],
    base: str,
    isolated: object,
    no_emulator: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_GCE_CHECK", "true")
    assert Access().base == base
