"""Stores of thousands: a fetch never notices, a listing keeps nothing, an explanation ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import artcache
from artcache import survey
from artcache.errors import CacheMiss, UsageError
from artcache.key import Key
from artcache.manifest import Manifest
from artcache.recipe import FunctionRecipe, Request
from artcache.store import Content, StoredObject
from tests.making import MemoryStore, packed, plant
from tests.test_cache import HOST, Told

FEW, MANY = 3, 3000


class Counting(MemoryStore):
    """Writes down what is asked of it."""

    def __init__(self, **traits: Any) -> None:
        super().__init__()
        self.traits = self.traits._replace(**traits)
        self.calls: list[str] = []
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def get(self, name: str, *, limit: int) -> bytes:
        with self._lock:
            self.calls.append(f"get {name}")
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
        if self.traits.parallel:
            time.sleep(0.001)
        with self._lock:
            self.at_once -= 1
        return super().get(name, limit=limit)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.calls.append(f"get_range {name} {offset} {length}")
        return super().get_range(name, offset, length)

    def size(self, name: str) -> int:
        self.calls.append(f"size {name}")
        return super().size(name)

    def create(self, name: str, content: Content) -> None:
        self.calls.append(f"create {name.rpartition('/')[0]}")
        super().create(name, content)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        self.calls.append(f"list {prefix}")
        return super().list(prefix)

    @property
    def read(self) -> int:
        return sum(call.startswith("get v1/manifests/") for call in self.calls)


def thing(commit: str) -> FunctionRecipe:
    @artcache.make_recipe("thing", fields={"commit": commit, "libc": "any", "platform": "any"})
    def build(context: artcache.BuildContext) -> None:
        (context.tree / "thing").write_text("a thing")

    return build


def filled(folder: Path, count: int, **traits: Any) -> Counting:
    """A store with so many artifacts of `thing`, one of them real."""
    store = Counting(**traits)
    like = packed(plant(folder / "tree", {"thing": b"a thing"}), folder / "pack")
    for number in range(1, count):
        key = Key({"recipe": "thing", "commit": f"{number}", "libc": "any", "platform": "any"})
        one = Manifest(key, like.files, packs=like.packs, frames=like.frames)
        store.objects[f"v1/manifests/thing/{key.hash}.json"] = one.to_bytes()
    cache(store, folder / "builder").build(thing("real"))
    store.calls.clear()
    return store


def cache(store: Counting, home: Path) -> artcache.Cache:
    return artcache.Cache([store], home=home, host=HOST, observer=Told())


@pytest.fixture
def few(tmp_path: Path) -> Counting:
    return filled(tmp_path / "few", FEW)


@pytest.fixture
def many(tmp_path: Path) -> Counting:
    return filled(tmp_path / "many", MANY)


@pytest.mark.parametrize(("commit", "origin"), [("real", "memory:"), ("new", "built")])
def test_a_fetch_makes_the_same_calls_whatever_else_the_store_holds(
    few: Counting, many: Counting, tmp_path: Path, commit: str, origin: str
) -> None:
    for store in (few, many):
        done = cache(store, tmp_path / f"home-{len(store.objects)}").fetch(thing(commit))
        assert done.origin == origin
    assert few.calls == many.calls
    assert not [call for call in many.calls if call in ("list v1/manifests/thing", "list v1")]


def test_a_miss_that_may_not_build_reads_a_bounded_part_to_explain(
    many: Counting, tmp_path: Path
) -> None:
    with pytest.raises(CacheMiss, match="commit"):
        cache(many, tmp_path / "home").fetch(thing("new"), build="never")
    assert many.read <= 510


def test_an_explanation_reads_at_most_500(
    many: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(survey, "_MOST_LISTED", 1000)
    given = 0
    listed = MemoryStore.list

    def counted(store: MemoryStore, prefix: str) -> Iterator[StoredObject]:
        nonlocal given
        for one in listed(store, prefix):
            given += 1
            yield one

    monkeypatch.setattr(MemoryStore, "list", counted)
    (told,) = survey.explain(cache(many, tmp_path / "home"), thing("new"), Request())
    assert told.near
    assert many.read <= 510
    assert given < 1100


@pytest.mark.parametrize("parallel", [0, 8])
def test_a_listing_gives_the_first_row_before_it_read_the_rest(
    tmp_path: Path, parallel: int
) -> None:
    store = filled(tmp_path, MANY // 10, parallel=parallel)
    rows = survey.rows(cache(store, tmp_path / "home"))
    next(rows)
    assert store.read <= 1 + 5 * parallel
    assert len(list(rows)) == MANY // 10 - 1
    assert store.most_at_once == (parallel or 1)


def test_the_rows_come_in_the_order_of_the_listing_however_they_are_read(tmp_path: Path) -> None:
    store = filled(tmp_path, 100, parallel=8)
    hashes = [row.key.hash for row in survey.rows(cache(store, tmp_path / "home"))]
    names = [name for name in store.objects if name.startswith("v1/manifests/")]
    assert hashes == [Path(name).stem for name in names]


def test_an_artifact_by_its_hash_is_the_only_manifest_that_is_read(
    many: Counting, tmp_path: Path
) -> None:
    recipe, user = thing("real"), cache(many, tmp_path / "home")
    key = user.variants(recipe)[0].key
    (row,) = survey.matching(user, key.hash[:10], Request())
    assert row.key == key
    assert survey.remove(user, row) == [f"memory:/v1/manifests/thing/{key.hash}.json"]
    assert many.read == 1
    with pytest.raises(UsageError, match="no artifact"):
        survey.matching(user, key.hash[:10], Request())
