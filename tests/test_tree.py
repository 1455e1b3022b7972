"""A tree on the disk: what is found in it, and where it is not the manifest's."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from artcache.digest import xxh3
from artcache.errors import BuildFailed
from artcache.manifest import Link
from artcache.tree import differing, digest_file, digest_files, scan
from tests.making import SMALL, plant


def test_a_scan_has_everything_in_manifest_order(tmp_path: Path) -> None:
    found = scan(plant(tmp_path / "tree", SMALL))

    assert found.files == (
        ("bin/tool", 0o755, 20),
        ("lib/libtool.so.1", 0o644, 2004),
        ("share/empty", 0o644, 0),
    )
    assert found.links == (Link("lib/libtool.so", "libtool.so.1"),)
    assert found.dirs == ("share/cache",)


def test_the_order_is_that_of_whole_paths_by_code_point(tmp_path: Path) -> None:
    names = ["a", "a-b", "a.b/x", "aa", "B", "é", "\uffff", "\U0001f600"]
    found = scan(plant(tmp_path / "tree", dict.fromkeys(names, b"")))
    assert [path for path, _, _ in found.files] == sorted(names)


@pytest.mark.parametrize("mode", [0o700, 0o755, 0o611, 0o654, 0o4755])
def test_a_file_that_anybody_may_run_is_0755(tmp_path: Path, mode: int) -> None:
    tree = plant(tmp_path / "tree", {"a": b"x"})
    (tree / "a").chmod(mode)
    assert scan(tree).files == (("a", 0o755, 1),)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o666, 0o400])
def test_any_other_file_is_0644(tmp_path: Path, mode: int) -> None:
    tree = plant(tmp_path / "tree", {"a": b"x"})
    (tree / "a").chmod(mode)
    assert scan(tree).files == (("a", 0o644, 1),)


def test_an_empty_root_is_no_empty_folder(tmp_path: Path) -> None:
    assert scan(tmp_path) == ((), (), ())


def test_only_folders_that_hold_nothing_are_listed(tmp_path: Path) -> None:
    assert scan(plant(tmp_path, {"a/b/c": None, "d/e": b""})).dirs == ("a/b/c",)


def test_a_link_to_a_folder_is_a_link_and_not_gone_into(tmp_path: Path) -> None:
    found = scan(plant(tmp_path, {"lib/x": b"1", "lib64": "lib"}))
    assert [path for path, _, _ in found.files] == ["lib/x"]
    assert found.links == (Link("lib64", "lib"),)


def make_fifo(tree: Path) -> None:
    os.mkfifo(tree / "odd")


def make_socket(tree: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(tree / "odd"))


def make_bad_name(tree: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/odd\xff")).write_bytes(b"")


def make_bad_folder(tree: Path) -> None:
    Path(os.fsdecode(os.fsencode(tree) + b"/odd\xff")).mkdir()


def make_bad_target(tree: Path) -> None:
    (tree / "odd").symlink_to(os.fsdecode(b"to\xff"))


def make_absolute_link(tree: Path) -> None:
    (tree / "odd").symlink_to("/usr/lib")


def make_link_out(tree: Path) -> None:
    (tree / "odd").symlink_to("sub/../../x")


def make_link_out_by_link(tree: Path) -> None:
    (tree / "sub").mkdir()
    (tree / "sub/up").symlink_to("..")
    (tree / "odd").symlink_to("sub/up/../etc")


@pytest.mark.parametrize(
    "make",
    [
        make_fifo,
        make_socket,
        make_bad_name,
        make_bad_folder,
        make_bad_target,
        make_absolute_link,
        make_link_out,
        make_link_out_by_link,
    ],
)
def test_what_no_manifest_can_hold_fails_the_build_and_is_named(
    tmp_path: Path, make: Callable[[Path], None]
) -> None:
    make(tmp_path)
    with pytest.raises(BuildFailed, match="odd"):
        scan(tmp_path)


def test_digests_are_of_the_files_bytes(tmp_path: Path) -> None:
    data = bytes(range(256)) * 10_000
    tree = plant(tmp_path, {"a": data, "b": b""})
    assert digest_file(tree / "a") == (xxh3(data), len(data))
    assert [file.xxh3 for file in digest_files(tree, scan(tree))] == [xxh3(data), xxh3(b"")]


@pytest.mark.parametrize("now", [b"", b"other length"])
def test_a_file_that_changes_while_it_is_digested_fails_the_build(
    tmp_path: Path, now: bytes
) -> None:
    tree = plant(tmp_path, {"a": b"as found"})
    found = scan(tree)
    (tree / "a").write_bytes(now)
    with pytest.raises(BuildFailed, match="a changed"):
        digest_files(tree, found)


# -- where a tree differs -----------------------------------------------------------------


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


DAMAGES: dict[str, tuple[str, Callable[[Path], object], str]] = {
    "content": ("lib/libtool.so.1", lambda p: p.write_bytes(b"x" * 2004), "content changed"),
    "size": ("bin/tool", lambda p: p.write_bytes(b"x"), "1 bytes, should be 20"),
    "gone": ("bin/tool", lambda p: p.unlink(), "missing"),
    "folder": ("bin/tool", replace_by_folder, "no regular file"),
    "link": ("bin/tool", replace_by_link, "no regular file"),
    "mode off": ("bin/tool", lambda p: p.chmod(0o644), "executable bit"),
    "mode on": ("share/empty", lambda p: p.chmod(0o755), "executable bit"),
    "target": (
        "lib/libtool.so",
        lambda p: (p.unlink(), p.symlink_to("elsewhere")),
        "does not lead to libtool.so.1",
    ),
    "no link": ("lib/libtool.so", lambda p: (p.unlink(), p.write_text("x")), "does not lead"),
    "link gone": ("lib/libtool.so", lambda p: p.unlink(), "does not lead"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damage_is_told_by_path_and_kind(tmp_path: Path, damage: str) -> None:
    tree = plant(tmp_path / "tree", SMALL)
    found = scan(tree)
    files = digest_files(tree, found)
    assert differing(tree, files, found.links) == []
    path, do, why = DAMAGES[damage]

    do(tree / path)

    (told,) = differing(tree, files, found.links)
    assert told.startswith(f"{path}: ")
    assert why in told


def test_what_the_manifest_does_not_name_is_not_looked_at(tmp_path: Path) -> None:
    tree = plant(tmp_path / "tree", SMALL)
    found = scan(tree)
    files = digest_files(tree, found)
    (tree / "extra").write_text("x")
    (tree / "bin/tool").chmod(0o700)
    assert differing(tree, files, found.links) == []
