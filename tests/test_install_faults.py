"""`install` when the disk says no, somebody else is at work, or Ctrl-C comes."""

from __future__ import annotations

import concurrent.futures
import errno
import fcntl
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import pytest
from install_trees import QUICK, Desk, in_child, needs_root, snapshot

from artcache.errors import (
    Busy,
    Corrupt,
    LocalDisk,
    Refused,
)
from artcache.install import materialise, recover, site

pytest_plugins = ("install_fixtures",)


# -- the disk says no ---------------------------------------------------------------------


@needs_root
@pytest.mark.parametrize("told_before", [True, False])
def test_a_full_disk_says_what_was_needed_and_changes_nothing(
    tmp_path, darknet, tmpfs, monkeypatch, told_before
):
    desk = Desk(tmp_path, tmpfs("2m") / "new/prefix")
    if not told_before:
        monkeypatch.setattr("artcache.install.staging._check_space", lambda prefix, needed: None)

    with pytest.raises(LocalDisk, match=r"full: 2,\d+,\d+ bytes needed, [\d,]+ free") as error:
        desk.install(darknet)
    assert error.value.exit_code == 7
    assert os.listdir(desk.prefix.parent.parent) == []
    assert not desk.pending.exists()


@needs_root
def test_a_read_only_prefix_is_a_local_disk_error(tmp_path, darknet, tmpfs):
    disk = tmpfs("2m")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    for prefix in (disk, disk / "new"):
        desk = Desk(tmp_path, prefix)
        with pytest.raises(LocalDisk, match="read-only"):
            desk.install(darknet)
        assert not desk.pending.exists()


@needs_root
def test_a_read_only_folder_inside_the_prefix_is_found_before_anything_changes(tmp_path, desk):
    (desk.prefix / "lib").mkdir(parents=True)
    mount = ["mount", "--bind", desk.prefix / "lib", desk.prefix / "lib"]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let us bind-mount")
    try:
        with pytest.raises(Refused, match="another disk"):
            desk.install(desk.tree("t", {"a": b"a", "lib/x": b"x"}))
        assert snapshot(desk.prefix) == {"lib": None}
        assert not desk.pending.exists()
    finally:
        subprocess.run(["umount", desk.prefix / "lib"], check=True)


@needs_root
@pytest.mark.parametrize("locked", [".", "lib"])
def test_a_folder_that_is_not_ours_to_write_is_a_local_disk_error(locked):
    base = Path(tempfile.mkdtemp())  # pytest's own folders are closed to other users
    try:
        (base / "prefix" / locked).mkdir(parents=True)
        for folder in (base, base / "prefix"):
            os.chown(folder, 65534, 65534)
        os.chown(base / "prefix" / locked, 0, 0)

        def work() -> None:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            desk = Desk(base)
            with pytest.raises(LocalDisk, match="permission denied"):
                desk.install(desk.tree("t", {"a": b"a", "lib/x": b"x"}))

        assert in_child(work) == 0
        assert not any(path.is_file() for path in (base / "prefix").rglob("*"))
    finally:
        shutil.rmtree(base)


def test_a_folder_that_cannot_be_made_is_a_local_disk_error(desk, darknet):
    desk.prefix = Path("/proc/artcache/x")
    with pytest.raises(LocalDisk, match="cannot write to /proc/artcache/x"):
        desk.install(darknet)
    assert not desk.pending.exists()


# -- one at a time, and Ctrl-C ------------------------------------------------------------


def test_a_prefix_at_which_another_process_works_is_busy(desk, darknet, monkeypatch):
    desk.install(darknet)
    monkeypatch.setattr(site, "LOCK_WAIT", 0.1)
    with (desk.prefix / ".artcache/lock").open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(Busy, match=str(desk.prefix)):
            desk.install(darknet)
        assert recover(desk.pending) == []
    assert desk.install(darknet).how == {"unchanged": 5}


def test_many_at_once_take_turns():
    """Also at making and removing the prefix itself. (Who takes the prefix over in the very
    moment in which it is removed does not know that it was new: an empty folder may stay.)"""
    with tempfile.TemporaryDirectory(dir=QUICK) as base:
        desk = Desk(Path(base))
        trees = [
            desk.tree(f"t{number}", {f"lib/{number}": b"x", "lib/common": b"common"})
            for number in range(6)
        ]

        def work(number: int) -> None:
            for _ in range(20):
                desk.install(trees[number], owner=f"r{number}")
                recover(desk.pending)
                assert (desk.prefix / f"lib/{number}").exists()
                desk.uninstall(f"r{number}")

        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            list(pool.map(work, range(6)))
        assert list(desk.prefix.rglob("*")) == []
        assert not desk.pending.exists()


@pytest.mark.parametrize("when", ["stage", "commit"])
def test_ctrl_c_leaves_all_old_or_all_new(desk, darknet, newer, monkeypatch, when):
    desk.install(darknet)
    before = snapshot(desk.prefix)
    called = []
    real = Path.rename if when == "commit" else materialise.Materialiser.file

    def interrupted(*args, **options):
        done = real(*args, **options)
        if not called:
            called.append(1)
            signal.raise_signal(signal.SIGINT)
        return done

    if when == "commit":
        monkeypatch.setattr("artcache.install.rehearse", lambda *a: None)
        monkeypatch.setattr(Path, "rename", interrupted)
    else:
        monkeypatch.setattr(materialise.Materialiser, "file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        desk.install(newer)
    assert snapshot(desk.prefix) == (before if when == "stage" else snapshot(newer.root))
    assert desk.at_rest()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_disk_that_fails_in_the_last_renames_is_gone_on_with_later(
    desk, darknet, newer, monkeypatch
):
    desk.install(darknet)
    real = Path.rename

    def failing(self, target):
        if self.name == "1":
            raise OSError(errno.EIO, "I/O error")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", failing)
        with pytest.raises(LocalDisk) as error:
            desk.install(newer)
        assert "next artcache command" in error.value.hint
        assert len(recover(desk.pending)) == 1  # it says that it could not, and does not raise
    assert recover(desk.pending) == [
        f"finished an interrupted change in {desk.prefix} by the recipe darknet"
    ]
    assert snapshot(desk.prefix) == snapshot(newer.root)
    assert desk.at_rest()


# -- recover ------------------------------------------------------------------------------


def test_recover_with_nothing_to_do_looks_once(tmp_path):
    began = time.perf_counter()
    assert recover(tmp_path / "pending") == []
    assert time.perf_counter() - began < 0.01


def test_recover_does_not_touch_what_is_under_way(desk, darknet, monkeypatch):
    lines = []
    real = materialise.Materialiser.file

    def meanwhile(self, *args, **options):
        lines.extend(recover(desk.pending))
        real(self, *args, **options)

    monkeypatch.setattr(materialise.Materialiser, "file", meanwhile)
    desk.install(darknet)
    assert lines == []
    assert snapshot(desk.prefix).items() >= snapshot(darknet.root).items()


@pytest.mark.parametrize("content", ["", "{", '{"format":1}', "[]"])
def test_recover_removes_a_pending_record_that_was_not_finished(desk, content):
    desk.pending.mkdir()
    (desk.pending / "1.json").write_text(content)

    assert recover(desk.pending) == []
    assert not desk.pending.exists()


def test_recover_leaves_a_newer_pending_record_and_says_so(desk):
    desk.pending.mkdir()
    (desk.pending / "1.json").write_text('{"format":9}')

    assert "format 9" in recover(desk.pending)[0]
    assert (desk.pending / "1.json").exists()


def test_a_prefix_that_is_gone_is_forgotten(desk):
    desk.pending.mkdir()
    (desk.pending / "1.json").write_text('{"format":1,"prefix":"/nonexistent/x","made":[]}')

    assert recover(desk.pending) == []
    assert not desk.pending.exists()


def test_a_journal_that_would_leave_the_prefix_is_not_followed(desk, darknet):
    desk.install(darknet)
    (desk.prefix.parent / "victim").write_bytes(b"1")
    journal = {
        "format": 1, "owner": "darknet", "stage": "stage-0", "remove": [["../victim", "x"]],
        "rmdir": [], "mkdir": [], "place": [], "has_record": False,
    }  # fmt: skip
    (desk.prefix / ".artcache/journal").write_text(json.dumps(journal))

    with pytest.raises(Corrupt, match="leaves the folder"):
        desk.install(darknet)
    assert (desk.prefix.parent / "victim").exists()
