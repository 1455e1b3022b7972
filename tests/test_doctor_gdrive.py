"""The doctor at a folder of Google Drive, by its API."""

from __future__ import annotations

import pytest
from drive_server import DriveServer
from test_doctor_stores import asked
from test_gdrive_store import drive, robot, sign_in  # noqa: F401

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
