"""A store's artifacts: pack first, manifest last, the first wins, what is bad is set aside."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artcache import late
from artcache import repository as room
from artcache.digest import blake3
from artcache.errors import (
    Corrupt,
    NewerFormat,
    OverLimit,
    StoreDenied,
    StoreUnavailable,
)
from artcache.key import Key, canonical_json
from artcache.manifest import Manifest
from artcache.partial import Partial
from artcache.repository import Found, Published, Repository, pack_name, siblings_folder
from artcache.store import Store, StoredObject
from tests.making import SMALL, DyingStore, MemoryStore, Tree, key, packed, picture, plant
from tests.store_contract import StoreContract

OTHER: Tree = {"bin/tool": b"another build of the same"}
FOLDER = f"v1/manifests/thing/{key().hash}"
PLAIN = f"{FOLDER}.json"


class TestMemoryStore(StoreContract):
    """The fake is a store like any other."""

    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore()


class Artifact:
    """A packed tree, ready to be published."""

    def __init__(self, folder: Path, tree: Tree = SMALL, named: Key | None = None) -> None:
        self.tree = plant(folder / "tree", tree)
        self.pack = folder / "pack"
        self.manifest = packed(self.tree, self.pack, named)

    @property
    def drive_name(self) -> str:
        return f"{FOLDER}/{blake3(self.manifest.to_bytes())}.json"

    def publish(self, store: Store) -> Published:
        return Repository(store).publish(self.manifest, lambda _: self.pack)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "one")


@pytest.fixture
def other(tmp_path: Path) -> Artifact:
    return Artifact(tmp_path / "two", OTHER)


@pytest.fixture(params=[True, False], ids=["exclusive", "drive"])
def store(request: pytest.FixtureRequest) -> MemoryStore:
    return MemoryStore(exclusive_create=request.param)


def partial(folder: Path, found: Found) -> Partial:
    return Partial(folder, len(found.manifest.frames))


def restored(store: Store, folder: Path) -> dict[str, object]:
    repository = Repository(store)
    found = repository.find(key())
    assert found and not repository.problems
    return picture(repository.restore(found, partial(folder, found)))


def manifests(store: MemoryStore) -> list[str]:
    return sorted(name for name in store.objects if name.startswith("v1/manifests/"))


# -- publishing ---------------------------------------------------------------------------


def test_what_is_published_is_found_and_restored(
    store: MemoryStore, artifact: Artifact, tmp_path: Path
) -> None:
    done = artifact.publish(store)
    assert (done.first, done.durable, done.url) == (True, True, store.url)
    assert restored(store, tmp_path / "back") == picture(artifact.tree)


def test_the_objects_have_the_names_of_the_specification(
    store: MemoryStore, artifact: Artifact
) -> None:
    artifact.publish(store)
    digest = blake3(artifact.pack.read_bytes())
    manifest = PLAIN if store.traits.exclusive_create else artifact.drive_name
    assert set(store.objects) == {
        "artcache.json",
        f"v1/packs/{digest[:2]}/{digest}.pack",
        manifest,
        f"{siblings_folder(key())}/{key().hash}.json",
    }
    assert store.objects[manifest] == artifact.manifest.to_bytes()


def test_the_root_says_what_it_is(store: MemoryStore, artifact: Artifact) -> None:
    artifact.publish(store)
    body = json.loads(store.objects["artcache.json"])
    assert (body["artcache"], body["reader"]) == (1, "0.1")
    assert body["created"].endswith("Z")


@pytest.mark.parametrize("exclusive", [True, False])
@pytest.mark.parametrize("lives", range(6))
def test_a_cut_session_never_leaves_a_manifest_without_its_pack(
    lives: int, exclusive: bool, artifact: Artifact, tmp_path: Path
) -> None:
    dying = DyingStore(lives, exclusive_create=exclusive)
    try:
        artifact.publish(dying)
        finished = True
    except StoreUnavailable:
        finished = False

    assert finished == (lives >= 3)
    assert len(manifests(dying)) == finished
    if finished:
        assert restored(dying, tmp_path / "back") == picture(artifact.tree)
    dying.lives = 100
    assert artifact.publish(dying).first is not finished
    assert restored(dying, tmp_path / "again") == picture(artifact.tree)


def test_the_first_manifest_wins_and_the_loser_is_shown_it(
    store: MemoryStore, artifact: Artifact, other: Artifact
) -> None:
    artifact.publish(store)
    before = dict(store.objects)
    lost = other.publish(store)
    assert (lost.first, lost.winner) == (False, artifact.manifest)
    assert before.items() <= store.objects.items()
    assert len(manifests(store)) == 1


def test_publishing_the_same_again_changes_nothing(store: MemoryStore, artifact: Artifact) -> None:
    artifact.publish(store)
    before = dict(store.objects)
    assert artifact.publish(store).first is False
    assert store.objects == before


def test_of_many_publishers_one_is_first(tmp_path: Path) -> None:
    store = MemoryStore()
    rivals = [Artifact(tmp_path / str(number), {"bin/tool": b"%d" % number}) for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(lambda rival: rival.publish(store), rivals))
    assert sum(one.first for one in done) == 1
    assert len({one.winner.to_bytes() for one in done}) == 1


@pytest.mark.parametrize("first_on_drive", [True, False])
def test_the_first_wins_whichever_form_its_name_has(
    artifact: Artifact, other: Artifact, first_on_drive: bool
) -> None:
    """One folder may be a plain disk to one machine and a Drive mount to another."""
    one = MemoryStore(exclusive_create=not first_on_drive)
    two = MemoryStore(exclusive_create=first_on_drive)
    two.objects = one.objects
    artifact.publish(one)

    lost = other.publish(two)

    assert (lost.first, lost.winner) == (False, artifact.manifest)
    for store in (one, two):
        assert Repository(store).find(key()).manifest == artifact.manifest  # type: ignore[union-attr]


def test_a_tree_without_a_byte_needs_no_pack(tmp_path: Path, store: MemoryStore) -> None:
    empty = Artifact(tmp_path / "empty", {"a": b"", "b": "a"})
    empty.publish(store)
    assert not [name for name in store.objects if name.endswith(".pack")]
    assert restored(store, tmp_path / "back") == picture(empty.tree)


# -- packs --------------------------------------------------------------------------------


def test_a_pack_that_is_there_is_not_written_again(
    tmp_path: Path, artifact: Artifact, store: MemoryStore
) -> None:
    artifact.publish(store)
    twin = Artifact(tmp_path / "twin", SMALL, key(commit="2"))
    name = pack_name(artifact.manifest.packs[0].blake3)
    before = store.objects[name]
    twin.publish(store)
    assert store.objects[name] is before
    assert len([name for name in store.objects if name.endswith(".pack")]) == 1


def test_half_a_pack_of_a_killed_writer_is_replaced(
    artifact: Artifact, store: MemoryStore, tmp_path: Path
) -> None:
    name = pack_name(artifact.manifest.packs[0].blake3)
    store.create(name, artifact.pack.read_bytes()[:20])
    assert artifact.publish(store).first
    assert store.aside[name] == artifact.pack.read_bytes()[:20]
    assert restored(store, tmp_path / "back") == picture(artifact.tree)


class Stubborn(MemoryStore):
    """Nothing can be moved away."""

    def quarantine(self, name: str) -> str:
        self.size(name)
        raise StoreDenied(f"{self.url} may not be changed")


def test_without_a_whole_pack_there_is_no_manifest(artifact: Artifact) -> None:
    store = Stubborn()
    store.create(pack_name(artifact.manifest.packs[0].blake3), b"half")
    with pytest.raises(StoreUnavailable, match="not whole"):
        artifact.publish(store)
    assert manifests(store) == []


# -- finding ------------------------------------------------------------------------------


def test_an_empty_store_is_a_miss(store: MemoryStore) -> None:
    assert Repository(store).find(key()) is None
    assert store.objects == {}


class Shuffled(MemoryStore):
    """Lists in an order of its own."""

    def list(self, prefix: str) -> Iterator[StoredObject]:
        found = list(super().list(prefix))
        random.shuffle(found)
        return iter(found)


def test_of_several_manifests_on_a_drive_all_readers_choose_the_same(tmp_path: Path) -> None:
    store = Shuffled(exclusive_create=False)
    rivals = [Artifact(tmp_path / str(n), {"bin/tool": b"%d" % n}) for n in range(5)]
    for rival in rivals:
        store.create(rival.drive_name, rival.manifest.to_bytes())
    chosen = {Repository(store).find(key()).name for _ in range(20)}  # type: ignore[union-attr]
    assert chosen == {min(rival.drive_name for rival in rivals)}


@pytest.mark.parametrize("double", ["{} (1).json", "{} (12).json", "{}.json (1)", "{}(1).json"])
def test_a_name_that_a_drive_doubled_is_read(
    artifact: Artifact, double: str, tmp_path: Path
) -> None:
    store = MemoryStore(exclusive_create=False)
    artifact.publish(store)
    data = store.objects.pop(artifact.drive_name)
    store.objects[double.format(artifact.drive_name.removesuffix(".json"))] = data
    assert restored(store, tmp_path / "back") == picture(artifact.tree)


@pytest.mark.parametrize(
    "name", ["desktop.ini", "notes.json", "{}", "{}.json.part", "deeper/{}.json", "{} copy.json"]
)
def test_what_else_lies_in_a_manifest_s_folder_is_left_alone(
    artifact: Artifact, store: MemoryStore, name: str
) -> None:
    stray = f"{FOLDER}/{name.format('0' * 64)}"
    store.create(stray, b"not ours")
    repository = Repository(store)
    assert repository.find(key()) is None
    assert list(repository.manifests()) == []
    assert artifact.publish(store).first
    assert (stray in store.objects, store.aside, repository.problems) == (True, {}, [])


def damaged(artifact: Artifact, how: str) -> bytes:
    data = artifact.manifest.to_bytes()
    if how == "empty":
        return b""
    if how == "cut":
        return data[:-1]
    if how == "another key":
        return Artifact(artifact.pack.parent / "x", SMALL, key(commit="2")).manifest.to_bytes()
    if how == "another recipe":
        return Manifest(Key({"recipe": "other"}), ()).to_bytes()
    if how == "no pack":
        body = json.loads(data)
        return canonical_json({**body, "packs": [], "frames": []})
    return data.replace(b'"commit":"1"', b'"commit":"2"')  # "edited": the hash does not fit


DAMAGES = ["empty", "cut", "edited", "another key", "another recipe", "no pack"]


@pytest.mark.parametrize("how", DAMAGES)
def test_a_bad_manifest_is_set_aside_with_the_reason_and_its_place_taken(
    artifact: Artifact, store: MemoryStore, how: str, tmp_path: Path
) -> None:
    data = damaged(artifact, how)
    name = PLAIN if store.traits.exclusive_create else f"{FOLDER}/{blake3(data)}.json"
    store.create(name, data)
    repository = Repository(store)

    assert repository.find(key()) is None

    (problem,) = repository.problems
    assert f"memory:: {name} is corrupt (" in problem
    assert "moved to aside/" in problem
    if how == "another key":
        assert "(its fields are not the key's (commit))" in problem
    assert store.aside == {name: data}
    assert artifact.publish(store).first
    assert restored(store, tmp_path / "back") == picture(artifact.tree)


def test_a_bad_manifest_is_replaced_by_a_publisher_who_never_looked(
    artifact: Artifact, store: MemoryStore, tmp_path: Path
) -> None:
    """For example what a writer that was killed left of exactly this manifest."""
    name = PLAIN if store.traits.exclusive_create else artifact.drive_name
    store.create(name, artifact.manifest.to_bytes()[:50])
    assert artifact.publish(store).first
    assert manifests(store) == [name]
    assert restored(store, tmp_path / "back") == picture(artifact.tree)


def test_a_manifest_that_is_not_what_its_name_says_is_set_aside(
    artifact: Artifact, other: Artifact
) -> None:
    store = MemoryStore(exclusive_create=False)
    names = sorted([artifact.drive_name, other.drive_name])
    store.create(names[0], b"")
    store.objects[names[0]] = artifact.manifest.to_bytes() + b" "
    by_name = {one.drive_name: one for one in (artifact, other)}
    store.create(names[1], by_name[names[1]].manifest.to_bytes())
    repository = Repository(store)
    found = repository.find(key())
    assert found and found.name == names[1]
    assert list(store.aside) == [names[0]]


def test_sound_bytes_under_another_digest_are_set_aside(artifact: Artifact) -> None:
    store = MemoryStore(exclusive_create=False)
    store.create(f"{FOLDER}/{'0' * 64}.json", artifact.manifest.to_bytes())
    repository = Repository(store)
    assert repository.find(key()) is None
    assert "not those of its name" in repository.problems[0]


def test_a_bad_manifest_that_cannot_be_moved_is_told_and_not_published_over(
    artifact: Artifact,
) -> None:
    store = Stubborn()
    store.create(PLAIN, b"bad")
    repository = Repository(store)
    assert repository.find(key()) is None
    assert "could not be moved away: memory: may not be changed" in repository.problems[0]
    with pytest.raises(StoreUnavailable, match="cannot be replaced"):
        artifact.publish(store)
    assert store.objects[PLAIN] == b"bad"


# -- newer formats ------------------------------------------------------------------------

NEWER = b'{"artcache":2,"reader":"0.9"}'


def place(store: MemoryStore, data: bytes) -> str:
    name = PLAIN if store.traits.exclusive_create else f"{FOLDER}/{blake3(data)}.json"
    store.create(name, data)
    return name


def test_a_newer_manifest_is_named_and_left_alone(artifact: Artifact, store: MemoryStore) -> None:
    name = place(store, NEWER)
    for use in (lambda: Repository(store).find(key()), lambda: artifact.publish(store)):
        with pytest.raises(NewerFormat, match=f"{name} is a manifest of format 2") as refused:
            use()
        assert "0.9" in refused.value.hint
    assert store.objects[name] == NEWER
    assert store.aside == {}


def test_beside_a_newer_manifest_one_that_can_be_read_is_taken(artifact: Artifact) -> None:
    store = MemoryStore(exclusive_create=False)
    for number in range(3):
        place(store, NEWER.replace(b"9", b"%d" % number))
    store.create(PLAIN, NEWER)
    store.create(artifact.drive_name, artifact.manifest.to_bytes())
    found = Repository(store).find(key())
    assert found and found.manifest == artifact.manifest


def test_a_manifest_over_the_limit_is_left_alone(
    store: MemoryStore, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = place(store, artifact.manifest.to_bytes())
    monkeypatch.setattr(room, "MAX_BYTES", 100)
    with pytest.raises(OverLimit):
        Repository(store).find(key())
    assert name in store.objects


# -- restoring ----------------------------------------------------------------------------


def restoring(store: Store, folder: Path, why: str = r"memory:: ") -> Repository:
    """Restore, which fails with Corrupt."""
    repository = Repository(store)
    found = repository.find(key())
    assert found
    with pytest.raises(Corrupt, match=why):
        repository.restore(found, partial(folder, found))
    return repository


@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_bad_pack_takes_its_manifest_out_of_the_way(
    artifact: Artifact,
    store: MemoryStore,
    tmp_path: Path,
    how: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(late, "_HOUR", 0.0)  # on a Drive a pack may be on its way for an hour
    artifact.publish(store)
    pack = pack_name(artifact.manifest.packs[0].blake3)
    data = bytearray(store.objects.pop(pack))
    if how != "gone":
        data[10] ^= how == "flip"
        store.objects[pack] = bytes(data[: None if how == "flip" else -5])

    repository = restoring(store, tmp_path / "into")

    assert len(repository.problems) == 2
    assert manifests(store) == []
    assert pack not in store.objects
    assert sorted(store.aside) == sorted(
        [PLAIN if store.traits.exclusive_create else artifact.drive_name] + [pack] * (how != "gone")
    )
    assert artifact.publish(store).first
    assert restored(store, tmp_path / "back") == picture(artifact.tree)


def test_a_drive_s_manifest_stays_while_its_pack_may_be_on_its_way(
    artifact: Artifact, tmp_path: Path
) -> None:
    store = MemoryStore(exclusive_create=False)
    artifact.publish(store)
    pack = pack_name(artifact.manifest.packs[0].blake3)
    data = store.objects.pop(pack)

    repository = restoring(store, tmp_path / "into", "still be under way")

    assert len(repository.problems) == 1
    assert len(manifests(store)) == 1
    store.objects[pack] = data
    assert restored(store, tmp_path / "back") == picture(artifact.tree)


class Flickering(MemoryStore):
    """The first range that is read comes back damaged, or the store dies there."""

    failure: Exception | None = None
    reads = 0

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        data = super().get_range(name, offset, length)
        self.reads += 1
        if self.failure:
            raise self.failure
        return data[:-1] + b"?" if self.reads == 1 else data


def test_an_accident_on_the_way_is_tried_again(artifact: Artifact, tmp_path: Path) -> None:
    store = Flickering()
    artifact.publish(store)
    assert restored(store, tmp_path / "back") == picture(artifact.tree)
    assert sorted(os.listdir(tmp_path / "back")) == ["frames", "tree"]


def test_a_store_that_dies_while_it_is_read_loses_nothing(
    artifact: Artifact, tmp_path: Path
) -> None:
    store = Flickering()
    artifact.publish(store)
    before = dict(store.objects)
    repository = Repository(store)
    found = repository.find(key())
    store.failure = StoreUnavailable("gone")
    assert found
    with pytest.raises(StoreUnavailable, match="gone"):
        repository.restore(found, partial(tmp_path / "into", found))
    assert (store.objects, repository.problems) == (before, [])


def test_a_manifest_that_lies_about_a_file_goes_and_the_pack_stays(
    artifact: Artifact, tmp_path: Path
) -> None:
    store = MemoryStore()
    files = tuple(file._replace(xxh3="0" * 32) for file in artifact.manifest.files)
    good = artifact.manifest
    artifact.manifest = Manifest(good.key, files, good.links, good.dirs, good.packs, good.frames)
    artifact.publish(store)
    repository = restoring(store, tmp_path / "into")
    assert list(store.aside) == [PLAIN]
    assert "unpacked to other bytes" in repository.problems[0]


def test_bad_packs_are_found_without_unpacking(artifact: Artifact, store: MemoryStore) -> None:
    artifact.publish(store)
    repository = Repository(store)
    assert repository.bad_packs(artifact.manifest) == {}
    (pack,) = artifact.manifest.packs
    store.objects[pack_name(pack.blake3)] = b"short"
    assert list(repository.bad_packs(artifact.manifest)) == [pack]


# -- listing, removing --------------------------------------------------------------------


def test_manifests_are_listed_by_name_in_both_forms(tmp_path: Path, store: MemoryStore) -> None:
    made = [
        Artifact(tmp_path / "a", SMALL),
        Artifact(tmp_path / "b", SMALL, key(commit="2")),
        Artifact(tmp_path / "c", SMALL, Key({"recipe": "other"})),
    ]
    for one in made:
        one.publish(store)
    for name in ("x.json", "thing/x.json", f"thing/{'0' * 32}", f"Thing/{'0' * 32}.json"):
        store.create(f"v1/manifests/{name}", b"no manifest")
    repository = Repository(store)

    listed = sorted(repository.manifests())

    assert [(one.recipe, one.hash) for one in listed] == sorted(
        (one.manifest.key.recipe, one.manifest.key.hash) for one in made
    )
    assert all(one.size == len(store.objects[one.name]) for one in listed)
    assert {one.recipe for one in repository.manifests("other")} == {"other"}
    assert {repository.read(one).key for one in listed} == {one.manifest.key for one in made}  # type: ignore[union-attr]


def test_a_listed_manifest_of_another_key_is_set_aside(
    artifact: Artifact, store: MemoryStore
) -> None:
    store.create(f"v1/manifests/thing/{'0' * 32}.json", artifact.manifest.to_bytes())
    repository = Repository(store)
    (listed,) = repository.manifests()
    assert repository.read(listed) is None
    assert "it is of thing" in repository.problems[0]
    assert list(repository.manifests()) == []


def test_a_listed_manifest_that_went_away_is_none(artifact: Artifact, store: MemoryStore) -> None:
    artifact.publish(store)
    repository = Repository(store)
    (listed,) = repository.manifests()
    store.delete(listed.name)
    assert repository.read(listed) is None
    assert repository.problems == []


def test_removing_takes_every_manifest_of_the_key_and_leaves_packs(
    artifact: Artifact, other: Artifact, tmp_path: Path
) -> None:
    store = MemoryStore()
    for name, one in ((PLAIN, artifact), (other.drive_name, other)):
        store.create(name, one.manifest.to_bytes())
    stays = Artifact(tmp_path / "stays", SMALL, key(commit="2"))
    stays.publish(store)

    removed = Repository(store).remove(key())

    assert sorted(removed) == sorted([PLAIN, other.drive_name])
    assert manifests(store) == [f"v1/manifests/thing/{stays.manifest.key.hash}.json"]
    assert any(name.endswith(".pack") for name in store.objects)
    assert Repository(store).remove(key()) == []


# -- siblings -----------------------------------------------------------------------------


def test_keys_that_differ_where_artifacts_may_are_siblings(
    tmp_path: Path, store: MemoryStore
) -> None:
    turing, ada, cpu = key(arch=["sm_75"]), key(arch=["sm_89"], libc="glibc2.36"), key(arch="none")
    stranger = key(arch=["sm_75"], commit="2")
    for number, named in enumerate((turing, ada, cpu, stranger)):
        Artifact(tmp_path / str(number), SMALL, named).publish(store)
    assert set(Repository(store).siblings(turing)) == {turing, ada, cpu}
    assert set(Repository(store).siblings(stranger)) == {stranger}
    assert set(Repository(store).siblings(Key({"recipe": "other"}))) == set()


def test_a_bad_hint_is_passed_over(artifact: Artifact, store: MemoryStore) -> None:
    artifact.publish(store)
    folder = siblings_folder(key())
    bad = [b"", b"[]", b"5", b'"x"', b"{}", b'{"recipe":5}', b"\xff", key(commit="2").canonical]
    for number, data in enumerate([*bad, b"[" * 5000, b" " * 70_000]):
        store.create(f"{folder}/{number}.json", data)
    assert list(Repository(store).siblings(key())) == [key()]


def test_a_store_that_dies_at_the_hints_says_so() -> None:
    class Dead(MemoryStore):
        def get(self, name: str, *, limit: int) -> bytes:
            raise StoreUnavailable("gone")

    store = Dead()
    store.create(f"{siblings_folder(key())}/x.json", b"{}")
    with pytest.raises(StoreUnavailable):
        list(Repository(store).siblings(key()))


def test_a_publish_without_a_hint_is_a_publish(artifact: Artifact) -> None:
    store = DyingStore(3)  # the root, the pack, the manifest
    assert artifact.publish(store).first
    assert Repository(store).find(key())
