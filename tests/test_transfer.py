"""An artifact from store to store: the same bytes, checked on the way, the first there wins."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest
from buckets import gcs_store, s3_store

from artcache.digest import blake3
from artcache.errors import Corrupt, StoreDenied, StoreUnavailable
from artcache.key import canonical_json
from artcache.manifest import Manifest
from artcache.partial import Partial
from artcache.repository import Published, Repository, pack_name
from artcache.store import Store, StoreTraits
from artcache.stores.posix import PosixStore
from artcache.transfer import copy
from tests.making import SMALL, DyingStore, MemoryStore, Tree, key, packed, picture, plant

BIG: Tree = {**SMALL, "share/data": os.urandom(9_000_000)}
PLAIN = f"v1/manifests/thing/{key().hash}.json"


class Move:
    """Two stores, an artifact in the first, and the copy between them."""

    def __init__(self, folder: Path, source: Store, target: Store, tree: Tree = BIG) -> None:
        self.folder, self.source, self.target = folder, source, target
        self.tree = plant(folder / "tree", tree)
        self.manifest = packed(self.tree, folder / "pack")
        self.pack = pack_name(self.manifest.packs[0].blake3)
        Repository(source).publish(self.manifest, lambda _: folder / "pack")
        self.seen = 0

    def copy(self) -> Published:
        source = Repository(self.source)
        found = source.find(key())
        assert found
        staging = self.folder / os.urandom(4).hex()
        staging.mkdir()
        return copy(found, source, Repository(self.target), staging, progress=self._progress)

    def _progress(self, count: int) -> None:
        self.seen += count

    def restored(self) -> dict[str, object]:
        repository = Repository(self.target)
        found = repository.find(key())
        assert found
        partial = Partial(self.folder / os.urandom(4).hex(), len(found.manifest.frames))
        return picture(repository.restore(found, partial))


@pytest.fixture
def move(tmp_path: Path) -> Move:
    return Move(tmp_path, MemoryStore(), MemoryStore())


def shows(store: Store) -> list[str]:
    return sorted(entry.name for entry in store.list("v1"))


# -- what arrives -------------------------------------------------------------------------


def test_the_copy_has_the_same_objects_byte_for_byte(move: Move) -> None:
    done = move.copy()

    assert (done.first, done.url) == (True, move.target.url)
    assert shows(move.target) == shows(move.source)
    for name in shows(move.source):
        assert move.target.get(name, limit=1 << 30) == move.source.get(name, limit=1 << 30)
    assert move.seen == move.manifest.packs[0].length
    assert move.restored() == picture(move.tree)


def test_a_manifest_that_another_writer_spelled_keeps_its_spelling(move: Move) -> None:
    assert isinstance(move.source, MemoryStore)
    body = json.loads(move.source.objects[PLAIN])
    body["needs"] = {"sass": []}
    data = canonical_json(body)
    assert Manifest.from_bytes(data).to_bytes() != data
    move.source.objects[PLAIN] = data

    move.copy()

    assert move.target.get(PLAIN, limit=1 << 20) == data


def test_a_copy_onto_a_drive_has_a_name_of_its_own_bytes(tmp_path: Path) -> None:
    move = Move(tmp_path, MemoryStore(), MemoryStore(exclusive_create=False))
    move.copy()
    name = f"{PLAIN.removesuffix('.json')}/{blake3(move.manifest.to_bytes())}.json"
    assert name in shows(move.target)
    assert move.restored() == picture(move.tree)


def test_an_artifact_without_a_byte_needs_no_pack(tmp_path: Path) -> None:
    source, target = MemoryStore(), MemoryStore()
    manifest = packed(plant(tmp_path / "tree", {"a": b""}), tmp_path / "pack")
    Repository(source).publish(manifest, lambda _: tmp_path / "pack")
    found = Repository(source).find(key())
    assert found
    assert copy(found, Repository(source), Repository(target), tmp_path).first
    assert [name for name in target.objects if name.endswith(".pack")] == []


STORES = {
    "folder": lambda folder, request: PosixStore(folder),
    "drive": lambda folder, request: PosixStore(folder, mount_like=True),
    "gcs": lambda folder, request: gcs_store(
        request.getfixturevalue("gcs_url"), request.getfixturevalue("monkeypatch")
    ),
    "s3": lambda folder, request: s3_store(
        request.getfixturevalue("s3_url"), request.getfixturevalue("monkeypatch")
    ),
}  # fmt: skip


@pytest.mark.parametrize(("one", "other"), list(product(STORES, STORES)))
def test_from_every_kind_of_store_to_every_other(
    one: str, other: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    make: dict[str, Callable[[Path, pytest.FixtureRequest], Store]] = STORES
    source, target = make[one](tmp_path / "a", request), make[other](tmp_path / "b", request)
    move = Move(tmp_path, source, target, SMALL)

    assert move.copy().first
    assert move.restored() == picture(move.tree)
    assert not move.copy().first


# -- what is there already ----------------------------------------------------------------


class NoPacks(MemoryStore):
    """A store whose packs nobody is to read."""

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        raise AssertionError(f"{name} was read")


def test_what_is_there_already_is_not_read_again(tmp_path: Path) -> None:
    move = Move(tmp_path, NoPacks(), MemoryStore())
    move.target.objects.update(move.source.objects)  # type: ignore[attr-defined]
    assert not move.copy().first


def test_the_first_with_other_content_stays_and_is_shown(move: Move, tmp_path: Path) -> None:
    first = packed(plant(tmp_path / "other", {"bin/tool": b"another"}), tmp_path / "p")
    Repository(move.target).publish(first, lambda _: tmp_path / "p")
    before = shows(move.target)

    done = move.copy()

    assert (done.first, done.winner) == (False, first)
    assert shows(move.target) == before


def test_a_pack_that_went_away_at_the_target_is_brought_again(move: Move) -> None:
    move.copy()
    move.target.delete(move.pack)

    assert not move.copy().first
    assert move.restored() == picture(move.tree)


# -- what must not arrive -----------------------------------------------------------------


def test_a_corrupt_frame_ends_with_nothing_at_the_target(move: Move) -> None:
    assert isinstance(move.source, MemoryStore)
    data = bytearray(move.source.objects[move.pack])
    data[5_000_000] ^= 1
    move.source.objects[move.pack] = bytes(data)

    with pytest.raises(Corrupt, match="not those that were published"):
        move.copy()

    assert shows(move.target) == []
    assert set(move.source.aside) == {move.pack, PLAIN}


def test_a_manifest_that_lies_about_its_frames_does_not_arrive(move: Move) -> None:
    assert isinstance(move.source, MemoryStore)
    body = json.loads(move.source.objects[PLAIN])
    body["frames"][1][4] = "0" * 64
    move.source.objects[PLAIN] = canonical_json(body)

    with pytest.raises(Corrupt, match="manifest says"):
        move.copy()
    assert shows(move.target) == []


def test_a_pack_that_is_gone_does_not_arrive(move: Move) -> None:
    move.source.delete(move.pack)
    with pytest.raises(Corrupt):
        move.copy()
    assert shows(move.target) == []


class Hiccup(MemoryStore):
    """One read in its life is wrong."""

    wrong = True

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = super().get_range(name, offset, length)
        if self.wrong:
            self.wrong = False
            return bytes(len(data))
        return data


def test_an_accident_on_the_way_is_not_noticed(tmp_path: Path) -> None:
    move = Move(tmp_path, Hiccup(), MemoryStore())
    assert move.copy().first
    assert move.restored() == picture(move.tree)


@pytest.mark.parametrize("lives", range(3))
def test_a_cut_session_leaves_no_manifest(tmp_path: Path, lives: int) -> None:
    dying = DyingStore(lives)
    move = Move(tmp_path, MemoryStore(), dying)

    with pytest.raises(StoreUnavailable):
        move.copy()

    assert not any(name.startswith("v1/manifests") for name in dying.objects)
    dying.lives = 100
    assert move.copy().first


class ReadOnly(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.traits = StoreTraits(True, True, writable=False)

    def create(self, name: str, content: object) -> None:
        raise StoreDenied(f"{self.url} is read-only")


def test_a_store_that_is_only_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreDenied):
        Move(tmp_path, MemoryStore(), ReadOnly()).copy()
