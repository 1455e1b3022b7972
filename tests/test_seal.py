"""The seal: when a tree is trusted without being read, and when not."""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from artcache import seal as seals
from artcache.disk import boot_id
from artcache.key import Key
from artcache.manifest import File, Link, Manifest
from artcache.seal import Seal, Trust
from tests.making import plant

LARGE = 1 << 20
TREE = {
    "bin/tool": b"#!/bin/sh\n",
    "lib/large.so": b"\x7fELF" * (LARGE // 4),
    "lib/link.so": "large.so",
    "share/small": b"small",
    "top": b"at the top",
}
FACTS = {
    "fields": {"recipe": "thing"},
    "origin": "built",
    "size": 1,
    "needs": [],
    "milliseconds": 0,
}


def manifest() -> Manifest:
    links = [Link(path, content) for path, content in TREE.items() if isinstance(content, str)]
    files = [
        File(path, 0o755 if path == "bin/tool" else 0o644, len(content), "")
        for path, content in TREE.items()
        if isinstance(content, bytes)
    ]
    return Manifest(Key({"recipe": "thing"}), tuple(files), tuple(links))


def made(folder: Path, *, durable: bool = False) -> bytes:
    rows = seals.rows_of(str(folder / "tree"), manifest())
    return seals.encoded(seals.make(rows, FACTS, durable=durable))


def sealed(folder: Path, *, durable: bool = False) -> Seal:
    (folder / seals.NAME).write_bytes(made(folder, durable=durable))
    found = seals.read(str(folder))
    assert found
    return found


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    plant(tmp_path / "tree", TREE)
    for path in (tmp_path / "tree").rglob("*"):  # as if made some time ago
        os.utime(path, (time.time() - 100, time.time() - 100), follow_symlinks=False)
    return tmp_path


@pytest.fixture
def restarted(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    return lambda: monkeypatch.setattr(seals, "boot_id", lambda: "another boot")


# -- the first look -----------------------------------------------------------------------


def test_a_tree_as_it_was_sealed_is_sound(folder: Path) -> None:
    assert sealed(folder).trust() == (Trust.SOUND, "")


def test_after_a_restart_the_tree_must_be_read(folder: Path, restarted: Callable[[], None]) -> None:
    seal = sealed(folder)
    restarted()
    assert seal.trust()[0] is Trust.READ_ALL


def test_a_tree_known_to_be_on_disk_outlives_a_restart(
    folder: Path, restarted: Callable[[], None]
) -> None:
    seal = sealed(folder, durable=True)
    restarted()
    assert seal.trust() == (Trust.SOUND, "")


def same_size(path: Path) -> None:
    path.write_bytes(path.read_bytes()[::-1])


def longer_at_the_same_time(path: Path) -> None:
    before = path.stat()
    path.write_bytes(path.read_bytes() + b"!")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def into_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def into_link(path: Path) -> None:
    path.rename(path.with_name("moved"))
    path.symlink_to("moved")


def relink(path: Path) -> None:
    path.unlink()
    path.symlink_to("elsewhere")


def without_its_folder(path: Path) -> None:
    shutil.rmtree(path.parent)


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("share/small", same_size, "share/small was changed"),
    ("share/small", longer_at_the_same_time, "share/small was changed"),
    ("share/small", os.utime, "share/small was changed"),
    ("share/small", Path.unlink, "share/small is gone"),
    ("share/small", into_folder, "share/small was changed"),
    ("bin/tool", into_link, "bin/tool was changed"),
    ("lib/link.so", relink, "lib/link.so was changed"),
    ("lib/link.so", Path.unlink, "lib/link.so is gone"),
    ("lib/large.so", same_size, "lib/large.so was changed"),
    ("share/small", without_its_folder, "share"),
    ("bin/tool", into_folder, "bin/tool was changed"),
    ("top", without_its_folder, "tree"),
]
IN_PLACE = (same_size, longer_at_the_same_time, os.utime)


@pytest.mark.parametrize(("path", "damage", "why"), DAMAGES)
def test_a_damage_is_seen_at_the_first_look_and_named(
    folder: Path, path: str, damage: Callable[[Path], object], why: str
) -> None:
    seal = sealed(folder)
    damage(folder / "tree" / path)
    trust, told = seal.trust()
    assert trust is Trust.BROKEN
    assert why in told


def test_files_that_the_seal_does_not_name_do_no_harm(folder: Path) -> None:
    seal = sealed(folder)
    (folder / "tree" / "extra").write_text("x")
    assert seal.trust()[0] is Trust.SOUND


# -- later looks of one process -----------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "damage", "why"),
    [row for row in DAMAGES if row[0] != "share/small" or row[1] not in IN_PLACE],
)
def test_a_damage_is_seen_at_a_later_look_too(
    folder: Path, path: str, damage: Callable[[Path], object], why: str
) -> None:
    seal = sealed(folder)
    assert seal.trust()[0] is Trust.SOUND
    damage(folder / "tree" / path)
    trust, told = seal.trust()
    assert trust is Trust.BROKEN
    assert why in told


def test_a_small_file_changed_in_place_is_seen_by_the_next_process(folder: Path) -> None:
    seal = sealed(folder)
    seal.trust()
    same_size(folder / "tree/share/small")
    assert seal.trust()[0] is Trust.SOUND
    assert Seal(seal.folder, seal.body, seal.stamp).trust()[0] is Trust.BROKEN


def test_a_new_file_in_a_folder_makes_the_next_look_a_full_one(folder: Path) -> None:
    seal = sealed(folder)
    seal.trust()
    same_size(folder / "tree/share/small")
    (folder / "tree/share/new").write_text("x")
    assert seal.trust()[0] is Trust.BROKEN


# -- the file -----------------------------------------------------------------------------


def test_a_folder_without_a_seal_is_no_entry(tmp_path: Path) -> None:
    assert seals.read(str(tmp_path)) is None
    assert seals.read(str(tmp_path / "not there")) is None
    (tmp_path / "file").touch()
    assert seals.read(str(tmp_path / "file")) is None


@pytest.mark.parametrize(
    "change",
    [
        lambda data: b"",
        lambda data: data[: len(data) // 2],
        lambda data: b"\0" * len(data),
        lambda data: b"\xff" + data,
        lambda data: b"[]",
        lambda data: b"{}",
        lambda data: data.replace(b'"seal":1', b'"seal":2'),
        *(
            lambda data, name=name: json.dumps(
                {k: v for k, v in json.loads(data).items() if k != name}
            ).encode()
            for name in ("fields", "origin", "boot", "durable", "files", "always", "folders")
        ),
    ],
)
def test_a_seal_that_cannot_be_read_is_an_error(folder: Path, change) -> None:  # type: ignore[no-untyped-def]
    (folder / seals.NAME).write_bytes(change(made(folder)))
    with pytest.raises(ValueError, match=r".+"):
        seals.read(str(folder))


def test_a_folder_in_place_of_the_seal_is_an_error(folder: Path) -> None:
    (folder / seals.NAME).mkdir()
    with pytest.raises(ValueError, match="directory"):
        seals.read(str(folder))


def test_an_unchanged_seal_is_parsed_once(folder: Path) -> None:
    seal = sealed(folder)
    assert seals.read(str(folder)) is seal
    seal.touch()
    assert seals.read(str(folder)) is seal


def test_a_rewritten_seal_is_read_again(folder: Path) -> None:
    first = sealed(folder)
    (folder / seals.NAME).unlink()
    second = sealed(folder, durable=True)
    assert second is not first
    assert second.body["durable"]


def test_the_use_is_recorded_and_the_time_of_making_kept(folder: Path) -> None:
    seal = sealed(folder)
    file = folder / seals.NAME
    made = file.stat().st_mtime_ns
    os.utime(file, ns=(0, made))

    seal.touch()

    assert abs(file.stat().st_atime - time.time()) < 60
    assert file.stat().st_mtime_ns == made


def test_a_use_that_cannot_be_recorded_is_no_error(folder: Path) -> None:
    seal = sealed(folder)
    (folder / seals.NAME).unlink()
    seal.touch()


def test_the_seal_holds_what_it_was_given(folder: Path) -> None:
    body = sealed(folder).body
    assert {name: body[name] for name in FACTS} == FACTS
    assert body["boot"] == boot_id()
    assert sorted(row[0] for row in body["files"]) == list(TREE)
    assert [row[0] for row in body["always"]] == ["bin/tool", "lib/large.so"]
    assert body["folders"] == ["", "bin", "lib", "share"]


@pytest.mark.parametrize("later", [0, 1], ids=["the disk's times", "other times"])
def test_a_seal_by_the_writer_s_word_is_the_one_by_a_look_at_each_file(
    folder: Path, later: int
) -> None:
    tree = folder / "tree"
    stamps = [(tree / file.path).stat().st_mtime_ns + later for file in manifest().files]
    assert seals.rows_of(str(tree), manifest(), stamps) == seals.rows_of(str(tree), manifest())


def test_the_writer_s_word_is_believed_of_most_files(folder: Path) -> None:
    tree = folder / "tree"
    stamps = [(tree / file.path).stat().st_mtime_ns for file in manifest().files]
    stamps[1] += 1
    rows = seals.rows_of(str(tree), manifest(), stamps)
    assert rows[1].modified == stamps[1]
