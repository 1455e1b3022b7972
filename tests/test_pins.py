"""Pins: in the place that they protect, never replaced, gone by themselves."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from artcache import pins
from artcache.home import Home
from artcache.store import Store
from artcache.stores.posix import PosixStore
from tests.making import MemoryStore, key

DAY = 86400.0


@pytest.fixture(params=["memory", "drive", "home"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "memory":
        return MemoryStore()
    if request.param == "home":
        return pins.place(Home(tmp_path / "home"))
    return PosixStore(tmp_path / "store", mount_like=True)


def test_a_place_without_pins_pins_nothing(store: Store) -> None:
    assert pins.pinned(store) == {}
    assert not pins.is_pinned(store, "thing", key().hash, 0)
    assert pins.unpin(store) == []


def test_a_pin_without_days_never_ends(store: Store) -> None:
    pins.pin(store, key())
    assert pins.pinned(store) == {("thing", key().hash): math.inf}
    assert pins.pinned(store, now=1e12)


def test_a_pin_ends_so_many_days_after_it_was_written(store: Store) -> None:
    pins.pin(store, key(), 7)
    (pin,) = pins.pins(store)
    (written,) = [found.modified for found in store.list(pins.FOLDER)]
    assert abs(pin.until - written - 7 * DAY) < 60
    assert pins.is_pinned(store, "thing", key().hash, written + 6 * DAY)
    assert not pins.is_pinned(store, "thing", key().hash, written + 8 * DAY)
    assert pins.pinned(store, now=written + 8 * DAY) == {}


def test_of_several_pins_the_longest_counts_and_all_go_at_once(store: Store) -> None:
    for days in (7, None, 30):
        pins.pin(store, key(), days)
    pins.pin(store, key(commit="2"), 1)

    assert pins.pinned(store)["thing", key().hash] == math.inf
    assert len(pins.unpin(store, key())) == 3
    assert list(pins.pinned(store)) == [("thing", key(commit="2").hash)]
    assert len(pins.unpin(store)) == 1
    assert pins.pinned(store) == {}


def test_a_pin_says_what_it_pins_and_who_made_it(store: Store) -> None:
    pins.pin(store, key())
    (pin,) = pins.pins(store)
    body = json.loads(store.get(pin.name, limit=10_000))
    assert body["fields"] == key().fields
    assert "@" in body["by"]


def test_what_is_no_pin_is_none(store: Store) -> None:
    for name in ("thing/x/1.0a.json", f"thing/{key().hash}/soon.0a.json", "a.json"):
        store.create(f"{pins.FOLDER}/{name}", b"{}")
    assert list(pins.pins(store)) == []
    store.create(f"{pins.FOLDER}/thing/{key().hash}/forever.0a (1).json", b"{}")
    assert len(pins.pinned(store)) == 1
