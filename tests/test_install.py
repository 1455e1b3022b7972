"""`install` and `uninstall`: what is put, what is left alone, what is refused."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import threading
import time
from pathlib import Path

import pytest
from install_trees import BIG, Desk, in_child, snapshot

from artcache import install as room
from artcache.errors import (
    Busy,
    Corrupt,
    LocalDisk,
    NewerFormat,
    Refused,
    UsageError,
)
from artcache.install import installed, materialise, recover, site

DARKNET = {
    "bin/darknet": BIG,
    "lib/libdarknet.so.1": BIG + b"so",
    "lib/libdarknet.so": "libdarknet.so.1",
    "cfg/yolov4.cfg": b"[net]\nbatch=1\n",
    "cfg/empty": b"",
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def darknet(desk: Desk):
    return desk.tree("darknet-1", DARKNET, dirs=("backup",))


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
    state = desk.prefix / ".artcache"
    before = [(path, path.stat()) for path in (state, *sorted(desk.prefix.rglob("*.*")))]

    assert desk.install(darknet).how == {"unchanged": 5}
    assert [(path, path.stat()) for path in (state, *sorted(desk.prefix.rglob("*.*")))] == before


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


@pytest.fixture
def newer(desk: Desk):
    content = {**DARKNET, "bin/darknet": BIG + b"2", "cfg/new.cfg": b"new"}
    del content["cfg/empty"]
    return desk.tree("darknet-2", content)


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


# -- other people's files -----------------------------------------------------------------


def test_a_different_file_of_somebody_else_is_refused_before_anything_changed(desk, darknet):
    (desk.prefix / "cfg").mkdir(parents=True)
    (desk.prefix / "cfg/yolov4.cfg").write_bytes(b"mine")
    before = snapshot(desk.prefix)

    with pytest.raises(Refused, match=r"cfg/yolov4\.cfg is not artcache's") as refusal:
        desk.install(darknet)
    assert "--overwrite" in refusal.value.hint
    assert snapshot(desk.prefix) == before
    assert not (desk.prefix / ".artcache").exists()
    assert not desk.pending.exists()


def test_overwrite_replaces_it_and_owns_it(desk, darknet):
    (desk.prefix / "cfg").mkdir(parents=True)
    (desk.prefix / "cfg/yolov4.cfg").write_bytes(b"mine")

    assert desk.install(darknet, overwrite=True).files == 5
    assert (desk.prefix / "cfg/yolov4.cfg").read_bytes() == DARKNET["cfg/yolov4.cfg"]
    desk.uninstall()
    assert snapshot(desk.prefix) == {"cfg": None}


def test_an_identical_file_of_somebody_else_stays_theirs(desk, darknet):
    (desk.prefix / "cfg").mkdir(parents=True)
    theirs = desk.prefix / "cfg/yolov4.cfg"
    theirs.write_bytes(DARKNET["cfg/yolov4.cfg"])

    assert desk.install(darknet).how["unchanged"] == 1
    desk.uninstall()
    assert snapshot(desk.prefix) == {"cfg": None, "cfg/yolov4.cfg": (theirs.read_bytes(), 0o644)}


def test_two_recipes_share_a_prefix_and_the_refusal_names_the_other(desk, darknet):
    cudnn = desk.tree("cudnn-9", {"lib/libcudnn.so.9": BIG, "include/cudnn.h": b"h"})
    desk.install(cudnn, owner="cudnn")
    desk.install(darknet)
    clash = desk.tree("clash", {"lib/libcudnn.so.9": b"other"})

    with pytest.raises(Refused, match=r"lib/libcudnn\.so\.9 belongs to the recipe cudnn"):
        desk.install(clash, owner="other")
    assert set(installed(desk.prefix)) == {"cudnn", "darknet"}
    desk.uninstall("cudnn")
    assert (desk.prefix / "lib/libdarknet.so.1").exists()
    desk.uninstall()
    assert not desk.prefix.exists()  # `lib` was made by cudnn, and is removed all the same


def test_what_one_recipe_took_over_from_another_is_its_own(desk):
    desk.install(desk.tree("1", {"a": b"1"}), owner="one")
    desk.install(desk.tree("2", {"a": b"2"}), owner="two", overwrite=True)

    assert desk.uninstall("one").kept == ()
    assert (desk.prefix / "a").read_bytes() == b"2"
    assert desk.uninstall("two").removed == 1


def test_what_two_recipes_have_in_common_stays_until_the_last_one_goes(desk):
    one = desk.tree("1", {"LICENSE": b"same", "a": b"a"}, dirs=("data",))
    two = desk.tree("2", {"LICENSE": b"same", "b": b"b"}, dirs=("data",))
    desk.install(one, owner="one")
    desk.install(two, owner="two")

    assert desk.uninstall("one").kept == ()
    assert snapshot(desk.prefix) == {**snapshot(two.root), "data": None}
    with pytest.raises(Refused, match="belongs to the recipe two"):
        desk.install(desk.tree("3", {"LICENSE": b"new"}), owner="one")
    desk.uninstall("two")
    assert not desk.prefix.exists()


# -- symlinked folders --------------------------------------------------------------------


def test_a_symlinked_folder_inside_the_prefix_is_followed(desk):
    (desk.prefix / "lib").mkdir(parents=True)
    (desk.prefix / "lib64").symlink_to("lib")
    tree = desk.tree("t", {"lib64/libcudnn.so.9": b"so", "lib64/libcudnn.so": "libcudnn.so.9"})

    desk.install(tree)
    assert (desk.prefix / "lib/libcudnn.so").read_bytes() == b"so"
    assert desk.install(tree).how == {"unchanged": 2}
    desk.uninstall()
    assert snapshot(desk.prefix) == {"lib": None, "lib64": "lib"}


def test_a_folder_that_was_moved_and_symlinked_since_is_still_ours(desk):
    tree = desk.tree("t", {"lib/libcudnn.so.9": b"so"})
    desk.install(tree)
    (desk.prefix / "lib").rename(desk.prefix / "lib64")
    (desk.prefix / "lib").symlink_to("lib64")

    assert desk.install(desk.tree("u", {"lib/libcudnn.so.9": b"so2"})).kept == ()
    assert (desk.prefix / "lib64/libcudnn.so.9").read_bytes() == b"so2"
    desk.uninstall()
    assert not (desk.prefix / "lib64/libcudnn.so.9").exists()


@pytest.mark.parametrize("target", ["..", "/", ".artcache", "loop", "nowhere"])
def test_a_symlinked_folder_that_leads_out_of_the_prefix_is_refused(desk, target):
    desk.prefix.mkdir()
    (desk.prefix / "lib").symlink_to("lib" if target == "loop" else target)
    before = sorted(os.listdir(desk.prefix.parent))

    with pytest.raises(Refused, match="lib"):
        desk.install(desk.tree("t", {"lib/x": b"x"}), overwrite=True)
    assert sorted(os.listdir(desk.prefix.parent)) == before


def test_a_file_where_a_folder_must_be_is_refused(desk, darknet):
    desk.prefix.mkdir()
    (desk.prefix / "cfg").write_bytes(b"mine")

    with pytest.raises(Refused, match="a folder has to be there"):
        desk.install(darknet, overwrite=True)


def test_one_file_by_two_names_is_refused(desk):
    (desk.prefix / "lib").mkdir(parents=True)
    (desk.prefix / "lib64").symlink_to("lib")

    with pytest.raises(Refused, match="one file here"):
        desk.install(desk.tree("t", {"lib/x": b"1", "lib64/x": b"2"}))


# -- what is no place to install into -----------------------------------------------------


def test_the_whole_machine_the_home_and_files_are_refused(desk, darknet, tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for place in (Path("/"), desk.home, desk.home / "v1/x", tmp_path / "file", tmp_path / "file/x"):
        desk.prefix = place
        with pytest.raises(Refused):
            desk.install(darknet)
    assert not desk.pending.exists()


@pytest.mark.parametrize("path", ["../x", "/x", "a/../b", ".artcache/x.json", "a//b", ".", "a/"])
def test_a_tree_with_an_unsafe_path_is_corrupt(desk, path):
    tree = desk.tree("t", {"x": b"x"})
    tree = room.Tree(tree.root, [tree.files[0]._replace(path=path)])

    with pytest.raises(Corrupt, match="unsafe path"):
        desk.install(tree)
    assert not desk.prefix.exists()


@pytest.mark.parametrize("target", ["/etc/passwd", "../../etc", ""])
def test_a_tree_with_a_link_that_leaves_it_is_corrupt(desk, target):
    with pytest.raises(Corrupt, match="leaves the tree"):
        desk.install(room.Tree(desk.home, [], [room.TreeLink("a/b", target)]))


def test_a_damaged_cached_file_is_noticed_and_nothing_is_installed(desk, darknet):
    (darknet.root / "cfg/yolov4.cfg").write_bytes(b"short")

    with pytest.raises(Corrupt, match=r"yolov4\.cfg is damaged: 5 bytes instead of 14"):
        desk.install(darknet)
    assert not desk.prefix.exists()
    assert not desk.pending.exists()


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


# -- records ------------------------------------------------------------------------------


def test_a_newer_record_is_not_touched(desk, darknet):
    desk.install(darknet)
    record = desk.prefix / ".artcache/darknet.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "format": 2}))

    for action in (lambda: desk.install(darknet), desk.uninstall, lambda: installed(desk.prefix)):
        with pytest.raises(NewerFormat, match="format 2"):
            action()


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", "null", '{"format":1}', '{"format":true}', "[" * 100_000,
        '{"format":1,"owner":"x","key":"k","folders":[],"entries":{"a":{"seize":1}}}',
        '{"format":1,"owner":"x","key":"k","folders":["../.."],"entries":{}}',
        '{"format":1,"owner":"x","key":"k","folders":[],"entries":{"../x":{}}}',
    ],
)  # fmt: skip
def test_a_damaged_record_says_which_file_to_delete(desk, darknet, text):
    desk.install(darknet)
    record = desk.prefix / ".artcache/darknet.json"
    record.write_text(text)

    with pytest.raises(Corrupt) as error:
        desk.install(darknet)
    assert f"delete {record}" in error.value.hint
    record.unlink()
    assert desk.install(darknet).how == {"unchanged": 5}


def test_a_recipe_called_journal_or_lock_is_fine(desk, darknet):
    for owner in ("journal", "lock"):
        desk.install(darknet, owner=owner)
    assert set(installed(desk.prefix)) == {"journal", "lock"}
    assert recover(desk.pending) == []


@pytest.mark.parametrize("owner", ["", "../x", "A", "a/b", ".x"])
def test_an_owner_is_a_recipe_name(desk, darknet, owner):
    with pytest.raises(UsageError):
        desk.install(darknet, owner=owner)


# -- the disk says no ---------------------------------------------------------------------


@pytest.fixture
def tmpfs(tmp_path):
    mounts = []

    def mount(size: str) -> Path:
        place = tmp_path / f"mount-{len(mounts)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this machine does not let us mount a tmpfs")
        mounts.append(place)
        return place

    yield mount
    for place in mounts:
        subprocess.run(["umount", "-l", place], check=True)


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


def test_many_at_once_take_turns(desk):
    trees = [
        desk.tree(f"t{number}", {f"lib/{number}": b"%d" % number, "lib/common": b"common"})
        for number in range(6)
    ]
    errors = []

    def work(number: int) -> None:
        try:
            for _ in range(5):
                desk.install(trees[number], owner=f"r{number}")
                recover(desk.pending)
                desk.uninstall(f"r{number}")
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert not desk.prefix.exists()
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
