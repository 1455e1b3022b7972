"""`install` and `uninstall`: what is put where, and what an upgrade does to it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

import pytest
from install_trees import BIG, DARKNET, Desk, needs_root, snapshot

from artcache import install as room
from artcache.errors import (
    LocalDisk,
    Refused,
    UsageError,
)
from artcache.install import installed, materialise

pytest_plugins = ("install_fixtures",)


# -- what is put --------------------------------------------------------------------------


def test_a_tree_appears_whole_with_modes_links_and_empty_folders(desk, darknet):
    done = desk.install(darknet)

    assert (done.files, done.kept) == (5, ())
    assert snapshot(desk.prefix) == {**snapshot(darknet.root), "backup": None}
    assert desk.at_rest()


def test_a_prefix_with_spaces_and_unicode_is_fine(tmp_path):
    desk = Desk(tmp_path, tmp_path / "mon préfixe ☃" / "a b")
    desk.install(desk.tree("t", DARKNET))

    assert (desk.prefix / "bin/darknet").read_bytes() == BIG


def test_a_prefix_whose_name_is_not_utf8_is_fine(tmp_path):
    desk = Desk(tmp_path, Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe")))
    desk.install(desk.tree("t", DARKNET))
    desk.uninstall()

    assert not desk.prefix.exists()


def test_the_umask_does_not_change_modes(desk, darknet):
    before = os.umask(0o077)
    try:
        desk.install(darknet)
    finally:
        os.umask(before)

    assert stat.S_IMODE((desk.prefix / "cfg/yolov4.cfg").stat().st_mode) == 0o644


def test_installing_again_changes_nothing(desk, darknet):
    desk.install(darknet)

    def state() -> list[object]:
        paths = [desk.prefix / ".artcache", *sorted(desk.prefix.rglob("*.*"))]
        stats = [path.stat() for path in paths]
        return [(path, s.st_ino, s.st_ctime_ns) for path, s in zip(paths, stats, strict=True)]

    before = state()
    assert desk.install(darknet).how == {"unchanged": 5}
    assert state() == before


def test_installing_again_brings_back_what_was_deleted(desk, darknet):
    desk.install(darknet)
    (desk.prefix / "cfg/yolov4.cfg").unlink()

    assert desk.install(darknet).how == {"copied": 1, "unchanged": 4}
    assert (desk.prefix / "cfg/yolov4.cfg").exists()


def test_large_files_share_their_bytes_with_the_home_and_small_ones_do_not(desk, darknet):
    done = desk.install(darknet)

    with (desk.prefix / "cfg/yolov4.cfg").open("ab") as file:
        file.write(b"mine")
    assert (darknet.root / "cfg/yolov4.cfg").read_bytes() == DARKNET["cfg/yolov4.cfg"]
    if "reflinked" not in done.how:
        assert (desk.prefix / "bin/darknet").samefile(darknet.root / "bin/darknet")


def test_a_large_file_of_another_mode_is_copied(desk, darknet):
    (darknet.root / "bin/darknet").chmod(0o700)
    desk.install(darknet)

    assert stat.S_IMODE((desk.prefix / "bin/darknet").stat().st_mode) == 0o755
    assert stat.S_IMODE((darknet.root / "bin/darknet").stat().st_mode) == 0o700


@pytest.mark.parametrize("number", [errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP])
def test_where_no_hard_link_can_be_made_the_file_is_copied(desk, darknet, monkeypatch, number):
    def refuse(self, target):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    monkeypatch.setattr(materialise.Materialiser, "_reflink", lambda *a: False)
    assert desk.install(darknet).how == {"copied": 4, "symlinked": 1}
    assert snapshot(desk.prefix)["bin/darknet"] == (BIG, 0o755)


@pytest.mark.parametrize("moved", ["refused", 0, 1000])
def test_a_copy_the_kernel_cuts_short_is_finished_by_hand(desk, darknet, monkeypatch, moved):
    real = os.copy_file_range
    calls = []

    def stingy(source, target, count):
        calls.append(count)
        if moved == "refused":
            raise OSError(errno.EXDEV, "no")
        return real(source, target, moved) if len(calls) == 1 and moved else 0

    monkeypatch.setattr(os, "copy_file_range", stingy)
    monkeypatch.setattr(materialise, "LINK_FROM", 1 << 40)
    desk.install(darknet)
    assert calls
    assert snapshot(desk.prefix)["bin/darknet"] == (BIG, 0o755)


def test_on_a_disk_with_reflinks_every_file_is_one(desk, darknet, monkeypatch):
    def clone(target, request, source):
        assert request == 0x40049409
        os.sendfile(target, source, 0, os.fstat(source).st_size)

    monkeypatch.setattr(fcntl, "ioctl", clone)
    assert desk.install(darknet).how == {"reflinked": 4, "symlinked": 1}
    assert snapshot(desk.prefix) == {**snapshot(darknet.root), "backup": None}


@needs_root
def test_across_disks_files_are_copied(tmp_path, darknet, tmpfs):
    desk = Desk(tmp_path, tmpfs("32m") / "prefix")

    assert desk.install(darknet).how == {"copied": 4, "symlinked": 1}
    assert desk.at_rest()


def test_a_disk_without_symlinks_gets_copies_and_stays_idempotent(desk, darknet, monkeypatch):
    def refuse(self, target, target_is_directory=False):
        raise OSError(errno.EPERM, "no symlinks")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    notes: list[str] = []
    desk.install(darknet, note=notes.append)
    assert (desk.prefix / "lib/libdarknet.so").read_bytes() == BIG + b"so"
    assert not (desk.prefix / "lib/libdarknet.so").is_symlink()
    assert notes == ["this disk has no symlinks: what they lead to is copied instead"]

    assert desk.install(darknet).how == {"unchanged": 5}
    assert desk.uninstall().removed == 5


def test_a_link_to_a_folder_cannot_be_copied_and_says_so(desk, monkeypatch):
    tree = desk.tree("t", {"lib/a": b"a", "lib64": "lib"})

    def refuse(self, target, target_is_directory=False):
        raise OSError(errno.EPERM, "no symlinks")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    with pytest.raises(LocalDisk, match="no symlinks"):
        desk.install(tree)
    assert not desk.prefix.exists()


def test_a_disk_without_permission_bits_is_noted_once(desk, darknet, monkeypatch):
    def refuse(descriptor, mode):
        raise OSError(errno.EPERM, "no modes")

    monkeypatch.setattr(os, "fchmod", refuse)
    monkeypatch.setattr(materialise, "LINK_FROM", 1 << 40)
    notes: list[str] = []
    desk.install(darknet, note=notes.append)
    assert notes == ["this disk has no permission bits: programs in it may not start"]
    assert desk.install(darknet).how == {"unchanged": 5}


# -- upgrades -----------------------------------------------------------------------------


def test_an_upgrade_replaces_adds_and_removes(desk, darknet, newer):
    desk.install(darknet)
    done = desk.install(newer)

    assert snapshot(desk.prefix) == snapshot(newer.root)
    assert done.how["removed"] == 1
    assert installed(desk.prefix)["darknet"].key == "darknet-2"


def test_what_the_user_changed_is_kept_and_reported(desk, darknet, newer):
    desk.install(darknet)
    (desk.prefix / "bin/darknet").unlink()
    (desk.prefix / "bin/darknet").write_bytes(b"mine")
    (desk.prefix / "cfg/empty").write_bytes(b"mine too")

    done = desk.install(newer)
    assert done.kept == ("bin/darknet", "cfg/empty")
    assert done.files == 4
    assert (desk.prefix / "bin/darknet").read_bytes() == b"mine"
    assert desk.install(newer).kept == ("bin/darknet",)  # it is still the user's next time
    assert desk.install(newer, overwrite=True).kept == ()
    assert (desk.prefix / "bin/darknet").read_bytes() == BIG + b"2"


def test_a_touched_file_is_not_a_changed_one(desk, darknet, newer):
    desk.install(darknet)
    for path in desk.prefix.rglob("*"):
        os.utime(path, (1, 1), follow_symlinks=False)

    assert desk.install(newer).kept == ()
    assert snapshot(desk.prefix) == snapshot(newer.root)


def test_a_changed_mode_alone_is_an_upgrade(desk):
    tree = desk.tree("1", {"tool": b"#!/bin/sh\n"})
    desk.install(tree)
    desk.install(room.Tree(tree.root, [tree.files[0]._replace(mode=0o755)]))

    assert stat.S_IMODE((desk.prefix / "tool").stat().st_mode) == 0o755


def test_a_file_becomes_a_folder_and_back(desk):
    one = desk.tree("1", {"data": b"file", "lib64": "data"})
    two = desk.tree("2", {"data/a/b": b"1", "data/c": b"2", "lib64/x": b"3"}, dirs=("data/e",))

    for tree, empty in ((one, {}), (two, {"data/e": None}), (one, {})):
        desk.install(tree)
        assert snapshot(desk.prefix) == {**snapshot(tree.root), **empty}


def test_a_link_that_becomes_a_folder_is_not_looked_through(desk):
    desk.install(desk.tree("1", {"lib/x": b"1", "lib64": "lib"}))
    desk.install(desk.tree("2", {"lib/x": b"1", "lib64/x": b"2"}))

    assert (desk.prefix / "lib/x").read_bytes() == b"1"
    assert (desk.prefix / "lib64/x").read_bytes() == b"2"
    assert not (desk.prefix / "lib64").is_symlink()


def test_a_file_that_the_user_put_in_place_of_a_link_is_kept(desk):
    tree = desk.tree("1", {"lib/x": "y"})
    desk.install(tree)
    (desk.prefix / "lib/x").unlink()
    (desk.prefix / "lib/x").write_bytes(b"mine")

    assert desk.install(tree).kept == ("lib/x",)
    assert (desk.prefix / "lib/x").read_bytes() == b"mine"


def test_a_folder_with_the_users_files_does_not_become_a_file(desk):
    one = desk.tree("1", {"data": b"file"})
    two = desk.tree("2", {"data/a": b"1"})
    desk.install(two)
    (desk.prefix / "data/mine").write_bytes(b"mine")
    before = snapshot(desk.prefix)

    with pytest.raises(Refused, match="data is a folder") as refusal:
        desk.install(one, overwrite=True)
    assert "--overwrite" not in refusal.value.hint
    assert snapshot(desk.prefix) == before


# -- uninstall ----------------------------------------------------------------------------


def test_uninstall_leaves_what_was_there_before(desk, darknet):
    (desk.prefix / "bin").mkdir(parents=True)
    (desk.prefix / "bin/mine").write_bytes(b"mine")
    before = snapshot(desk.prefix)
    desk.install(darknet)

    done = desk.uninstall()
    assert (done.removed, done.kept) == (5, ())
    assert snapshot(desk.prefix) == before
    assert not (desk.prefix / ".artcache").exists()


def test_uninstall_keeps_and_reports_what_the_user_changed(desk, darknet):
    desk.install(darknet)
    (desk.prefix / "cfg/yolov4.cfg").write_bytes(b"[net]\nbatch=2\n")  # of the same size
    (desk.prefix / "backup/yolov4_1000.weights").write_bytes(b"weights")

    assert desk.uninstall().kept == ("cfg/yolov4.cfg",)
    left = [path for path, item in snapshot(desk.prefix).items() if item]
    assert sorted(left) == ["backup/yolov4_1000.weights", "cfg/yolov4.cfg"]


def test_uninstalling_what_is_not_there_names_who_is(desk, darknet):
    desk.install(darknet)

    with pytest.raises(UsageError) as error:
        desk.uninstall("cudnn")
    assert "darknet" in error.value.hint


# -- pace ---------------------------------------------------------------------------------


def test_a_gigabyte_on_the_same_disk_is_linked_not_copied(desk):
    """The bytes are holes, so that the test is quick; a copy would still read them all."""
    tree = desk.tree("big", {f"bin/lib{number}": b"" for number in range(20)})
    for file in tree.files:
        os.truncate(tree.root / file.path, 50 << 20)
    files = [file._replace(size=50 << 20) for file in tree.files]

    began = time.perf_counter()
    done = desk.install(room.Tree(tree.root, files))
    assert set(done.how) <= {"linked", "reflinked"}
    assert time.perf_counter() - began < 1  # 15 ms on a quiet machine
