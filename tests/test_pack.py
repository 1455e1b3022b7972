"""Packing and unpacking: the same tree comes back, or `Corrupt` with what is wrong."""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard

from artcache import frames, lay, pack
from artcache.digest import blake3, xxh3
from artcache.disk import reserve
from artcache.errors import BuildFailed, Corrupt, StoreUnavailable
from artcache.manifest import File, Frame, Manifest, Pack
from artcache.opening import open_frame
from artcache.pack import unpack
from artcache.tree import scan
from tests.install_fixtures import tmpfs  # noqa: F401
from tests.making import SMALL, Tree, key, packed, picture, plant

RANDOM = random.Random(7)
FRAME = 1000


@pytest.fixture
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME", FRAME)


@pytest.fixture
def umask() -> Iterator[None]:
    """A test may set the umask."""
    before = os.umask(0o022)
    yield
    os.umask(before)


def reader(file: Path) -> pack.Fetch:
    data = file.read_bytes()
    return lambda _, offset, length: data[offset : offset + length]


def round_trip(tmp_path: Path, tree: Tree, **options: list[str]) -> Manifest:
    before = plant(tmp_path / "tree", tree, **options)  # type: ignore[arg-type]
    manifest = packed(before, tmp_path / "pack")
    manifest = Manifest.from_bytes(manifest.to_bytes())
    (tmp_path / "back").mkdir()
    unpack(manifest, reader(tmp_path / "pack"), tmp_path / "back")
    assert picture(tmp_path / "back") == picture(before)
    return manifest


# -- round trips --------------------------------------------------------------------------


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize(
    "tree",
    [
        SMALL,
        {"a": b""},
        {"a": b"", "b/c": None, "d": "a"},
        {"only/links": "../only"},
        {"a": b"x"},
        {f"n{i:03}": b"%d" % i for i in range(300)},
        {"big": RANDOM.randbytes(10 * FRAME)},
        {"small": b"s", "zbig": RANDOM.randbytes(3 * FRAME + 1), "zzz": b"t"},
        {"-rf": b"a", "a b/ü\n": b"c", "\U0001f600": b"d", "...": b"e", ".x": b"f"},
    ],
    ids=["mixed", "empty file", "nothing", "links", "1 byte", "many", "big", "between", "names"],
)
def test_a_tree_comes_back(tmp_path: Path, tree: Tree) -> None:
    round_trip(tmp_path, tree)


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("size", [FRAME - 1, FRAME, FRAME + 1, 2 * FRAME, 2 * FRAME + 1])
@pytest.mark.parametrize("kind", ["zeros", "random"])
def test_a_file_at_the_border_of_a_frame_comes_back(tmp_path: Path, size: int, kind: str) -> None:
    data = bytes(size) if kind == "zeros" else RANDOM.randbytes(size)
    manifest = round_trip(tmp_path, {"a": b"first", "b": data, "c": b"last"})
    assert all(frame.raw <= FRAME for frame in manifest.frames)


@pytest.mark.usefixtures("small_frames", "umask")
@pytest.mark.parametrize("size", [100, 5000], ids=["by one thread", "by several"])
@pytest.mark.parametrize("there", [False, True], ids=["new", "resumed"])
@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_each_file_s_time_is_the_one_it_has_on_disk(
    tmp_path: Path, size: int, there: bool, mask: int
) -> None:
    tree = plant(tmp_path / "tree", {"a": b"a" * size, "b": b"", "c/d": b"d", "e": b"e" * size})
    manifest = packed(tree, tmp_path / "pack")
    back = tmp_path / "back"
    os.umask(mask)
    (shutil.copytree(tree, back, copy_function=shutil.copyfile) if there else back.mkdir())
    marks = [there] * len(manifest.frames)
    stamps = unpack(manifest, reader(tmp_path / "pack"), back, there=marks)
    assert stamps == [(back / file.path).stat().st_mtime_ns for file in manifest.files]
    assert picture(back) == picture(tree)


def test_what_zstd_cannot_shrink_is_stored_as_it_is(tmp_path: Path) -> None:
    data = RANDOM.randbytes(5000)
    manifest = round_trip(tmp_path, {"noise": data, "tail": b"x" * 5_000_000})
    assert manifest.frames[0].stored == manifest.frames[0].raw == 5000
    assert (tmp_path / "pack").read_bytes().startswith(data)
    assert manifest.frames[1].stored < manifest.frames[1].raw


def test_executable_bits_come_back(tmp_path: Path) -> None:
    manifest = round_trip(tmp_path, {"run": b"1", "read": b"2"}, executable=["run"])
    assert [(file.path, file.mode) for file in manifest.files] == [("read", 0o644), ("run", 0o755)]


@pytest.mark.usefixtures("umask", "small_frames")
@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077, 0o177])
def test_no_umask_changes_a_file_s_mode(tmp_path: Path, mask: int) -> None:
    tree = plant(
        tmp_path / "tree", {"run": b"1" * 5000, "empty": b"", "read": b"2"}, executable=["run"]
    )
    manifest = packed(tree, tmp_path / "pack")
    (tmp_path / "back").mkdir()
    os.umask(mask)
    unpack(manifest, reader(tmp_path / "pack"), tmp_path / "back")
    assert picture(tmp_path / "back") == picture(tree)


def test_links_come_back_as_links_also_when_they_lead_nowhere(tmp_path: Path) -> None:
    round_trip(
        tmp_path, {"lib/a.so": "a.so.1", "lib/a.so.1": b"x", "up": "lib/../lib", "no": "where"}
    )


@pytest.mark.parametrize("piece", [lay.PIECE, 300_001])
def test_large_files_come_back_from_pieces_of_any_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int
) -> None:
    monkeypatch.setattr(lay, "PIECE", piece)
    block = RANDOM.randbytes(1 << 20)
    tree = {"a": b"odd", "even": block * 9, "odd": block * 5 + b"the rest", "z": block}
    round_trip(tmp_path, tree)


def test_a_tree_without_a_byte_has_no_frame(tmp_path: Path) -> None:
    manifest = round_trip(tmp_path, {"a": b"", "b": None})
    assert (manifest.frames, manifest.packs, (tmp_path / "pack").stat().st_size) == ((), (), 0)


def test_one_tree_makes_one_pack_on_any_number_of_cores(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "FRAME", FRAME)
    tree = plant(tmp_path / "tree", {f"f{i}": RANDOM.randbytes(i * 150) for i in range(20)})
    made = []
    for cores in (1, 6):
        monkeypatch.setattr(pack, "threads", lambda cores=cores: cores)
        made.append((packed(tree, tmp_path / "pack"), (tmp_path / "pack").read_bytes()))
    assert made[0] == made[1]


def test_progress_adds_up_to_the_tree(tmp_path: Path) -> None:
    tree = plant(tmp_path / "tree", {"a": bytes(9_000_000), "b": b"x"})
    counts: list[int] = []
    with (tmp_path / "pack").open("wb") as out:
        pack.write(tree, scan(tree), out, progress=counts.append)
    assert sum(counts) == 9_000_001
    manifest = packed(tree, tmp_path / "pack")
    counts.clear()
    unpack(
        manifest, reader(tmp_path / "pack"), plant(tmp_path / "back", {}), progress=counts.append
    )
    assert sum(counts) == 9_000_001


# -- what another writer may do -----------------------------------------------------------


def by_hand(
    files: dict[str, bytes], raws: list[int], packs: int = 1
) -> tuple[Manifest, pack.Fetch]:
    """An artifact whose frames are cut and spread as no writer of ours does it."""
    whole, stored = b"".join(files.values()), [bytearray() for _ in range(packs)]
    rows, at = [], 0
    for number, raw in enumerate(raws):
        data, target = whole[at : at + raw], stored[number % packs]
        target += b"gap"
        rows.append(Frame(number % packs, len(target), raw, raw, blake3(data)))
        target += data
        at += raw
    named = [Pack(blake3(data), len(data)) for data in stored]
    by_name = {row.blake3: data for row, data in zip(named, stored, strict=True)}
    entries = tuple(File(path, 0o644, len(data), xxh3(data)) for path, data in files.items())
    manifest = Manifest(key(), entries, packs=tuple(named), frames=tuple(rows))
    manifest.check()
    return manifest, lambda p, offset, length: bytes(by_name[p.blake3][offset : offset + length])


@pytest.mark.parametrize("packs", [1, 3])
@pytest.mark.parametrize(
    "raws", [[22], [1] * 22, [3, 19], [10, 2, 10], [21, 1]], ids=lambda raws: str(raws)[:20]
)
def test_frames_may_be_cut_anywhere_and_lie_in_several_packs(
    tmp_path: Path, raws: list[int], packs: int
) -> None:
    files = {"a": b"0123456789", "b": b"", "c": b"x", "d": b"abcdefghijk", "e": b""}
    manifest, fetch = by_hand(files, raws, packs)
    unpack(manifest, fetch, tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in files} == files


# -- what is not as it should be ----------------------------------------------------------


def unpacked(tmp_path: Path, manifest: Manifest, fetch: pack.Fetch) -> str:
    into = tmp_path / f"into{len(list(tmp_path.iterdir()))}"
    into.mkdir()
    with pytest.raises(Corrupt) as refused:
        unpack(manifest, fetch, into)
    return str(refused.value)


@pytest.mark.usefixtures("small_frames")
def test_any_changed_byte_of_a_pack_is_found_and_its_pack_named(tmp_path: Path) -> None:
    tree = plant(tmp_path / "tree", {"a": b"some text, " * 300, "b": RANDOM.randbytes(200)})
    manifest = packed(tree, tmp_path / "pack")
    good = (tmp_path / "pack").read_bytes()
    assert len(good) == manifest.packs[0].length < 600
    for at in range(len(good)):
        bad = bytearray(good)
        bad[at] ^= 1 << (at % 8)
        said = unpacked(tmp_path, manifest, lambda _, o, n, bad=bad: bytes(bad[o : o + n]))
        assert manifest.packs[0].blake3[:12] in said
        assert "bytes at" in said


@pytest.mark.parametrize("kept", [0, 1, -1])
def test_a_pack_that_is_cut_off_is_found(tmp_path: Path, kept: int) -> None:
    manifest = packed(plant(tmp_path / "tree", SMALL), tmp_path / "pack")
    short = (tmp_path / "pack").read_bytes()[:kept]
    assert "published" in unpacked(tmp_path, manifest, lambda _, o, n: short[o : o + n])


def test_more_bytes_than_asked_for_are_corrupt(tmp_path: Path) -> None:
    manifest = packed(plant(tmp_path / "tree", SMALL), tmp_path / "pack")
    data = (tmp_path / "pack").read_bytes()
    unpacked(tmp_path, manifest, lambda _, o, n: data[o : o + n] + b"x")


def lying(stored: bytes, raw: int) -> tuple[Pack, Frame]:
    return Pack(blake3(stored), len(stored)), Frame(0, 0, len(stored), raw, blake3(stored))


CONTENT = b"content " * 500
HUGE = 1 << 30


@pytest.mark.parametrize(
    ("stored", "why"),
    [
        (zstandard.compress(CONTENT + b"!"), "length"),
        (zstandard.compress(CONTENT[:-1]), "length"),
        (zstandard.ZstdCompressor(write_content_size=False).compress(CONTENT), "length"),
        (zstandard.compress(CONTENT) + zstandard.compress(b"more"), "frame at 0"),
        (zstandard.compress(CONTENT) + b"tail", "frame at 0"),
        (zstandard.compress(CONTENT)[:-3], "frame at 0"),
        (b"not zstd at all", "frame at 0"),
        (b"\x50\x2a\x4d\x18\x04\x00\x00\x00skip", "length"),
        (b"", "frame at 0"),
    ],
    ids=["longer", "shorter", "no size", "two", "tail", "cut", "rubbish", "skippable", "nothing"],
)
def test_a_frame_is_exactly_one_zstd_frame_of_its_raw_length(stored: bytes, why: str) -> None:
    """Though its BLAKE3 is right: a publisher may lie too."""
    named, frame = lying(stored, len(CONTENT))
    with pytest.raises(Corrupt, match=why):
        open_frame(named, frame, lambda p, o, n: stored, threading.local())


def test_a_frame_that_asks_for_too_much_memory_is_refused() -> None:
    params = zstandard.ZstdCompressionParameters(window_log=28, write_content_size=True)
    packer = zstandard.ZstdCompressor(compression_params=params).compressobj(size=HUGE)
    stored = packer.compress(b"x") + packer.flush(zstandard.COMPRESSOBJ_FLUSH_BLOCK)
    named, frame = lying(stored, HUGE)
    with pytest.raises(Corrupt):
        open_frame(named, frame, lambda p, o, n: stored, threading.local())


def test_a_frame_of_equal_lengths_is_verbatim_whatever_it_looks_like() -> None:
    stored = zstandard.compress(CONTENT)
    named, frame = lying(stored, len(stored))
    assert open_frame(named, frame, lambda p, o, n: stored, threading.local()) == stored


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("name", ["empty", "large", "small"])
def test_a_file_whose_digest_the_manifest_has_wrong_is_named(tmp_path: Path, name: str) -> None:
    tree = plant(tmp_path / "tree", {"empty": b"", "large": bytes(5 * FRAME), "small": b"s"})
    good = packed(tree, tmp_path / "pack")
    files = tuple(f._replace(xxh3="0" * 32) if f.path == name else f for f in good.files)
    bad = Manifest(good.key, files, packs=good.packs, frames=good.frames)
    assert unpacked(tmp_path, bad, reader(tmp_path / "pack")).startswith(f"{name}: ")


@pytest.mark.usefixtures("small_frames")
@pytest.mark.parametrize("broken", range(5))
def test_no_error_leaves_a_file_open(tmp_path: Path, broken: int) -> None:
    tree = plant(tmp_path / "tree", {"a": b"x" * 10, "large": RANDOM.randbytes(5 * FRAME)})
    manifest = packed(tree, tmp_path / "pack")
    good = reader(tmp_path / "pack")
    calls = iter(range(100))

    def fetch(named: Pack, offset: int, length: int) -> bytes:
        if next(calls) == broken:
            raise StoreUnavailable("the session was cut")
        return good(named, offset, length)

    before = set(os.listdir("/proc/self/fd"))
    (tmp_path / "into").mkdir()
    with pytest.raises(StoreUnavailable, match="cut"):
        unpack(manifest, fetch, tmp_path / "into")
    assert set(os.listdir("/proc/self/fd")) == before


def test_nothing_is_written_through_what_is_already_there(tmp_path: Path) -> None:
    manifest = packed(plant(tmp_path / "tree", {"a": b"new"}), tmp_path / "pack")
    (tmp_path / "precious").write_bytes(b"old")
    (tmp_path / "into").mkdir()
    (tmp_path / "into" / "a").symlink_to(tmp_path / "precious")
    with pytest.raises(FileExistsError):
        unpack(manifest, reader(tmp_path / "pack"), tmp_path / "into")
    assert (tmp_path / "precious").read_bytes() == b"old"


@pytest.mark.parametrize("now", [b"", b"shorter", b"longer than it was when it was found"])
def test_a_file_that_changes_while_it_is_packed_fails_the_build(tmp_path: Path, now: bytes) -> None:
    tree = plant(tmp_path / "tree", {"a": b"as it was found"})
    found = scan(tree)
    (tree / "a").write_bytes(now)
    with (tmp_path / "pack").open("wb") as out, pytest.raises(BuildFailed, match="a changed"):
        pack.write(tree, found, out)


def test_a_full_disk_is_known_before_a_large_file_is_read(
    tmp_path: Path,
    tmpfs: Callable[[str], Path],  # noqa: F811
) -> None:
    manifest = packed(plant(tmp_path / "tree", {"a": bytes(9_000_000)}), tmp_path / "pack")
    with pytest.raises(OSError) as refused:
        unpack(manifest, lambda p, o, n: pytest.fail("it was read"), tmpfs("6m"))
    assert refused.value.errno == errno.ENOSPC


def test_room_is_set_aside_without_making_a_file_longer(tmp_path: Path) -> None:
    with (tmp_path / "a").open("wb") as file:
        reserve(file.fileno(), 1_000_000)
        assert os.fstat(file.fileno()).st_size == 0


# -- memory -------------------------------------------------------------------------------

MEASURE = """
import os, resource, sys
from pathlib import Path
from artcache import pack
from artcache.manifest import Manifest
from tests.making import packed, plant
pack.threads = lambda: 4
root = Path(sys.argv[1])
small = plant(root / "small", {"a": b"x" * 100_000})
def there_and_back(tree, name):
    manifest = packed(tree, root / f"{name}.pack")
    file = (root / f"{name}.pack").open("rb")
    fetch = lambda p, offset, length: os.pread(file.fileno(), length, offset)
    pack.unpack(manifest, fetch, plant(root / f"{name}.back", {}))
there_and_back(small, "small")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
there_and_back(root / "large", "large")
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_a_large_tree_takes_little_memory(tmp_path: Path) -> None:
    """300 MB, half of it noise and half in one file, on as many threads as there ever are."""
    noise = RANDOM.randbytes(3_000_000)
    text = noise[:1_500_000].hex().encode()
    (tmp_path / "large").mkdir()
    with (tmp_path / "large" / "one").open("wb") as out:
        for number in range(50):
            out.write(text)
            (tmp_path / "large" / f"of many {number}").write_bytes(noise)
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)],
        cwd=root, capture_output=True, text=True, check=True,
    )  # fmt: skip
    shutil.rmtree(tmp_path)  # pytest would keep it for three runs
    assert int(done.stdout) <= 64 * 1024, f"{int(done.stdout) / 1024:.0f} MiB over the baseline"
