"""A store in one file: what goes in comes out, any unzip reads it, and no file is believed."""

from __future__ import annotations

import contextlib
import io
import os
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as some
from test_posix_store import drive  # noqa: F401

from artcache.errors import (
    ArtcacheError,
    BadArchive,
    Corrupt,
    LocalDisk,
    ObjectExists,
    ObjectNotFound,
    OverLimit,
    Refused,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from artcache.stores import open_store, zipped
from artcache.stores.archive import ArchiveStore, ArchiveWriter
from tests.store_contract import UNSAFE, names
from tests.world import python, small_disk

OBJECTS = {
    "artcache.json": b"{}",
    "v1/packs/0a/0a.pack": bytes(range(256)) * 40,
    "v1/manifests/thing/1.json": b'{"one": 1}',
    "v1/manifests/thing/2 (1).json": b"",
}
PACK = "v1/packs/0a/0a.pack"


def written(path: Path, objects: Mapping[str, bytes] = OBJECTS) -> Path:
    with ArchiveWriter(path) as writer:
        for name, content in objects.items():
            writer.create(name, content)
        writer.finish()
    return path


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return written(tmp_path / "a.artcache")


def contents(store: ArchiveStore) -> dict[str, bytes]:
    listed = [*store.list("v1")]
    found = {entry.name: store.get(entry.name, limit=1 << 20) for entry in listed}
    assert all(len(found[entry.name]) == entry.size for entry in listed)
    return found | {"artcache.json": store.get("artcache.json", limit=100)}


# -- writing and reading ------------------------------------------------------------------


def test_what_was_written_is_read(archive: Path) -> None:
    store = ArchiveStore(archive)
    store.check()
    assert contents(store) == OBJECTS
    assert store.size(PACK) == 10240
    assert names(store, "v1/manifests/thing") == sorted(list(OBJECTS)[2:])
    assert store.get_range(PACK, 300, 5) == bytes([44, 45, 46, 47, 48])


def test_a_file_goes_in_as_bytes_do(tmp_path: Path) -> None:
    (tmp_path / "pack").write_bytes(OBJECTS[PACK])
    with ArchiveWriter(tmp_path / "one.artcache") as writer:
        for name, content in OBJECTS.items():
            writer.create(name, tmp_path / "pack" if name == PACK else content)
        assert writer.get(PACK, limit=1 << 20) == OBJECTS[PACK]
        with pytest.raises(ObjectExists):
            writer.create(PACK, b"other")
        writer.finish()
    other = written(tmp_path / "two.artcache")
    assert (tmp_path / "one.artcache").read_bytes() == other.read_bytes()


_part = some.from_regex(r"[A-Za-z0-9][A-Za-z0-9._() -]{0,20}", fullmatch=True)
_names = some.lists(_part, min_size=1, max_size=4).map("/".join)


@given(
    objects=some.dictionaries(_names, some.binary(max_size=300), max_size=12), long=some.booleans()
)
def test_anything_goes_in_and_comes_out_also_by_another_s_unzip(
    objects: dict[str, bytes], long: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    parts = [name.split("/") for name in objects]
    folders = {"/".join(words[:count]) for words in parts for count in range(1, len(words))}
    objects = {name: data for name, data in objects.items() if name not in folders}
    path = tmp_path_factory.mktemp("archive") / "a.artcache"
    with pytest.MonkeyPatch.context() as patch:
        if long:  # every number in its 64-bit form
            patch.setattr(zipped, "_MOST16", 0)
            patch.setattr(zipped, "_MOST32", 0)
        written(path, objects)

    store = ArchiveStore(path)
    store.check()
    assert {name: store.get(name, limit=300) for name in objects} == objects
    with zipfile.ZipFile(path) as other:
        assert other.testzip() is None
        assert {name: other.read(name) for name in other.namelist()} == objects


def test_the_same_objects_make_the_same_bytes(archive: Path, tmp_path: Path) -> None:
    os.utime(archive, (1, 1))
    assert written(tmp_path / "b.artcache").read_bytes() == archive.read_bytes()


def test_an_archive_that_any_zip_program_made_is_read(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "z.artcache", "w", zipfile.ZIP_STORED) as out:
        for folder in ("v1/", "v1/packs/", "v1/packs/0a/"):
            out.writestr(zipfile.ZipInfo(folder), b"")
        for name, content in OBJECTS.items():
            with out.open(zipfile.ZipInfo(name), "w", force_zip64=True) as member:
                member.write(content)
    assert contents(ArchiveStore(tmp_path / "z.artcache")) == OBJECTS


class Pipe(io.RawIOBase):
    """Cannot seek: what is written to it has sizes behind the bytes."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("wb")

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        return self._file.write(data)  # type: ignore[arg-type]

    def close(self) -> None:
        self._file.close()


def test_an_archive_that_was_zipped_through_a_pipe_is_read(tmp_path: Path) -> None:
    with Pipe(tmp_path / "p.artcache") as pipe, zipfile.ZipFile(pipe, "w") as out:
        for name, content in OBJECTS.items():
            out.writestr(name, content)
    assert contents(ArchiveStore(tmp_path / "p.artcache")) == OBJECTS


# -- a store like any other, but for writing ----------------------------------------------


def test_the_suffix_opens_it_and_a_folder_of_that_name_stays_a_folder(tmp_path: Path) -> None:
    store = open_store(str(tmp_path / "none.artcache"))
    assert isinstance(store, ArchiveStore)
    assert (store.traits.writable, store.url) == (False, str(tmp_path / "none.artcache"))
    with pytest.raises(StoreUnavailable, match="No such file"):
        store.get(PACK, limit=1)
    (tmp_path / "folder.artcache").mkdir()
    assert open_store(f"file://{tmp_path}/folder.artcache").traits.writable


@pytest.mark.parametrize("name", UNSAFE, ids=repr)
def test_a_name_that_no_store_can_hold_is_refused(archive: Path, name: str) -> None:
    store = ArchiveStore(archive)
    for use in (
        lambda: store.create(name, b"x"),
        lambda: store.get(name, limit=10),
        lambda: store.get_range(name, 0, 1),
        lambda: store.size(name),
        lambda: store.delete(name),
        lambda: store.quarantine(name),
        lambda: list(store.list(name)),
    ):
        with pytest.raises(UsageError):
            use()


def test_reading_has_the_errors_of_every_store(archive: Path) -> None:
    store = ArchiveStore(archive)
    with pytest.raises(ObjectNotFound, match=r"a\.artcache has no v1/x"):
        store.get("v1/x", limit=1)
    with pytest.raises(OverLimit, match="10240 bytes"):
        store.get(PACK, limit=10239)
    with pytest.raises(Corrupt, match="ends at byte 10240"):
        store.get_range(PACK, 10239, 2)
    assert names(store, "v1/manifests/thin") == names(store, "v2") == []


def test_it_is_never_written(archive: Path) -> None:
    before = archive.read_bytes()
    store = ArchiveStore(archive)
    with pytest.raises(ObjectExists):
        store.create(PACK, b"x")
    for use in (
        lambda: store.create("v1/new", b"x"),
        lambda: store.delete(PACK),
        lambda: store.quarantine(PACK),
        lambda: store.move(PACK, "v1/elsewhere"),
    ):
        with pytest.raises(StoreDenied, match="written once"):
            use()
    store.delete("v1/none")
    assert archive.read_bytes() == before


# -- never half there ---------------------------------------------------------------------


def test_until_it_is_finished_there_is_nothing(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.artcache") as writer:
        writer.create(PACK, b"x")
        assert not (tmp_path / "a.artcache").exists()
    assert os.listdir(tmp_path) == []


def test_what_a_killed_writer_left_is_swept_and_a_living_one_s_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.artcache"
    code = """
import os, sys, signal
from pathlib import Path
from artcache.stores.archive import ArchiveWriter
ArchiveWriter(Path(sys.argv[1])).create("v1/x", bytes(1000))
os.kill(os.getpid(), signal.SIGKILL)
"""
    python(code, path).wait(30)
    (left,) = os.listdir(tmp_path)
    with ArchiveWriter(path, overwrite=True) as living:
        assert left not in os.listdir(tmp_path)
        pid = os.getpid()
        (living._temporary).rename(tmp_path / f".a.artcache.saving-{pid + 1}")
        written(path)
        assert f".a.artcache.saving-{pid + 1}" in os.listdir(tmp_path)


def test_a_file_in_the_way_stays_unless_it_is_to_be_replaced(archive: Path) -> None:
    before = archive.read_bytes()
    with pytest.raises(Refused, match="exists"):
        ArchiveWriter(archive)
    with ArchiveWriter(archive, overwrite=True) as writer:
        writer.create(PACK, b"x")
        assert archive.read_bytes() == before
        writer.finish()
    assert ArchiveStore(archive).get(PACK, limit=1) == b"x"


def test_a_file_that_appears_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "a.artcache"
    with ArchiveWriter(path) as writer:
        path.write_text("another's")
        with pytest.raises(Refused):
            writer.finish()
    assert path.read_text() == "another's"
    assert os.listdir(tmp_path) == ["a.artcache"]


def test_a_disk_without_links_gets_its_archive_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_links(*words: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    assert contents(ArchiveStore(written(tmp_path / "a.artcache"))) == OBJECTS
    assert os.listdir(tmp_path) == ["a.artcache"]


def test_a_mounted_drive_gets_its_archive_too(drive: Path) -> None:  # noqa: F811
    path = drive / "a.artcache"
    written(path)
    assert contents(ArchiveStore(path)) == OBJECTS
    with pytest.raises(Refused):
        ArchiveWriter(path)
    assert [name for name in os.listdir(drive) if "a.artcache" in name] == ["a.artcache"]


def test_a_full_disk_is_said_and_nothing_is_left(tmp_path: Path) -> None:
    with small_disk(tmp_path / "stick", 1 << 20) as stick:
        with ArchiveWriter(stick / "a.artcache") as writer:
            writer.create("v1/small", b"x" * 1000)
            with pytest.raises(LocalDisk, match="the disk is full") as full:
                writer.create(PACK, os.urandom(2 << 20))
            assert full.value.hint.startswith("free some space, or save it into a folder")
            assert writer.get("v1/small", limit=1000) == b"x" * 1000
        assert os.listdir(stick) == []


def test_a_source_that_cannot_be_read_leaves_the_others(tmp_path: Path) -> None:
    with ArchiveWriter(tmp_path / "a.artcache") as writer:
        writer.create("v1/one", b"1")
        with pytest.raises(ArtcacheError):
            writer.create(PACK, tmp_path / "none")
        writer.create("v1/two", b"2")
        writer.finish()
    store = ArchiveStore(tmp_path / "a.artcache")
    store.check()
    assert names(store, "v1") == ["v1/one", "v1/two"]


# -- files that deceive -------------------------------------------------------------------


def zip_of(path: Path, *members: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as out:
        for name, content in members:
            out.writestr(zipfile.ZipInfo(name), content, method)
    return path


def refused(path: Path, words: str = "no sound archive") -> None:
    with pytest.raises(BadArchive, match=words) as told:
        ArchiveStore(path).check()
    assert told.value.hint and str(path) in str(told.value)
    assert told.value.exit_code == 5


@pytest.mark.parametrize(
    "name",
    ["../x", "/etc/passwd", "v1/../../x", "v1//x", "a\\b", ".hidden", "v1/.tmp", "v1/é", "C:x"],
)
def test_a_name_that_leaves_the_store_is_refused(tmp_path: Path, name: str) -> None:
    refused(zip_of(tmp_path / "z", ("v1/good", b"1"), (name, b"2")), "no name of an object")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_doubled_name_is_refused(tmp_path: Path) -> None:
    refused(zip_of(tmp_path / "z", (PACK, b"1"), (PACK, b"2")), f"two members are called {PACK}")


def test_a_name_that_is_object_and_folder_is_refused(tmp_path: Path) -> None:
    refused(zip_of(tmp_path / "z", ("v1/a", b"1"), ("v1/a/b", b"2")), "v1/a is both")


def test_a_compressed_member_is_refused_whatever_it_would_become(tmp_path: Path) -> None:
    bomb = zip_of(tmp_path / "z", (PACK, bytes(50_000_000)), method=zipfile.ZIP_DEFLATED)
    assert bomb.stat().st_size < 100_000
    refused(bomb, f"{PACK} is compressed")


def patched(path: Path, at: int, form: str, value: int) -> Path:
    data = bytearray(path.read_bytes())
    struct.pack_into(form, data, at, value)
    path.write_bytes(data)
    return path


def entry(path: Path, name: str) -> int:
    """Where a member's entry in the directory begins."""
    return path.read_bytes().rindex(name.encode()) - 46


def end(path: Path) -> int:
    return path.stat().st_size - 22


_FIRST = "v1/manifests/thing/1.json"

LIES: dict[str, tuple[Callable[[Path], Path], str]] = {
    "encrypted": (lambda p: patched(p, entry(p, _FIRST) + 8, "<H", 1), f"{_FIRST} is encrypted"),
    "encrypted strongly": (
        lambda p: patched(p, entry(p, _FIRST) + 8, "<H", 0x40),
        f"{_FIRST} is encrypted",
    ),
    "larger than it is": (lambda p: patched(p, entry(p, PACK) + 24, "<L", 99999), "bytes for"),
    "both sizes too large": (
        lambda p: patched(patched(p, entry(p, PACK) + 24, "<L", 99999), entry(p, PACK) + 20,
                          "<L", 99999),
        f"{PACK} and what comes after it overlap",
    ),
    "smaller than it is": (
        lambda p: patched(patched(p, entry(p, PACK) + 24, "<L", 9), entry(p, PACK) + 20, "<L", 9),
        f"{PACK} has another size",
    ),
    "on another's bytes": (lambda p: patched(p, entry(p, _FIRST) + 42, "<L", 0), "overlap"),
    "somewhere else": (lambda p: patched(p, entry(p, _FIRST) + 42, "<L", 500), "overlap"),
    "behind the end": (lambda p: patched(p, entry(p, _FIRST) + 42, "<L", 1 << 30), "overlap"),
    "called something else where it lies": (
        lambda p: patched(p, 30, "<B", ord("A")),
        "no artcache.json where",
    ),
    "its own header encrypted": (lambda p: patched(p, 6, "<H", 1), "artcache.json is encrypted"),
    "its own header compressed": (lambda p: patched(p, 8, "<H", 8), "or compressed"),
    "a size that is elsewhere": (
        lambda p: patched(p, entry(p, PACK) + 24, "<L", 0xFFFFFFFF),
        f"{PACK} says that its size is elsewhere",
    ),
    "in another part": (lambda p: patched(p, entry(p, PACK) + 34, "<H", 3), "another part"),
    "of several parts": (lambda p: patched(p, end(p) + 4, "<H", 1), "one part of several"),
    "more members than it has": (
        lambda p: patched(patched(p, end(p) + 8, "<H", 9), end(p) + 10, "<H", 9),
        "fewer members than it says",
    ),
    "fewer members than it has": (
        lambda p: patched(patched(p, end(p) + 8, "<H", 3), end(p) + 10, "<H", 3),
        "belong to no member",
    ),
    "a directory elsewhere": (lambda p: patched(p, end(p) + 16, "<L", 5), "not where it says"),
}  # fmt: skip


@pytest.mark.parametrize(("lie", "words"), LIES.values(), ids=LIES)
def test_a_lie_is_refused(archive: Path, lie: Callable[[Path], Path], words: str) -> None:
    refused(lie(archive), words)


def test_a_directory_of_millions_is_not_read(tmp_path: Path) -> None:
    """A sparse file whose end promises ten million members in 400 MB."""
    count, size = 10_000_000, 460_000_000
    path = tmp_path / "huge.artcache"
    with path.open("wb") as out:
        out.truncate(size)
        out.seek(size)
        out.write(struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, 0))
        out.write(struct.pack("<4sLQL", b"PK\6\7", 0, size, 1))
        out.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 65535, 65535, 0xFFFFFFFF, 0, 0))
    refused(path, "10000000 members")


def test_two_ends_that_contradict_each_other_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Programs differ in which of them they believe, and so in what they see."""
    monkeypatch.setattr(zipped, "_MOST16", 0)
    path = written(tmp_path / "a.artcache")
    ArchiveStore(path).check()
    refused(patched(path, end(path) + 10, "<H", 2), "contradict")


@pytest.mark.parametrize("more", [b"x", b"PK\5\6" + bytes(18), bytes(100)], ids=len)
def test_what_was_added_to_is_refused(archive: Path, more: bytes) -> None:
    with archive.open("ab") as file:
        file.write(more)
    refused(archive)


def test_what_was_put_before_it_is_refused(archive: Path) -> None:
    archive.write_bytes(b"#!/bin/sh\n" + archive.read_bytes())
    refused(archive, "not where it says")


def test_no_cut_file_is_an_archive(archive: Path) -> None:
    whole = archive.read_bytes()
    for length in [*range(0, len(whole), 997), *range(len(whole) - 600, len(whole), 7)]:
        archive.write_bytes(whole[:length])
        refused(archive)


def test_a_flipped_bit_in_an_object_is_found(archive: Path) -> None:
    at = archive.read_bytes().index(b'{"one": 1}')
    store = ArchiveStore(patched(archive, at, "<B", 0x7C))
    store.check()
    with pytest.raises(BadArchive, match=r"1\.json is damaged"):
        store.get(_FIRST, limit=100)


@given(data=some.data())
def test_whatever_changes_nothing_but_our_errors_comes_out(
    data: some.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = written(tmp_path_factory.mktemp("fuzz") / "a.artcache", {"a": b"1", "v1/b": b"22" * 9})
    body = bytearray(path.read_bytes())
    for _ in range(data.draw(some.integers(1, 4))):
        body[data.draw(some.integers(0, len(body) - 1))] = data.draw(some.integers(0, 255))
    path.write_bytes(body)
    store = ArchiveStore(path)
    with contextlib.suppress(ArtcacheError):
        store.check()
        for stored in [*store.list("v1")]:
            store.get(stored.name, limit=1 << 20)
