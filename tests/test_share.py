"""Only what earlier artifacts of a recipe don't hold is sent, and nothing gets less safe by it."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import zstandard

from artcache import frames, share
from artcache.key import Key
from artcache.manifest import Manifest
from artcache.partial import Partial
from artcache.repository import Published, Repository, pack_name
from artcache.store import Content, StoredObject
from artcache.stores.posix import PosixStore
from tests import stranger
from tests.making import MemoryStore, Tree, key, packed, picture, plant

FRAME = 1000
RANDOM = random.Random(11)
LARGE = RANDOM.randbytes(20 * FRAME)


@pytest.fixture(autouse=True)
def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME", FRAME)
    monkeypatch.setattr(share, "_LEAST", 1)


@pytest.fixture(params=[True, False], ids=["exclusive", "drive"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore(exclusive_create=request.param)


class Release:
    """One version of a tree under a key of its own."""

    def __init__(self, folder: Path, version: str, tree: Tree) -> None:
        self.key = key(commit=version)
        self.folder = folder / version
        self.tree = plant(self.folder / "tree", tree, executable=())
        self.pack = self.folder / "pack"
        self.manifest = packed(self.tree, self.pack, self.key)

    def publish(self, store: MemoryStore | PosixStore) -> Published:
        return share.publish(Repository(store), self.manifest, self.pack)

    def comes_back(self, store: MemoryStore | PosixStore) -> bool:
        repository = Repository(store)
        found = repository.find(self.key)
        assert found and not repository.problems
        into = self.folder / "back"
        back = repository.restore(found, Partial(into, len(found.manifest.frames)))
        return picture(back) == picture(self.tree)


@pytest.fixture
def one(tmp_path: Path) -> Release:
    return Release(tmp_path, "1", {"large": LARGE, "small": b"1"})


@pytest.fixture
def two(tmp_path: Path) -> Release:
    changed = LARGE[: 5 * FRAME] + b"!" + LARGE[5 * FRAME + 1 :] + b"and more"
    return Release(tmp_path, "2", {"large": changed, "new": b"2", "small": b"1"})


def sent(store: MemoryStore) -> dict[str, int]:
    return {name: len(data) for name, data in store.objects.items() if "/packs/" in name}


def test_a_new_release_sends_only_frames_that_the_one_before_has_not(
    store: MemoryStore, one: Release, two: Release
) -> None:
    one.publish(store)
    before = sent(store)
    done = two.publish(store)

    (new,) = sent(store).keys() - before.keys()
    assert sent(store)[new] == FRAME + len(b"and more21")
    assert set(done.winner.packs) > set(one.manifest.packs)
    assert one.comes_back(store)
    assert two.comes_back(store)
    assert not (two.folder / "pack.new").exists()


def test_a_reader_that_knows_the_document_alone_reads_it(
    tmp_path: Path, one: Release, two: Release
) -> None:
    store = PosixStore(tmp_path / "store")
    one.publish(store)
    assert len(two.publish(store).winner.packs) == 2
    stranger.restore(tmp_path / "store", dict(two.key.fields), tmp_path / "back")
    assert picture(tmp_path / "back") == picture(two.tree)


def test_the_same_tree_under_another_key_sends_no_pack(
    store: MemoryStore, one: Release, tmp_path: Path
) -> None:
    one.publish(store)
    before = sent(store)
    again = Release(tmp_path, "again", {"large": LARGE, "small": b"1"})
    assert again.publish(store).winner.packs == one.manifest.packs
    assert sent(store) == before
    assert again.comes_back(store)


def test_little_is_not_worth_another_pack_to_depend_on(
    store: MemoryStore, one: Release, tmp_path: Path
) -> None:
    one.publish(store)
    other = RANDOM.randbytes(20 * FRAME) + LARGE[:FRAME]
    release = Release(tmp_path, "2", {"large": other})
    assert release.publish(store).winner == release.manifest


def test_another_recipe_s_packs_are_left_alone(
    store: MemoryStore, one: Release, two: Release
) -> None:
    one.publish(store)
    two.manifest = packed(two.tree, two.pack, Key({"recipe": "another", "commit": "2"}))
    assert two.publish(store).winner == two.manifest


def test_an_artifact_depends_on_few_packs_however_many_releases_there_were(
    store: MemoryStore, tmp_path: Path
) -> None:
    content = bytearray(LARGE)
    for version in range(30):
        at = version * 7 % 20 * FRAME
        content[at : at + 8] = RANDOM.randbytes(8)
        release = Release(tmp_path, f"v{version}", {"large": bytes(content)})
        packs = release.publish(store).winner.packs
        assert len(packs) <= 9
    assert release.comes_back(store)
    assert sum(sent(store).values()) < 30 * len(LARGE) / 3


def test_without_room_for_a_second_pack_everything_is_sent(
    store: MemoryStore, one: Release, two: Release
) -> None:
    one.publish(store)
    (two.folder / "pack.new").mkdir()  # so that it cannot be written
    assert two.publish(store).winner == two.manifest


# -- nothing that is there is believed -----------------------------------------------------


def damaged(store: MemoryStore, one: Release, how: str) -> None:
    name = pack_name(one.manifest.packs[0].blake3)
    data = store.objects[name]
    if how == "gone":
        del store.objects[name]
    elif how == "cut":
        store.objects[name] = data[:-1]
    elif how == "changed":
        store.objects[name] = data[: 7 * FRAME] + b"?" + data[7 * FRAME + 1 :]


@pytest.mark.parametrize("how", ["gone", "cut", "changed"])
def test_a_damaged_earlier_pack_is_not_named(
    store: MemoryStore, one: Release, two: Release, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "_PROVED", 100)  # a far store proves some, a disk all
    one.publish(store)
    damaged(store, one, how)
    assert two.publish(store).winner == two.manifest
    assert two.comes_back(store)


def test_on_a_disk_every_frame_is_proved(tmp_path: Path, one: Release, two: Release) -> None:
    store = PosixStore(tmp_path / "store")
    one.publish(store)
    pack = tmp_path / "store" / pack_name(one.manifest.packs[0].blake3)
    data = bytearray(pack.read_bytes())
    data[13 * FRAME] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(data)
    assert two.publish(store).winner == two.manifest


def test_an_earlier_manifest_that_lies_about_places_is_found_out(
    store: MemoryStore, one: Release, two: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(share, "_PROVED", 100)
    shifted = tuple(f._replace(offset=max(0, f.offset - 1)) for f in one.manifest.frames)
    one.manifest = Manifest(one.key, one.manifest.files, packs=one.manifest.packs, frames=shifted)
    Repository(store).publish(one.manifest, lambda _: one.pack)
    share._remember(Repository(store), one.key)
    assert two.publish(store).winner == two.manifest


class Collecting(MemoryStore):
    """Removes a pack at the moment when a second manifest is created, as `gc` may."""

    victim = ""

    def create(self, name: str, content: Content) -> None:
        super().create(name, content)
        if self.victim and "/manifests/" in name:
            self.objects.pop(self.victim, None)


@pytest.mark.parametrize("exclusive", [True, False])
def test_a_pack_that_is_collected_meanwhile_is_sent_after_all(
    one: Release, two: Release, exclusive: bool
) -> None:
    store = Collecting(exclusive_create=exclusive)
    one.publish(store)
    store.victim = pack_name(one.manifest.packs[0].blake3)
    assert two.publish(store).winner == two.manifest
    assert two.comes_back(store)
    assert len([name for name in store.objects if "/manifests/" in name]) == 2


# -- hints --------------------------------------------------------------------------------


class Counting(MemoryStore):
    """Notes what is listed."""

    def list(self, prefix: str):  # type: ignore[no-untyped-def]
        self.listed = [*getattr(self, "listed", ()), prefix]
        return super().list(prefix)


def test_few_hints_stay_and_no_folder_of_manifests_is_listed(tmp_path: Path) -> None:
    store = Counting()
    for version in range(20):
        Release(tmp_path, f"v{version}", {"large": RANDOM.randbytes(2 * FRAME)}).publish(store)
    hints = list(MemoryStore.list(store, "v1/recent/thing"))
    assert len(hints) == 16
    assert all(isinstance(hint, StoredObject) for hint in hints)
    assert "v1/manifests/thing" not in store.listed


@pytest.mark.parametrize(
    "hint", [b"", b"[", b"{}", b'{"recipe":"other"}', json.dumps({"recipe": "thing"}).encode()]
)
def test_a_bad_hint_is_passed_over(
    store: MemoryStore, one: Release, two: Release, hint: bytes
) -> None:
    one.publish(store)
    store.create("v1/recent/thing/0000000000-bad.json", hint)
    assert len(two.publish(store).winner.packs) == 2


def test_without_hints_everything_is_sent(store: MemoryStore, one: Release, two: Release) -> None:
    Repository(store).publish(one.manifest, lambda _: one.pack)
    assert two.publish(store).winner == two.manifest


# -- within one tree, and how it is cut ------------------------------------------------------


def test_equal_frames_of_one_tree_are_stored_once(tmp_path: Path) -> None:
    release = Release(tmp_path, "1", {"a": LARGE, "copies/b": LARGE, "z": b"z"})
    assert release.manifest.packs[0].length == len(LARGE) + 1
    store = MemoryStore()
    release.publish(store)
    assert release.comes_back(store)


def test_a_file_that_looks_like_another_s_frame_is_not_taken_for_it(tmp_path: Path) -> None:
    """Their stored bytes are equal, and one of them is to be decompressed."""
    text = b"some text, " * 500
    alone = Release(tmp_path, "1", {"a": text})
    frame = alone.pack.read_bytes()[: alone.manifest.frames[0].stored]
    assert zstandard.decompress(frame) == text[:FRAME]
    release = Release(tmp_path, "2", {"a": text, "b": frame + LARGE})
    store = MemoryStore()
    release.publish(store)
    assert release.comes_back(store)


def test_a_small_file_that_comes_leaves_the_frames_of_most_others_as_they_are(
    tmp_path: Path,
) -> None:
    many = {f"cfg/{number:03}": RANDOM.randbytes(60) for number in range(300)}
    before = Release(tmp_path, "1", many).manifest
    after = Release(tmp_path, "2", {"a": b"new", **many, "cfg/150": b"grown" * 30}).manifest
    kept = {frame.blake3 for frame in before.frames} & {frame.blake3 for frame in after.frames}
    assert len(kept) >= len(before.frames) - 6
    assert len(before.frames) < 2.5 * sum(map(len, many.values())) / FRAME
