"""What may go, by the rules alone; and what goes from the home."""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import artcache
from artcache import pins
from artcache.disk import reserve
from artcache.errors import UsageError
from artcache.gc import HOME_GRACE, Item, Removal, Rules, doomed, home
from artcache.home import Entry, Home
from artcache.key import Key
from tests.test_cache import Told
from tests.test_home import put
from tests.world import python

DAY = 86400.0
NOW = 100 * DAY
QUIET = Rules(grace=HOME_GRACE)


# -- the rules ----------------------------------------------------------------------------


class Shelf:
    """Items of 10 bytes; the oldest first, as the rules want them."""

    def __init__(self, *days_old: float, recipe: str = "thing", pinned: str = "") -> None:
        count = len(days_old)
        self.items = [
            Item(recipe, str(number), 10, NOW - days * DAY, count - number, str(number) in pinned)
            for number, days in enumerate(days_old)
        ]

    def goes(self, rules: Rules) -> str:
        left = len(self.items)

        def total() -> int:
            return left * 10

        gone = ""
        for item, why in doomed(self.items, rules, now=NOW, total=total):
            assert why
            gone += item.hash
            left -= 1
        return gone


@pytest.mark.parametrize(
    ("rules", "gone"),
    [
        (Rules(), ""),
        (Rules(older_than=30 * DAY), "01"),
        (Rules(older_than=0), "0123"),
        (Rules(max_size=40), ""),
        (Rules(max_size=39), "0"),
        (Rules(max_size=20), "01"),
        (Rules(max_size=0), "0123"),
        (Rules(max_size=30, older_than=30 * DAY), "01"),
        (Rules(older_than=0, keep_last=1), "012"),
        (Rules(max_size=0, keep_last=3), "0"),
        (Rules(keep_last=1), "012"),
        (Rules(keep_last=9), ""),
    ],
)
def test_the_oldest_go_first_and_only_as_far_as_asked(rules: Rules, gone: str) -> None:
    assert Shelf(90, 60, 10, 0).goes(rules) == gone


def test_what_is_pinned_stays_whatever_is_asked() -> None:
    shelf = Shelf(90, 60, 10, pinned="0")
    assert shelf.goes(Rules(older_than=0)) == "12"
    assert shelf.goes(Rules(max_size=0)) == "12"
    assert shelf.goes(Rules(keep_last=1)) == "1"


def test_what_was_made_in_our_future_is_new() -> None:
    assert Shelf(-5).goes(Rules(older_than=1)) == ""
    assert Shelf(-5).goes(Rules(older_than=0)) == "0"


def test_keeping_fewer_than_none_is_refused() -> None:
    with pytest.raises(UsageError, match="keep-last -1"):
        Rules(keep_last=-1).checked()


# -- the home -----------------------------------------------------------------------------


class Room:
    """A home with entries of chosen ages, and what commands leave there."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder)
        self.told = Told()
        self.cache = artcache.Cache([], home=folder, host=artcache.HostFacts(), observer=self.told)

    def entry(self, name: str, days: float, size: int = 1000, recipe: str = "thing") -> Entry:
        """Made and last used so many days ago."""
        entry = put(self.home, Key({"recipe": recipe, "commit": name}), {"file": b"x" * size})
        then = time.time() - days * DAY
        os.utime(entry.folder / "seal.json", (then, then))
        return entry

    def file(self, name: str, days: float, size: int = 100) -> Path:
        path = self.home.folder(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * size)
        then = time.time() - days * DAY
        for one in (path, path.parent):
            os.utime(one, (then, then))
        return path

    def collect(self, rules: Rules = QUIET, *, dry_run: bool = False) -> list[Removal]:
        return list(home.collect(self.cache, rules, dry_run=dry_run))

    @property
    def present(self) -> set[str]:
        found = self.home.entries()
        return {str(e.key.fields["commit"]) for e in found if isinstance(e, Entry)}


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path / "home")


def test_without_rules_every_artifact_stays(room: Room) -> None:
    room.entry("a", 500)
    assert room.collect() == []
    assert room.present == {"a"}


def test_the_least_recently_used_go_until_the_rest_fits(room: Room) -> None:
    for name, days in (("old", 9), ("older", 10), ("new", 1)):
        room.entry(name, days)
    removed = room.collect(QUIET._replace(max_size=1500))

    assert [(one.kind, one.size) for one in removed] == [("artifact", 1000)] * 2
    assert room.present == {"new"}


def test_a_use_makes_an_artifact_new_again(room: Room) -> None:
    used = room.entry("used", 40)
    room.entry("unused", 40)
    assert room.home.lookup(used.key)
    room.collect(QUIET._replace(older_than=30 * DAY))
    assert room.present == {"used"}


def test_the_newest_of_each_recipe_stay_by_when_they_were_made(room: Room) -> None:
    for name, days in (("1", 3), ("2", 2), ("3", 1)):
        room.entry(name, days)
    room.entry("4", 50, recipe="other")
    room.collect(QUIET._replace(older_than=0, keep_last=1))
    assert room.present == {"3", "4"}


def test_a_dry_run_says_the_same_and_removes_nothing(room: Room) -> None:
    room.entry("a", 9)
    room.file("logs/thing/1.log", 99)
    rules = QUIET._replace(older_than=0)

    would = room.collect(rules, dry_run=True)

    assert room.present == {"a"}
    assert room.home.folder("logs/thing/1.log").exists()
    assert room.collect(rules) == would


def test_a_pinned_artifact_stays_until_its_pin_ends(room: Room) -> None:
    entry = room.entry("a", 9)
    place = pins.place(room.home)
    pins.pin(place, entry.key, 7)
    assert room.collect(QUIET._replace(older_than=0, max_size=0)) == []

    (pin,) = pins.pins(place)
    ended = time.time() - 8 * DAY
    os.utime(room.home.root / pin.name, (ended, ended))

    kinds = {one.kind for one in room.collect(QUIET._replace(older_than=0))}
    assert kinds == {"artifact", "pin"}
    assert room.present == set()


def test_what_a_program_loads_is_as_recent_and_as_pinned_as_the_program(room: Room) -> None:
    supplier = room.entry("cudnn", 90, recipe="cudnn")
    program = room.entry("darknet", 1)
    room.entry("idle", 80)
    (program.folder / "supplied.json").write_text(json.dumps([f"{supplier.tree}/lib"]))

    room.collect(QUIET._replace(older_than=30 * DAY))
    assert room.present == {"cudnn", "darknet"}

    pins.pin(pins.place(room.home), program.key)
    room.collect(QUIET._replace(max_size=0))
    assert room.present == {"cudnn", "darknet"}


def test_an_artifact_that_is_being_made_or_restored_stays(room: Room) -> None:
    entry = room.entry("a", 9)
    with room.home.lock(entry.key, waiting=print):
        assert room.collect(QUIET._replace(older_than=0)) == []
    assert "is making thing" in room.told.notes[0]
    assert room.present == {"a"}


def test_a_broken_entry_is_told_and_left_to_the_next_fetch(room: Room) -> None:
    entry = room.entry("a", 9)
    (entry.folder / "seal.json").write_bytes(b"{}")
    assert room.collect(QUIET._replace(older_than=0)) == []
    assert "the next fetch replaces it" in room.told.warnings[0]

    pins.pin(pins.place(room.home), entry.key)
    assert room.collect() == []
    room.home.quarantine(entry.key)
    assert [one.kind for one in room.collect()] == ["pin"]


# -- what commands leave in the home ------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "stays", "goes"),
    [
        ("logs/thing/1.log", "log", 29, 31),
        ("downloads/wheels/a.whl", "download", 29, 31),
        ("downloads/b.orig.tar", "download", 29, 31),
        ("partial/thing.0a/frames", "partial", 6, 8),
        ("aliases/thing.0a.json", "memo", 0.9, 1.1),
        ("locks/thing.0a", "lock", 0.9, 1.1),
        ("tmp/0a/tree", "temporary", 0, 0.01),
    ],
)
def test_litter_goes_when_it_is_old(
    room: Room, name: str, kind: str, stays: float, goes: float
) -> None:
    path = room.file(name, stays)
    assert room.collect() == []
    assert path.exists()

    room.file(name, goes)
    (removed,) = room.collect()
    assert removed.kind == kind
    assert removed.size == 100 or (kind == "partial" and removed.size > 100)  # whole blocks
    assert not path.exists()


def test_the_room_that_was_set_aside_for_a_cut_restore_counts(room: Room) -> None:
    path = room.file("partial/thing.0a/tree/big", 2)
    with path.open("r+b") as file:
        reserve(file.fileno(), 8 << 20)
    if path.stat().st_blocks * 512 < 8 << 20:
        pytest.skip("no room can be set aside on this disk")
    os.utime(path, (time.time() - 2 * DAY,) * 2)

    (removed,) = room.collect(Rules(max_size=1 << 20, grace=0))
    assert (removed.kind, removed.size >= 8 << 20) == ("partial", True)


def test_a_broken_tree_is_kept_a_month_for_whoever_looks_for_it(room: Room) -> None:
    entry = room.entry("a", 9)
    aside = room.home.quarantine(entry.key)
    assert room.collect() == []
    month_ago = time.time_ns() - int(31 * DAY * 1e9)
    aside.rename(aside.with_name(f"thing.{entry.key.hash}.{month_ago:x}"))
    assert [one.kind for one in room.collect()] == ["quarantine"]


def test_downloads_go_before_artifacts_where_room_is_asked_for(room: Room) -> None:
    room.entry("a", 9)
    room.file("downloads/wheels/a.whl", 2, size=5000)
    room.file("downloads/wheels/b.whl", 1, size=5000)
    removed = room.collect(QUIET._replace(max_size=6000))
    assert [one.kind for one in removed] == ["download"]
    assert room.present == {"a"}


def test_a_download_of_this_hour_may_be_in_use(room: Room) -> None:
    path = room.file("downloads/wheels/a.whl", 0)
    assert room.collect(QUIET._replace(max_size=0, older_than=0)) == []
    assert path.exists()
    (removed,) = room.collect(Rules(max_size=0, grace=0))
    assert removed.kind == "download"


@pytest.fixture
def held(room: Room) -> Iterator[Path]:
    """A folder in tmp whose maker lives."""
    path = room.file("tmp/0a/tree", 9).parent
    handle = os.open(path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    yield path
    os.close(handle)


def test_what_its_maker_still_holds_stays(room: Room, held: Path) -> None:
    assert room.collect(Rules(max_size=0, older_than=0, grace=0)) == []
    assert held.exists()


WAITER = """
import sys
from pathlib import Path
from artcache.home import Home
from tests.making import key
with Home(Path(sys.argv[1])).lock(key(), waiting=lambda who: print("waits", flush=True)):
    print("holds", flush=True)
    sys.stdin.readline()
"""


def test_a_lock_that_was_removed_under_a_waiter_still_lets_only_one_in(room: Room) -> None:
    """Else the one who waited would hold a file that nobody else sees."""
    from tests.making import key

    lock = room.home.folder("locks") / f"thing.{key().hash}"
    with room.home.lock(key(), waiting=print):
        waiter = python(WAITER, room.home.root)
        assert waiter.stdin and waiter.stdout
        assert waiter.stdout.readline() == "waits\n"
        lock.unlink()
    assert waiter.stdout.readline() == "holds\n"
    with lock.open("rb") as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    waiter.communicate("\n", timeout=30)


def test_removing_everything_leaves_a_home_that_works(room: Room) -> None:
    room.entry("a", 1)
    room.file("downloads/wheels/a.whl", 1)
    room.collect(Rules(older_than=0, grace=0))
    files = [path for path in room.home.root.rglob("*") if path.is_file()]
    assert [path for path in files if path.parent.name != "locks"] == []
    room.entry("b", 0)
    assert room.present == {"b"}
