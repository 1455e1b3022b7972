"""What goes from a store, and that no manifest ever loses its pack, whoever is at work or dies."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest

import artcache
from artcache import pins, share
from artcache.errors import (
    ArtcacheError,
    LocalDisk,
    UsageError,
)
from artcache.gc import Removal, Rules
from artcache.gc.ledger import Ledger
from artcache.gc.store import collect
from artcache.key import Key
from artcache.manifest import Manifest
from artcache.partial import Partial
from artcache.repository import Found, Repository, pack_name
from artcache.store import Content, Store, StoredObject
from artcache.stores.posix import PosixStore
from tests.buckets import gcs_store, s3_store
from tests.making import MemoryStore, Tree, key, packed, picture, plant
from tests.test_cache import Told
from tests.world import ROOT, python

HOUR, DAY = 3600.0, 86400.0
RULES = Rules(grace=DAY)
ALL = Rules(older_than=0, grace=DAY)
AT_ONCE = Rules(older_than=0, grace=0)


class Clocked(MemoryStore):
    """A store whose clock is set by hand; an object's time is when it was written or moved."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.clock = 1_000_000_000.0
        self.times: dict[str, float] = {}
        self.before: Callable[[str, str], None] = lambda verb, name: None
        """Called before each verb."""

    def get(self, name: str, *, limit: int) -> bytes:
        self.before("get", name)
        return super().get(name, limit=limit)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.before("get_range", name)
        return super().get_range(name, offset, length)

    def size(self, name: str) -> int:
        self.before("size", name)
        return super().size(name)

    def create(self, name: str, content: Content) -> None:
        self.before("create", name)
        super().create(name, content)
        self.times[name] = self.clock

    def move(self, name: str, to: str) -> None:
        self.before("move", name)
        super().move(name, to)
        self.times[to] = self.times.pop(name)

    def delete(self, name: str) -> None:
        self.before("delete", name)
        super().delete(name)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self.before("list", prefix)
        for found in list(super().list(prefix)):
            yield found._replace(modified=self.times[found.name])

    def kinds(self) -> set[str]:
        """The folders that hold something: `packs`, `manifests`, ..."""
        return {name.split("/")[1] for name in self.objects if "/" in name}


def tree_of(repository: Repository, found: Found, into: Path) -> Path:
    """Restore an artifact into a folder, which is made."""
    partial = Partial(into, len(found.manifest.frames))
    try:
        return repository.restore(found, partial)
    finally:
        partial.close()


class Artifact:
    """A packed tree; artifacts of one content share their pack."""

    def __init__(
        self, folder: Path, name: str, content: bytes, recipe: str = "thing", more: bytes = b""
    ) -> None:
        tree: Tree = {"bin/tool": content, **({"more": more} if more else {})}
        self.key = Key({"recipe": recipe, "commit": name})
        self.tree = plant(folder / name / "tree", tree)
        self.file = folder / name / "pack"
        self.manifest = packed(self.tree, self.file, self.key)
        self.pack = pack_name(self.manifest.packs[0].blake3)

    def publish(self, store: Store) -> None:
        Repository(store).publish(self.manifest, lambda _: self.file)

    def restored(self, store: Store, into: Path) -> bool:
        """Whether a fetch gets exactly what was published."""
        repository = Repository(store)
        found = repository.find(self.key)
        if not found:
            return False
        return picture(tree_of(repository, found, into)) == picture(self.tree)


class Copying(Clocked):
    """A bucket: what is moved is copied, and then deleted."""

    def move(self, name: str, to: str) -> None:
        self.before("copy", name)
        self.objects[to] = self._data(name)
        self.times[to] = self.clock
        self.delete(name)


class Yard:
    """A store with artifacts, and gc for it."""

    def __init__(self, folder: Path, store: Clocked) -> None:
        self.folder, self.store, self.told = folder, store, Told()
        self._count = 0

    def artifact(
        self, name: str, content: bytes | None = None, recipe: str = "thing", *, age: float = 0
    ) -> Artifact:
        """Published that many seconds ago; its content is its name's unless it is given."""
        self._count += 1
        place = self.folder / str(self._count)
        made = Artifact(place, name, content or name.encode() * 500, recipe)
        self.store.clock -= age
        made.publish(self.store)
        self.store.clock += age
        return made

    def gc(self, rules: Rules = RULES, *, dry_run: bool = False) -> list[Removal]:
        cache = artcache.Cache(
            [self.store], home=self.folder / "home", host=artcache.HostFacts(), observer=self.told
        )
        return list(collect(cache, cache.tiers[0], rules, dry_run=dry_run))

    def later(self, seconds: float) -> None:
        self.store.clock += seconds

    @property
    def present(self) -> set[str]:
        found = [one for one in self.store.objects if one.startswith("v1/manifests/")]
        manifests = [Manifest.from_bytes(self.store.objects[name]) for name in found]
        return {str(manifest.key.get("commit")) for manifest in manifests}

    def dangling(self) -> list[str]:
        """Manifests of which a pack is not in its place."""
        return [
            name
            for name, data in self.store.objects.items()
            if name.startswith("v1/manifests/")
            for pack in Manifest.from_bytes(data).packs
            if pack_name(pack.blake3) not in self.store.objects
        ]


@pytest.fixture(params=["folder", "drive", "bucket"])
def yard(request: pytest.FixtureRequest, tmp_path: Path) -> Yard:
    kind = Copying if request.param == "bucket" else Clocked
    return Yard(tmp_path, kind(exclusive_create=request.param != "drive"))


# -- what goes ----------------------------------------------------------------------------


def test_without_rules_every_artifact_stays(yard: Yard) -> None:
    yard.artifact("a", age=900 * DAY)
    assert yard.gc() == []
    assert yard.present == {"a"}


def test_the_oldest_go_by_the_clock_of_the_store(yard: Yard) -> None:
    """Which is thirty years off in these tests."""
    yard.artifact("old", age=40 * DAY)
    yard.artifact("new", age=10 * DAY)
    (removed,) = yard.gc(RULES._replace(older_than=30 * DAY))
    assert (removed.kind, removed.hash) == ("artifact", key(commit="old").hash)
    assert yard.present == {"new"}


def test_a_dry_run_says_what_would_go_and_writes_nothing(yard: Yard) -> None:
    yard.store.clock = time.time()  # it writes nothing, so it cannot ask the store for the time
    for name in "abc":
        yard.artifact(name, age=40 * DAY)
    yard.store.create("v1/packs/00/" + "0" * 64 + ".pack", b"lost")
    yard.store.times["v1/packs/00/" + "0" * 64 + ".pack"] -= 2 * DAY
    before = dict(yard.store.objects)

    would = yard.gc(RULES._replace(older_than=30 * DAY, keep_last=1), dry_run=True)

    assert yard.store.objects == before
    done = yard.gc(RULES._replace(older_than=30 * DAY, keep_last=1))
    assert [one.kind for one in would] == ["artifact", "artifact", "pack"]
    assert [one[:2] + one[3:] for one in would] == [one[:2] + one[3:] for one in done]


def test_the_newest_of_each_recipe_stay(yard: Yard) -> None:
    for number in range(4):
        yard.artifact(str(number), age=(10 - number) * DAY)
    yard.artifact("other", recipe="other", age=90 * DAY)
    yard.gc(ALL._replace(keep_last=2))
    assert yard.present == {"2", "3", "other"}


def test_what_shares_its_pack_frees_only_its_manifest(yard: Yard) -> None:
    one = yard.artifact("one", b"same" * 5000, age=3 * DAY)
    yard.artifact("two", b"same" * 5000, recipe="other", age=2 * DAY)
    (removed, *_) = yard.gc(RULES._replace(older_than=2.5 * DAY))
    assert removed.later == 0
    assert one.pack in yard.store.objects

    (removed, *_) = yard.gc(RULES._replace(older_than=1.5 * DAY))
    assert removed.later == one.manifest.packs[0].length
    assert one.pack not in yard.store.objects


def test_the_pack_of_a_removed_artifact_stays_while_a_newer_one_names_it_beside_its_own(
    yard: Yard,
) -> None:
    same = os.urandom(5 << 20)
    old = Artifact(yard.folder, "old", same)
    new = Artifact(yard.folder, "new", same, more=os.urandom(1000))
    for made in (old, new):
        share.publish(Repository(yard.store), made.manifest, made.file)
        yard.later(2 * DAY)
    found = Repository(yard.store).find(new.key)
    assert found and len(found.manifest.packs) == 2

    (removed,) = yard.gc(RULES._replace(older_than=3 * DAY))
    assert (removed.hash, removed.later) == (old.key.hash, 0)
    assert yard.dangling() == []
    assert new.restored(yard.store, yard.folder / "back")

    (removed,) = yard.gc(ALL)
    assert removed.later == sum(pack.length for pack in found.manifest.packs)


def test_a_limit_counts_a_shared_pack_once(yard: Yard) -> None:
    for name in "abc":
        yard.artifact(name, os.urandom(10_000) if name == "c" else b"s" * 100_000, age=DAY)
        yard.later(HOUR)
    manifests = sum(len(data) for name, data in yard.store.objects.items() if "/manifests/" in name)
    packs = sum(len(data) for name, data in yard.store.objects.items() if "/packs/" in name)
    assert yard.gc(RULES._replace(max_size=manifests + packs)) == []
    assert [one.kind for one in yard.gc(RULES._replace(max_size=11_000)) if one.recipe] == [
        "artifact"
    ] * 2
    assert yard.present == {"c"}


def test_what_is_pinned_stays_until_the_pin_ends(yard: Yard) -> None:
    kept = yard.artifact("kept", age=90 * DAY)
    yard.artifact("other", age=90 * DAY)
    pins.pin(yard.store, kept.key, 7)
    yard.gc(ALL)
    assert yard.present == {"kept"}

    yard.later(8 * DAY)
    kinds = {one.kind for one in yard.gc(ALL)}
    assert kinds >= {"artifact", "pin"}
    assert yard.present == set()


def test_a_pin_that_comes_while_gc_is_at_work_holds(yard: Yard) -> None:
    kept = yard.artifact("kept", age=90 * DAY)

    def pin_late(verb: str, name: str) -> None:
        if (verb, name) == ("list", f"v1/pins/thing/{kept.key.hash}"):
            yard.store.before = lambda verb, name: None
            pins.pin(yard.store, kept.key)

    yard.store.before = pin_late
    yard.gc(AT_ONCE)
    assert yard.present == {"kept"}
    assert kept.restored(yard.store, yard.folder / "back")


def test_a_store_without_listings_says_so(tmp_path: Path) -> None:
    cache = artcache.Cache(["https://127.0.0.1:1/x"], home=tmp_path, host=artcache.HostFacts())
    with pytest.raises(UsageError, match="cannot be listed"):
        list(collect(cache, cache.tiers[0], RULES, dry_run=True))


def test_a_full_disk_under_the_table_is_said(yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
    yard.artifact("a", age=9 * DAY)

    def full(*words: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(Ledger, "add_manifest", full)
    with pytest.raises(LocalDisk, match="disk is full"):
        yard.gc(AT_ONCE)
    assert yard.present == {"a"} and "gc" not in yard.store.kinds()


# -- packs --------------------------------------------------------------------------------


def test_a_pack_that_no_manifest_names_is_deleted_by_the_run_after_the_grace_period(
    yard: Yard,
) -> None:
    made = yard.artifact("a", age=10 * DAY)
    Repository(yard.store).remove(made.key)

    (moved,) = [one for one in yard.gc() if one.kind == "pack"]
    assert (moved.size, moved.later) == (0, made.manifest.packs[0].length)
    assert "trash" in yard.store.kinds()

    yard.later(0.9 * DAY)
    assert [one.kind for one in yard.gc()] == []
    yard.later(0.2 * DAY)
    (deleted,) = yard.gc()
    assert (deleted.kind, deleted.size) == ("trash", moved.later)
    assert yard.store.kinds() == set()


def test_a_pack_of_today_is_left_to_whoever_is_about_to_name_it(yard: Yard) -> None:
    made = yard.artifact("a", age=0.9 * DAY)
    Repository(yard.store).remove(made.key)
    assert [one.kind for one in yard.gc()] == []
    assert made.pack in yard.store.objects


def test_a_fetch_under_way_finds_the_pack_of_a_removed_artifact(yard: Yard) -> None:
    made = yard.artifact("a", age=10 * DAY)
    repository = Repository(yard.store)
    found = repository.find(made.key)
    assert found

    yard.gc(ALL)

    assert yard.present == set() and made.pack not in yard.store.objects
    assert picture(tree_of(repository, found, yard.folder / "back")) == picture(made.tree)
    assert repository.problems == []


def test_what_is_in_the_trash_and_named_again_is_brought_back(yard: Yard) -> None:
    """A run was killed after it moved the pack, and its publisher before it looked."""
    made = yard.artifact("a", age=10 * DAY)
    yard.store.move(made.pack, f"v1/trash/{made.manifest.packs[0].blake3}/1-{'0' * 16}.pack")
    assert made.restored(yard.store, yard.folder / "from-trash")

    yard.gc()

    assert yard.dangling() == []
    assert "trash" not in yard.store.kinds()


def test_while_a_manifest_cannot_be_read_no_pack_goes(yard: Yard) -> None:
    gone = yard.artifact("gone", age=10 * DAY)
    Repository(yard.store).remove(gone.key)
    newer = f"v1/manifests/thing/{key(commit='new').hash}.json"
    yard.store.create(newer, b'{"artcache":2,"reader":"9.0","packs":[]}')

    assert [one.kind for one in yard.gc()] == ["hint"]
    assert gone.pack in yard.store.objects
    assert "newer artcache" in yard.told.warnings[0]

    yard.store.delete(newer)
    assert [one.kind for one in yard.gc()] == ["pack"]


def test_a_corrupt_manifest_is_an_artifact_without_packs(yard: Yard) -> None:
    """What is pinned there comes back with the next fetch, so its pin stays."""
    name = f"v1/manifests/thing/{key(commit='bad').hash}.json"
    yard.store.create(name, b"half a mani")
    pins.pin(yard.store, key(commit="bad"))
    yard.later(9 * DAY)
    assert yard.gc(ALL) == []
    assert name in yard.store.objects
    assert "corrupt" in yard.told.warnings[0]
    pins.unpin(yard.store)
    assert [one.kind for one in yard.gc(ALL)] == ["artifact"]


def test_a_manifest_without_its_pack_is_told(yard: Yard) -> None:
    made = yard.artifact("a")
    yard.store.delete(made.pack)
    assert yard.gc() == []
    assert "1 packs are named and not there" in yard.told.warnings[0]


def test_removing_everything_at_once_leaves_an_empty_store_that_works(yard: Yard) -> None:
    made = [yard.artifact(name, age=2 * DAY) for name in "abc"]
    removed = yard.gc(AT_ONCE)
    assert sum(one.size for one in removed) > sum(one.manifest.packs[0].length for one in made)
    assert list(yard.store.objects) == ["artcache.json"]
    made[0].publish(yard.store)
    assert made[0].restored(yard.store, yard.folder / "back")


# -- litter -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "stays", "goes"),
    [
        ("v1/leases/thing/0a.json", "lease", 0.9, 1.1),
        ("v1/quarantine/v1.packs.x.1.2", "quarantine", 29, 31),
        ("v1/gc/00.json", "mark", 0.9, 1.1),
        ("v1/wanted/thing/0a.json", "wanted", 89, 91),
        (f"v1/siblings/thing/0a/{key().hash}.json", "hint", 0.9, 1.1),
        (f"v1/recent/thing/ff2a-{key().hash}.json", "hint", 0.9, 1.1),
        (f"v1/pins/thing/{key().hash}/forever.0a.json", "pin", 0.9, 1.1),
        (f"v1/pins/thing/{key().hash}/3.0a.json", "pin", 0.9, 3.1),
    ],
)
def test_litter_goes_when_it_is_old(
    yard: Yard, name: str, kind: str, stays: float, goes: float
) -> None:
    yard.store.create(name, b"{}")
    yard.later(stays * DAY)
    assert yard.gc() == []
    yard.later((goes - stays) * DAY)
    assert [(one.kind, one.name) for one in yard.gc()] == [(kind, name)]
    assert name not in yard.store.objects


def test_the_hints_of_an_artifact_that_is_there_stay_and_go_with_it(yard: Yard) -> None:
    made = yard.artifact("a", age=90 * DAY)
    yard.store.create(f"v1/recent/thing/ff2a-{made.key.hash}.json", made.key.canonical)
    yard.later(2 * DAY)
    assert yard.gc() == []
    assert yard.store.kinds() >= {"siblings", "recent"}
    assert [one.kind for one in yard.gc(ALL)] == ["artifact"]
    assert yard.store.kinds() == {"trash"}


def test_a_double_of_a_pack_that_is_there_goes(yard: Yard) -> None:
    made = yard.artifact("a", age=2 * DAY)
    double = made.pack.replace(".pack", " (1).pack")
    yard.store.create(double, b"the same")
    yard.later(2 * DAY)
    assert [(one.kind, one.name) for one in yard.gc()] == [("double", double)]


def test_what_a_killed_writer_left_in_a_folder_goes(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store", mount_like=False)
    Artifact(tmp_path, "a", b"x").publish(store)
    left = tmp_path / "store/v1/packs/.tmp-1-0a"
    left.write_bytes(b"half")
    cache = artcache.Cache([store], home=tmp_path / "home", host=artcache.HostFacts())

    def gc() -> list[Removal]:
        return list(
            collect(cache, cache.tiers[0], AT_ONCE._replace(older_than=None), dry_run=False)
        )

    assert gc() == []
    then = time.time() - 2 * HOUR
    os.utime(left, (then, then))
    assert [(one.kind, one.size) for one in gc()] == [("temporary", 4)]
    assert not left.exists()


def test_what_is_not_ours_is_left_alone(yard: Yard) -> None:
    for name in ("v1/packs/notes.txt", "v1/manifests/thing/README", "v2/x", "v1/trash/a/b"):
        yard.store.create(name, b"not ours")
    yard.later(900 * DAY)
    before = dict(yard.store.objects)
    yard.gc(AT_ONCE)
    assert yard.store.objects == before


# -- at the same time ---------------------------------------------------------------------


class Stopped(BaseException):
    """A process that dies."""


def at_call(number: int, act: Callable[[], object]) -> Callable[[str, str], None]:
    """A hook that acts once, before the store's call of that number."""
    count = 0

    def hook(verb: str, name: str) -> None:
        nonlocal count
        count += 1
        if count == number + 1:
            act()

    return hook


def calls(yard: Yard, work: Callable[[], object]) -> int:
    """How many calls the work makes; the store is as before afterwards."""
    objects, times, count = dict(yard.store.objects), dict(yard.store.times), 0

    def hook(verb: str, name: str) -> None:
        nonlocal count
        count += 1

    yard.store.before = hook
    work()
    yard.store.before = lambda verb, name: None
    yard.store.objects, yard.store.times = objects, times
    return count


def restart(yard: Yard, objects: dict[str, bytes], times: dict[str, float]) -> None:
    yard.store.objects, yard.store.times = dict(objects), dict(times)


def die() -> None:
    raise Stopped


@pytest.fixture
def orphan(yard: Yard) -> Artifact:
    """An old pack that no manifest names any more, about to be published again; beside it an
    artifact that stays."""
    yard.artifact("stays", age=40 * DAY)
    made = yard.artifact("again", age=50 * DAY)
    Repository(yard.store).remove(made.key)
    return made


@pytest.mark.parametrize("grace", [0.0, DAY])
def test_gc_at_every_moment_of_a_publish_takes_no_named_pack(
    yard: Yard, orphan: Artifact, grace: float
) -> None:
    rules = Rules(grace=grace)
    objects, times = dict(yard.store.objects), dict(yard.store.times)
    for number in range(calls(yard, lambda: orphan.publish(yard.store))):
        restart(yard, objects, times)

        def run() -> None:
            yard.store.before = lambda verb, name: None
            yard.gc(rules)

        yard.store.before = at_call(number, run)
        orphan.publish(yard.store)
        assert yard.dangling() == []
        assert yard.present == {"stays", "again"}


@pytest.mark.parametrize("rules", [Rules(grace=0.0), RULES, ALL, AT_ONCE], ids=str)
def test_a_publish_at_every_moment_of_gc_keeps_its_pack(
    yard: Yard, orphan: Artifact, rules: Rules
) -> None:
    objects, times = dict(yard.store.objects), dict(yard.store.times)
    for number in range(calls(yard, lambda: yard.gc(rules))):
        restart(yard, objects, times)

        def publish() -> None:
            yard.store.before = lambda verb, name: None
            orphan.publish(yard.store)

        yard.store.before = at_call(number, publish)
        yard.gc(rules)
        yard.store.before = lambda verb, name: None
        assert yard.dangling() == []


@pytest.mark.parametrize("rules", [ALL, AT_ONCE], ids=str)
def test_an_artifact_that_is_published_again_while_it_is_removed_keeps_its_pack(
    yard: Yard, rules: Rules
) -> None:
    made = yard.artifact("again", age=50 * DAY)
    objects, times = dict(yard.store.objects), dict(yard.store.times)
    for number in range(calls(yard, lambda: yard.gc(rules))):
        restart(yard, objects, times)

        def publish() -> None:
            yard.store.before = lambda verb, name: None
            made.publish(yard.store)

        yard.store.before = at_call(number, publish)
        yard.gc(rules)
        yard.store.before = lambda verb, name: None
        assert yard.dangling() == []


@pytest.mark.parametrize("rules", [RULES, AT_ONCE], ids=str)
def test_a_publish_and_another_gc_at_every_moment_of_gc(
    yard: Yard, orphan: Artifact, rules: Rules
) -> None:
    objects, times = dict(yard.store.objects), dict(yard.store.times)
    inner = calls(yard, lambda: orphan.publish(yard.store))
    for number in range(calls(yard, lambda: yard.gc(rules))):
        for at in range(inner):
            restart(yard, objects, times)

            def both(at: int = at) -> None:
                def other() -> None:
                    yard.store.before = lambda verb, name: None
                    yard.gc(rules)

                yard.store.before = at_call(at, other)
                orphan.publish(yard.store)
                yard.store.before = lambda verb, name: None

            yard.store.before = at_call(number, both)
            yard.gc(rules)
            yard.store.before = lambda verb, name: None
            assert yard.dangling() == [], (number, at)


@pytest.mark.parametrize("rules", [RULES, ALL], ids=str)
def test_gc_that_dies_at_any_moment_leaves_every_artifact_whole(
    yard: Yard, orphan: Artifact, rules: Rules
) -> None:
    """Also one that is published between its death and the next run."""
    objects, times = dict(yard.store.objects), dict(yard.store.times)
    for number in range(calls(yard, lambda: yard.gc(rules))):
        restart(yard, objects, times)
        yard.store.before = at_call(number, die)
        with contextlib.suppress(Stopped):
            yard.gc(rules)
        yard.store.before = lambda verb, name: None
        orphan.publish(yard.store)
        assert orphan.restored(yard.store, yard.folder / f"{rules.older_than}-{number}")
        yard.later(2 * DAY)
        yard.gc()
        yard.later(2 * DAY)
        yard.gc()
        assert yard.dangling() == []
        assert "gc" not in yard.store.kinds() and "trash" not in yard.store.kinds()


def test_when_publisher_and_gc_both_die_the_artifact_is_there_or_comes_back(
    tmp_path: Path,
) -> None:
    """The publisher saw the old pack, gc moved it, the manifest came, and nobody lived to look."""
    yard = Yard(tmp_path, Clocked())
    made = yard.artifact("again", age=50 * DAY)
    Repository(yard.store).remove(made.key)
    objects, times = dict(yard.store.objects), dict(yard.store.times)
    publishing = calls(yard, lambda: made.publish(yard.store))
    collecting = calls(yard, lambda: yard.gc(RULES))
    moments = product(range(publishing), range(collecting), range(publishing))
    for start, at, end in (one for one in moments if one[0] <= one[2]):
        restart(yard, objects, times)

        def half_a_gc(at: int = at, left: int = end - start) -> None:
            yard.store.before = at_call(at, die)
            with contextlib.suppress(Stopped):
                yard.gc(RULES)
            yard.store.before = at_call(left, die)

        yard.store.before = at_call(start, half_a_gc)
        with contextlib.suppress(Stopped):
            made.publish(yard.store)
        yard.store.before = lambda verb, name: None
        yard.later(2 * DAY)
        yard.gc(RULES)
        assert yard.dangling() == [], (start, at, end)


# -- real processes, a real folder --------------------------------------------------------


class Killing:
    """A store that kills its process before the call of some number."""

    def __init__(self, store: PosixStore, lives: int) -> None:
        self._store, self._lives = store, lives

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._store, name)
        if not callable(found):
            return found

        def called(*words: Any, **more: Any) -> Any:
            self._lives -= 1
            if self._lives < 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return found(*words, **more)

        return called


def apart(job: str, folder: Path) -> None:
    """Run a function of this file in a process of its own, which has no threads and may fork."""
    code = (
        "import sys; from pathlib import Path; from tests import test_gc_store\n"
        "getattr(test_gc_store, sys.argv[1])(Path(sys.argv[2]))"
    )
    process = python(code, job, folder, env={"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"})
    _, told = process.communicate(timeout=200)
    assert process.returncode == 0, told


def start(work: Callable[[], object]) -> int:
    """A new process that does this; it ends with 1 if that fails."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return child


def end_of(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def folder_gc(store: Any, home: Path, rules: Rules) -> list[Removal]:
    cache = artcache.Cache([store], home=home, host=artcache.HostFacts(), observer=Told())
    return list(collect(cache, cache.tiers[0], rules, dry_run=False))


def whole(store: PosixStore) -> bool:
    """Whether each manifest's packs are there, in their place or in the trash, byte for byte."""
    repository = Repository(store)
    return all(
        manifest and not repository.bad_packs(manifest)
        for manifest in map(repository.read, repository.manifests())
    )


def kill_at_each_call(folder: Path) -> None:
    for rules in (RULES, Rules(max_size=0, grace=DAY)):
        lives, ended = 0, -signal.SIGKILL
        while ended == -signal.SIGKILL:
            place = folder / f"{rules.max_size}-{lives}"
            ended = kill_once(place, lives, rules)
            lives += 1
        assert ended == 0
        assert lives > 10


def kill_once(folder: Path, lives: int, rules: Rules) -> int:
    """How gc ended that was allowed so many calls; whatever it was, all must be well."""
    store = PosixStore(folder / "store", mount_like=False)
    kept, gone = (Artifact(folder / "made", name, name.encode()) for name in "ab")
    for made in (kept, gone):
        made.publish(store)
    Repository(store).remove(gone.key)
    for path in (folder / "store").rglob("*.*"):
        os.utime(path, (1_000_000_000, 1_000_000_000))

    ended = end_of(start(lambda: folder_gc(Killing(store, lives), folder / "home", rules)))

    assert whole(store)
    gone.publish(store)
    folder_gc(store, folder / "home", RULES)
    assert whole(store)
    assert gone.restored(store, folder / "back")
    return ended


def test_gc_that_is_killed_at_each_call_of_the_store_loses_nothing(tmp_path: Path) -> None:
    apart("kill_at_each_call", tmp_path)


@pytest.mark.parametrize("kind", ["gcs", "s3"])
def test_a_bucket_is_collected_in_two_runs_and_readers_find_what_was_moved(
    kind: str, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = request.getfixturevalue(f"{kind}_url")
    store = {"gcs": gcs_store, "s3": s3_store}[kind](url, monkeypatch)
    moment = 0.01  # seconds of grace; a bucket's times are whole seconds
    made = [Artifact(tmp_path / "made", name, name.encode() * 9000) for name in "ab"]
    for one in made:
        one.publish(store)
    pins.pin(store, made[1].key)
    repository = Repository(store)
    found = repository.find(made[0].key)
    assert found

    time.sleep(1.2)
    first = folder_gc(store, tmp_path / "home", Rules(older_than=0, grace=moment))
    assert [(one.kind, one.hash) for one in first] == [("artifact", made[0].key.hash)]
    assert picture(tree_of(repository, found, tmp_path / "late")) == picture(made[0].tree)

    time.sleep(1.2)
    second = folder_gc(store, tmp_path / "home", Rules(grace=moment))
    assert [one.kind for one in second] == ["trash"]
    assert made[1].restored(store, tmp_path / "back")
    assert [found.name for found in store.list("v1/packs")] == [made[1].pack]
    assert list(store.list("v1/trash")) == list(store.list("v1/gc")) == []


def all_at_once(folder: Path) -> None:
    """Eight processes at work on four packs, and two of gc that spare nothing and wait for
    nobody."""
    store = PosixStore(folder / "store", mount_like=False)
    made = [Artifact(folder / "made", str(n), b"%d" % (n % 4) * 9000) for n in range(5)]
    until = time.monotonic() + 3

    def publish(number: int) -> bool:
        made[number].publish(store)
        return True

    def fetch(number: int) -> bool:
        with contextlib.suppress(ArtcacheError):  # removed meanwhile: a miss
            into = folder / f"back-{os.getpid()}-{time.monotonic_ns()}"
            return made[number].restored(store, into)
        return False

    def collecting(number: int) -> bool:
        return bool(folder_gc(store, folder / f"home-{number}", AT_ONCE))

    def keep_at(work: Callable[[int], bool], number: int) -> None:
        """Write down how often it did what it wanted."""
        done = 0
        while time.monotonic() < until:
            done += work(number)
        (folder / f"done-{work.__name__}-{number}").write_text(str(done))

    workers = [(publish, n) for n in range(5)] + [(fetch, n) for n in range(3)]
    workers += [(collecting, n) for n in range(2)]
    children = [start(partial(keep_at, work, number)) for work, number in workers]

    assert [end_of(child) for child in children] == [0] * len(workers)
    for work in (publish, fetch, collecting):
        counts = [int(path.read_text()) for path in folder.glob(f"done-{work.__name__}-*")]
        assert sum(counts) > 3, (work, counts)
    assert whole(store)
    for one in made:
        one.publish(store)
    folder_gc(store, folder / "home", RULES)
    assert whole(store)


def test_gc_against_publishers_and_fetchers_never_loses_a_pack(tmp_path: Path) -> None:
    apart("all_at_once", tmp_path)
