"""Tarballs from outside: what comes out, and all that is refused."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard
from darknet_fixtures import files, only_variant

from artcache.errors import BuildFailed, UsageError
from artcache.recipe import Request
from darknet_recipe import unpack as room
from darknet_recipe.unpack import unpack, without_top_folder

Member = tuple[tarfile.TarInfo, bytes]


def entry(name: str, data: bytes = b"", **fields: object) -> Member:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, data


def link(name: str, aim: str, kind: bytes = tarfile.SYMTYPE) -> Member:
    return entry(name, type=kind, linkname=aim)


def tar(*members: Member) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def unpacked(folder: Path, data: bytes) -> Path:
    (folder / "x.tar").write_bytes(data)
    unpack(folder / "x.tar", folder / "out")
    return folder / "out"


TREE = tar(
    entry("top", type=tarfile.DIRTYPE, mode=0o700),
    entry("top/run.sh", b"#!/bin/sh\n", mode=0o6755),
    entry("top/data", b"d" * 100_000, mode=0o600),
    link("top/alias", "data"),
    link("top/sub/up", "../data"),
    link("top/hard", "top/data", tarfile.LNKTYPE),
    entry("./top//./deep/empty", b""),
)


@pytest.mark.parametrize(
    "compress",
    [bytes, gzip.compress, bz2.compress, lzma.compress, zstandard.ZstdCompressor().compress],
    ids=["tar", "gz", "bz2", "xz", "zst"],
)
def test_what_comes_out(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    top = without_top_folder(unpacked(tmp_path, compress(TREE)))

    assert top == tmp_path / "out/top"
    assert files(top) == {
        "run.sh": b"#!/bin/sh\n",
        "data": b"d" * 100_000,
        "alias": b"d" * 100_000,
        "sub/up": b"d" * 100_000,
        "hard": b"d" * 100_000,
        "deep/empty": b"",
    }
    assert (top / "run.sh").stat().st_mode & 0o7777 == 0o755
    assert (top / "data").stat().st_mode & 0o7777 == 0o644
    assert (top / "alias").is_symlink()


def test_two_things_at_the_top_are_no_top_folder(tmp_path: Path) -> None:
    out = unpacked(tmp_path, tar(entry("a/x"), entry("b")))

    assert without_top_folder(out) == out


@pytest.mark.parametrize(
    ("members", "why"),
    [
        ([entry("/etc/evil")], "leads out"),
        ([entry("../evil")], "leads out"),
        ([entry("a/../../evil")], "leads out"),
        ([entry("a/../b")], "leads out"),
        ([link("a", "/etc/passwd")], "leads out"),
        ([link("a", "../../etc/passwd")], "leads out"),
        ([link("d/a", "../../x")], "leads out"),
        ([link("a", "../x", tarfile.LNKTYPE)], "leads out"),
        ([link("a", "/etc/passwd", tarfile.LNKTYPE)], "leads out"),
        ([link("a", "missing", tarfile.LNKTYPE)], "not there"),
        ([link("a", "b"), link("h", "a", tarfile.LNKTYPE)], "not there"),
        ([link("a", "."), entry("a/evil")], "goes through a link"),
        ([link("a", "b"), entry("a", b"again")], "goes through a link"),
        ([entry("a", b"x"), link("a", "b")], "twice"),
        ([entry("a/b", b"x"), entry("a", b"y")], "twice"),
        # Each link alone stays inside; one through the other does not.
        ([entry("x/y/z"), link("x/y/up", ".."), link("out", "x/y/up/../../..")], "leads out"),
        ([link("l/one", "../d"), entry("d/e/f"), link("l/two", "one/../..")], "leads out"),
        ([entry("null", type=tarfile.CHRTYPE)], "device"),
        ([entry("disk", type=tarfile.BLKTYPE)], "device"),
        ([entry("pipe", type=tarfile.FIFOTYPE)], "special"),
        ([entry(".", b"x")], "no folder"),
    ],
)
def test_unsafe_members_are_refused(tmp_path: Path, members: list[Member], why: str) -> None:
    with pytest.raises(BuildFailed, match=f"refused: .*{why}"):
        unpacked(tmp_path, tar(*members))
    outside = {path.name for path in tmp_path.iterdir()} - {"x.tar", "out"}
    assert not outside
    assert not Path("/etc/evil").exists()


def test_links_through_links_are_followed_for_real(tmp_path: Path) -> None:
    """By its words `b` stays inside (`a/..` is `.`), but `a` leads to `d/e`, whose `..` is `d`."""
    out = unpacked(tmp_path, tar(entry("d/e/f"), link("a", "d/e"), link("b", "a/../e/f")))

    assert (out / "b").resolve() == out / "d/e/f"
    (tmp_path / "2").mkdir()
    with pytest.raises(BuildFailed, match="'b' leads out"):
        unpacked(tmp_path / "2", tar(entry("f"), link("d/a", ".."), link("b", "d/a/../f")))


@pytest.mark.parametrize("keep", [0, 1, 511, 512, 600, 3000, len(TREE) - 10240])
@pytest.mark.parametrize("compress", [bytes, gzip.compress, lzma.compress, bz2.compress])
def test_cut_short(tmp_path: Path, compress: Callable[[bytes], bytes], keep: int) -> None:
    with pytest.raises(BuildFailed, match="damaged or cut short"):
        unpacked(tmp_path, compress(TREE[:keep]))


@pytest.mark.parametrize(
    "compress", [gzip.compress, lzma.compress, bz2.compress, zstandard.ZstdCompressor().compress]
)
def test_a_cut_compressed_stream(tmp_path: Path, compress: Callable[[bytes], bytes]) -> None:
    whole = compress(TREE)
    for number, keep in enumerate({6, 20, len(whole) // 2, len(whole) - 12}):
        (tmp_path / str(number)).mkdir()
        with pytest.raises(BuildFailed, match="damaged or cut short"):
            unpacked(tmp_path / str(number), whole[:keep])


def test_a_flipped_bit_is_found_by_the_checksum(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(TREE))
    data[-6] ^= 1
    with pytest.raises(BuildFailed, match="damaged"):
        unpacked(tmp_path, bytes(data))


def test_not_a_tar(tmp_path: Path) -> None:
    with pytest.raises(BuildFailed, match="damaged"):
        unpacked(tmp_path, b"PK\x03\x04" + bytes(4000))


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = gzip.compress(tar(entry("zeros", bytes(3_000_000))))
    monkeypatch.setattr(room, "MAX_BYTES", 1_000_000)
    with pytest.raises(BuildFailed, match="more than"):
        unpacked(tmp_path, bomb)
    assert (tmp_path / "out/zeros").stat().st_size <= 1_000_000
    monkeypatch.setattr(room, "MAX_ENTRIES", 3)
    (tmp_path / "2").mkdir()
    with pytest.raises(BuildFailed, match="more than 3 entries"):
        unpacked(tmp_path / "2", tar(*(entry(str(number)) for number in range(4))))


def test_the_disks_faults_are_not_the_archives(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("in the way")
    (tmp_path / "x.tar").write_bytes(TREE)
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "x.tar", tmp_path / "out")


# -- as a source ---------------------------------------------------------------------------


def test_a_tarball_is_named_by_its_digest(tmp_path: Path) -> None:
    one, two = tmp_path / "one.tar", tmp_path / "two.tgz"
    one.write_bytes(TREE)
    two.write_bytes(TREE)
    keys = {only_variant(Request(source=str(path))).key for path in (one, two)}

    (key,) = keys
    assert key.get("source") == "tarball"
    assert str(key.get("commit")).startswith("sha256-")


def test_files_that_are_no_tarballs(tmp_path: Path) -> None:
    path = tmp_path / "darknet.zip"
    path.write_bytes(b"PK\x03\x04")
    with pytest.raises(UsageError, match="no tar archive"):
        only_variant(Request(source=str(path)))
    path.write_bytes(TREE)
    with pytest.raises(UsageError, match="leave out --ref master"):
        only_variant(Request(source=str(path), ref="master"))
