"""`install` among other people's files, symlinks and records: left alone, shared or refused."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from install_trees import BIG, DARKNET, snapshot

from artcache import install as room
from artcache.errors import (
    Corrupt,
    NewerFormat,
    Refused,
    UsageError,
)
from artcache.install import installed, recover
from artcache.manifest import Link

pytest_plugins = ("install_fixtures",)


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
        desk.install(room.Tree(desk.home, [], [Link("a/b", target)]))


def test_a_damaged_cached_file_is_noticed_and_nothing_is_installed(desk, darknet):
    (darknet.root / "cfg/yolov4.cfg").write_bytes(b"short")

    with pytest.raises(Corrupt, match=r"yolov4\.cfg is damaged: 5 bytes instead of 14"):
        desk.install(darknet)
    assert not desk.prefix.exists()
    assert not desk.pending.exists()


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
