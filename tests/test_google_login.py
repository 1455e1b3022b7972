"""Which Google credential is used, and that nobody waits for one that is not there."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from buckets import QUICK, gcs_store
from fault_proxy import Fault, fault_proxy

from artcache.errors import StoreDenied, StoreUnavailable, UsageError
from artcache.stores import google_login
from artcache.stores.faults import Party
from artcache.stores.google_login import Login

pytestmark = pytest.mark.usefixtures("loopback_only")

SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"
PARTY = Party("gs://bucket", "someone", "sign in")


def user_file(path: Path) -> Path:
    """What `gcloud auth application-default login` writes. Never refreshed here: google-auth
    would ask Google itself for its token."""
    path.parent.mkdir(parents=True, exist_ok=True)
    body = {"type": "authorized_user", "client_id": "i", "client_secret": "s"}
    path.write_text(json.dumps({**body, "refresh_token": "r"}))
    return path


def key_file(path: Path, token_url: str) -> Path:
    """A service account's key; its token comes from where the file says."""
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    key = rsa.generate_private_key(65537, 2048)
    pem = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    body = {"type": "service_account", "client_email": "robot@example.org", "project_id": "p"}
    path.write_text(
        json.dumps(
            {**body, "private_key": pem.decode(), "private_key_id": "1", "token_uri": token_url}
        )
    )
    return path


@pytest.fixture
def silent(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A metadata server that takes the connection and never answers."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen(8)
        yield f"127.0.0.1:{listening.getsockname()[1]}"


@pytest.fixture(autouse=True)
def no_google_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(google_login, "_DMI", tmp_path / "none")
    for name in ("COLAB_RELEASE_TAG", "GCE_METADATA_HOST", "NO_GCE_CHECK"):
        monkeypatch.delenv(name, raising=False)


def test_without_any_credential_it_is_anonymous_at_once() -> None:
    start = time.monotonic()
    login = Login.find(SCOPE)
    assert time.monotonic() - start < 1
    assert (login.credentials, login.identity) == (None, "anonymous")


def test_a_file_named_in_the_environment_goes_first(
    isolated: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user_file(isolated / ".config/gcloud/application_default_credentials.json")
    named = user_file(tmp_path / "named.json")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(named))
    assert str(named) in Login.find(SCOPE).identity


def test_gcloud_s_default_file_is_found(isolated: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = user_file(isolated / ".config/gcloud/application_default_credentials.json")
    assert str(usual) in Login.find(SCOPE).identity
    colab = user_file(isolated / "content/.config/application_default_credentials.json")
    monkeypatch.setenv("CLOUDSDK_CONFIG", str(colab.parent))
    assert str(colab) in Login.find(SCOPE).identity


@pytest.mark.parametrize("content", ["", "{}", "no json", '{"type": "martian"}'])
def test_a_file_that_is_none_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str
) -> None:
    bad = tmp_path / "bad.json"
    bad.write_text(content)
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(bad))
    with pytest.raises(UsageError, match=str(bad)) as refused:
        Login.find(SCOPE)
    assert refused.value.hint


def test_a_named_file_that_is_gone_is_an_error_and_not_anonymous(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "gone.json"))
    with pytest.raises(UsageError, match=r"gone\.json"):
        Login.find(SCOPE)


def test_a_google_machine_s_account_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = Fault(200, {"Metadata-Flavor": "Google"}, b"builder@project.example\n")
    with fault_proxy("http://127.0.0.1:1") as metadata:
        metadata.plan(answer)
        monkeypatch.setenv("GCE_METADATA_HOST", metadata.url.removeprefix("http://"))
        assert Login.find(SCOPE).identity == "this machine's account builder@project.example"
        monkeypatch.setenv("NO_GCE_CHECK", "true")
        assert Login.find(SCOPE).identity == "anonymous"


def test_a_metadata_server_that_is_silent_costs_a_second_at_most(
    silent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GCE_METADATA_HOST", silent)
    start = time.monotonic()
    assert Login.find(SCOPE).identity == "anonymous"
    assert time.monotonic() - start < 2


def test_a_store_without_credentials_answers_in_three_seconds(
    gcs_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    start = time.monotonic()
    store = gcs_store(gcs_url, monkeypatch)
    assert list(store.list("v1")) == []
    assert store.identity == "anonymous"
    assert time.monotonic() - start < 3


# -- tokens -------------------------------------------------------------------------------


def test_a_token_is_fetched_and_sent(
    gcs_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = b'{"access_token": "abc", "expires_in": 3600, "token_type": "Bearer"}'
    with fault_proxy(gcs_url) as proxy:
        json_type = {"Content-Type": "application/json"}
        proxy.plan(Fault(200, json_type, token), when=lambda request: request.path == "/token")
        file = key_file(tmp_path / "key.json", f"{proxy.url}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        store = gcs_store(proxy.url, monkeypatch, bucket="abc")
        assert store.identity == "service account robot@example.org"
        with pytest.raises(StoreUnavailable):
            list(store.list("v1"))
        list_requests = [request for request in proxy.requests if request.path != "/token"]
    assert len(proxy.requests) == len(list_requests) + 1
    assert list_requests[0].headers["authorization"] == "Bearer abc"


def test_a_login_that_was_revoked_is_denied_with_the_way_to_a_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with fault_proxy("http://127.0.0.1:1") as proxy:
        proxy.plan(Fault(400, {"Content-Type": "application/json"}, b'{"error": "invalid_grant"}'))
        file = key_file(tmp_path / "key.json", f"{proxy.url}/token")
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
        store = gcs_store(proxy.url, monkeypatch, bucket="abc", limits=QUICK)
        with pytest.raises(StoreDenied, match="no longer good") as refused:
            store.get("v1/x", limit=1)
    assert "gcloud auth application-default login" in refused.value.hint


def test_no_token_for_want_of_a_network_is_an_unavailable_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = key_file(tmp_path / "key.json", "http://127.0.0.1:1/token")
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(file))
    store = gcs_store("http://127.0.0.1:1", monkeypatch, bucket="abc", limits=QUICK)
    with pytest.raises(StoreUnavailable, match="no new token") as stopped:
        store.get("v1/x", limit=1)
    assert not isinstance(stopped.value, StoreDenied)
