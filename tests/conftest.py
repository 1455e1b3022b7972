"""What all tests share: each runs in an empty folder, with a home and settings of its own."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest
from buckets import hurt_bucket  # noqa: F401
from darknet_fixtures import gpu_darknet  # noqa: F401
from servers import gcs_url, loopback_only, s3_url  # noqa: F401

# A shell's background job, as CI may be, ignores Ctrl-C, and so would all that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

REAL_HOME = Path.home()
DOWNLOADS = Path(os.environ.get("XDG_CACHE_HOME") or REAL_HOME / ".cache") / "artcache-tests"
"""What tests fetched once and use again; the only thing they keep outside their own folders."""

_PERSONAL = (
    "ARTCACHE_",
    "AWS_",
    "HF_",
    "HUGGING_FACE_",
    "GOOGLE_APPLICATION_",
    "CLOUDSDK_",
    "STORAGE_EMULATOR_",
)
_GIT_CONFIG = "[user]\n\tname = Test\n\temail = test@example.org\n[init]\n\tdefaultBranch = main\n"


@pytest.fixture(autouse=True)
def isolated(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test reads or writes the user's own cache, settings or folder; returns its `HOME`."""
    home = tmp_path_factory.mktemp("home", numbered=True)
    work = home / "work"
    work.mkdir()
    (home / ".gitconfig").write_text(_GIT_CONFIG)
    for name in [name for name in os.environ if name.startswith(_PERSONAL)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    pip = REAL_HOME / ".config" / "pip" / "pip.conf"
    if pip.is_file() and "PIP_CONFIG_FILE" not in os.environ:
        monkeypatch.setenv("PIP_CONFIG_FILE", str(pip))  # how this machine reaches packages
    monkeypatch.chdir(work)
    return home
