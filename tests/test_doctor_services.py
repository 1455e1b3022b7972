"""The doctor at a folder of Google Drive by its API, and at a repository of the hub."""

from __future__ import annotations

import pytest
from drive_server import DriveServer
from hf_server import HfServer
from test_doctor_stores import asked
from test_gdrive_store import drive, robot, sign_in  # noqa: F401
from test_hf_store import hub  # noqa: F401

from artcache.stores import GDRIVE_ENDPOINT

pytest.importorskip("googleapiclient")
pytestmark = pytest.mark.usefixtures("loopback_only")


def test_a_folder_of_drive_is_examined_and_left_without_a_file(
    drive: DriveServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(GDRIVE_ENDPOINT, drive.url)
    answers, told = asked(f"gdrive://{drive.add('root')}/cache")
    assert not [finding for finding in told.values() if finding.bad]
    assert told["store"].text.startswith("Google Drive")
    assert "service account" in answers.identity
    assert answers.same
    assert told["create-only"].severity == "note"
    assert not [path for path in drive.paths() if "probes/" in path]


def test_a_folder_of_drive_that_is_not_there(
    drive: DriveServer,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(GDRIVE_ENDPOINT, drive.url)
    _, told = asked("gdrive://1nobody-has-such-an-id/cache")
    assert told["reach"].severity == "problem"
    assert told["reach"].fix


def test_a_repository_of_the_hub_is_measured_by_a_pack_that_it_has(hub: HfServer) -> None:  # noqa: F811
    hub.files["x/artcache.json"] = b'{"artcache":1,"reader":"0.1"}'
    hub.files["x/v1/packs/0a/0a.pack"] = bytes(400_000)
    hub.files[f"x/v1/manifests/toy/{'0' * 32}.json"] = b"{}"
    answers, told = asked("hf://datasets/lab/cache/x", mode="read")
    assert told["store"].text == "Hugging Face hub, read"
    assert told["contents"].text == "format 1, 1 artifact of toy"
    assert answers.down > 0
    assert answers.up is None
