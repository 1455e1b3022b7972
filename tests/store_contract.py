"""What every store does, whatever it is made of: one suite that each adapter passes.

A test module subclasses `StoreContract` and gives the fixture `store`: a new,
empty, writable store, for each test its own.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artcache.errors import (
    ArtcacheError,
    Corrupt,
    ObjectExists,
    ObjectNotFound,
    OverLimit,
    UsageError,
)
from artcache.store import Filling, Littered, Store, StoreTraits, Streaming

NAME = "v1/manifests/thing/0a.json"
PACK = "v1/packs/0a/0a.pack"
UNSAFE = ("", "/etc/passwd", "a//b", "../x", "a/../b", "a/./b", ".hidden", "a/.tmp", "a/", "a\nb")


def names(store: Store, prefix: str) -> list[str]:
    return sorted(entry.name for entry in store.list(prefix))


class StoreContract:
    """The suite."""

    @pytest.fixture
    def store(self) -> Store:
        raise NotImplementedError("the subclass makes one")

    # -- reading what was stored ----------------------------------------------------------

    def test_stored_bytes_read_back(self, store: Store) -> None:
        store.create(NAME, b"content")
        assert store.get(NAME, limit=100) == b"content"

    def test_a_stored_file_reads_back(self, store: Store, tmp_path: Path) -> None:
        data = bytes(range(256)) * 20_000
        (tmp_path / "pack").write_bytes(data)
        store.create(PACK, tmp_path / "pack")
        assert store.get(PACK, limit=len(data)) == data

    def test_an_empty_object_is_an_object(self, store: Store) -> None:
        store.create(NAME, b"")
        assert (store.get(NAME, limit=0), store.size(NAME)) == (b"", 0)

    def test_the_size_is_in_bytes(self, store: Store) -> None:
        store.create(NAME, b"x" * 4321)
        assert store.size(NAME) == 4321

    def test_an_object_at_the_limit_is_read_and_one_over_it_is_not(self, store: Store) -> None:
        store.create(NAME, b"12345")
        assert store.get(NAME, limit=5) == b"12345"
        with pytest.raises(OverLimit, match="5 bytes"):
            store.get(NAME, limit=4)

    @pytest.mark.parametrize(("offset", "length"), [(0, 1), (0, 1000), (499, 2), (999, 1)])
    def test_a_range_is_exact(self, store: Store, offset: int, length: int) -> None:
        data = bytes(i % 251 for i in range(1000))
        store.create(PACK, data)
        assert store.get_range(PACK, offset, length) == data[offset : offset + length]
        if isinstance(store, Filling):
            out = bytearray(length)
            store.fill(PACK, offset, memoryview(out))
            assert out == data[offset : offset + length]
        if isinstance(store, Streaming):
            out, came = bytearray(length), [0]
            store.stream(PACK, offset, memoryview(out), came.append)
            assert out == data[offset : offset + length]
            assert came == sorted(came) and came[-1] == length

    @pytest.mark.parametrize(("offset", "length"), [(0, 11), (9, 2), (10, 1), (5000, 1)])
    def test_a_range_beyond_the_end_is_corrupt(
        self, store: Store, offset: int, length: int
    ) -> None:
        store.create(PACK, b"0123456789")
        with pytest.raises(Corrupt):
            store.get_range(PACK, offset, length)

    def test_many_threads_read_one_object(self, store: Store) -> None:
        data = bytes(i % 253 for i in range(200_000))
        store.create(PACK, data)
        with ThreadPoolExecutor(8) as pool:
            parts = pool.map(lambda at: store.get_range(PACK, at, 5000), range(0, 200_000, 5000))
            assert b"".join(parts) == data

    @pytest.mark.parametrize(
        "read",
        [
            lambda store: store.get(NAME, limit=10),
            lambda store: store.get_range(NAME, 0, 1),
            lambda store: store.size(NAME),
            lambda store: store.quarantine(NAME),
            lambda store: store.move(NAME, f"{NAME}.moved"),
        ],
        ids=["get", "get_range", "size", "quarantine", "move"],
    )
    def test_an_object_that_is_not_there_is_not_found(
        self, store: Store, read: Callable[[Store], object]
    ) -> None:
        with pytest.raises(ObjectNotFound, match=r"0a\.json"):
            read(store)
        store.create("v1/manifests/thing/other.json", b"x")
        with pytest.raises(ObjectNotFound):
            read(store)

    def test_a_folder_is_no_object(self, store: Store) -> None:
        store.create(NAME, b"x")
        with pytest.raises(ObjectNotFound):
            store.get("v1/manifests/thing", limit=10)
        with pytest.raises(ObjectNotFound):
            store.get_range("v1/manifests/thing", 0, 1)

    # -- creating -------------------------------------------------------------------------

    def test_create_never_replaces(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "other").write_bytes(b"third")
        store.create(NAME, b"first")
        for content in (b"second", tmp_path / "other"):
            with pytest.raises(ObjectExists, match=r"0a\.json"):
                store.create(NAME, content)
        assert store.get(NAME, limit=10) == b"first"

    def test_a_create_that_fails_leaves_nothing(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(ArtcacheError):
            store.create(PACK, tmp_path / "no such file")
        assert names(store, "v1") == []
        store.create(PACK, b"now it works")

    def test_of_many_creators_one_wins_and_its_object_is_whole(self, store: Store) -> None:
        start = threading.Barrier(8)

        def create(number: int) -> bool:
            start.wait()
            try:
                store.create(NAME, b"%d" % number * 50_000)
            except ObjectExists:
                return False
            return True

        with ThreadPoolExecutor(8) as pool:
            won = list(pool.map(create, range(8)))

        content = store.get(NAME, limit=50_000)
        if store.traits.exclusive_create:
            assert sum(won) == 1
        assert won[int(content[:1])]
        assert content == content[:1] * 50_000

    def test_reading_makes_nothing(self, store: Store) -> None:
        with contextlib.suppress(ObjectNotFound):
            store.get(NAME, limit=10)
        assert names(store, "v1/manifests") == []

    @pytest.mark.parametrize("name", UNSAFE, ids=repr)
    def test_a_name_that_no_store_can_hold_is_refused(self, store: Store, name: str) -> None:
        for use in (
            lambda: store.create(name, b"x"),
            lambda: store.get(name, limit=10),
            lambda: store.get_range(name, 0, 1),
            lambda: store.size(name),
            lambda: store.delete(name),
            lambda: store.quarantine(name),
            lambda: store.move(name, NAME),
            lambda: store.move(NAME, name),
            lambda: list(store.list(name)),
        ):
            with pytest.raises(UsageError):
                use()

    # -- listing --------------------------------------------------------------------------

    def test_a_listing_has_all_objects_below_with_size_and_time(self, store: Store) -> None:
        store.create("v1/manifests/a/1.json", b"1")
        store.create("v1/manifests/b/2.json", b"22")
        store.create("v1/manifests/b/2/3.json", b"333")
        store.create("v1/packs/0a/4.pack", b"4444")

        found = sorted(store.list("v1/manifests"))

        assert [(entry.name, entry.size) for entry in found] == [
            ("v1/manifests/a/1.json", 1),
            ("v1/manifests/b/2.json", 2),
            ("v1/manifests/b/2/3.json", 3),
        ]
        assert all(abs(entry.modified - time.time()) < 3600 for entry in found)

    def test_a_listing_is_of_a_folder_and_not_of_a_prefix_of_names(self, store: Store) -> None:
        store.create("v1/manifests/dark/1.json", b"1")
        store.create("v1/manifests/darknet/2.json", b"2")
        store.create("v1/manifests/dark.json", b"3")
        assert names(store, "v1/manifests/dark") == ["v1/manifests/dark/1.json"]

    def test_an_empty_store_lists_nothing(self, store: Store) -> None:
        assert names(store, "v1/manifests") == []

    def test_an_object_is_no_folder(self, store: Store) -> None:
        store.create(NAME, b"x")
        assert names(store, NAME) == []

    def test_a_doubled_name_of_a_drive_is_a_name(self, store: Store) -> None:
        store.create("v1/manifests/a/x (1).json", b"x")
        assert names(store, "v1/manifests/a") == ["v1/manifests/a/x (1).json"]
        assert store.get("v1/manifests/a/x (1).json", limit=1) == b"x"

    # -- removing -------------------------------------------------------------------------

    def test_a_deleted_object_is_gone_and_its_name_is_free(self, store: Store) -> None:
        store.create(NAME, b"first")
        store.delete(NAME)
        assert names(store, "v1") == []
        with pytest.raises(ObjectNotFound):
            store.get(NAME, limit=10)
        store.create(NAME, b"second")
        assert store.get(NAME, limit=10) == b"second"

    def test_deleting_what_is_not_there_is_no_error(self, store: Store) -> None:
        store.delete(NAME)
        store.create(NAME, b"x")
        store.delete(f"{NAME}/below")
        assert store.get(NAME, limit=1) == b"x"

    def test_a_moved_object_has_its_bytes_under_the_new_name_only(self, store: Store) -> None:
        store.create(PACK, b"content")
        store.move(PACK, "v1/trash/0a/1.pack")
        assert store.get("v1/trash/0a/1.pack", limit=10) == b"content"
        assert names(store, "v1") == ["v1/trash/0a/1.pack"]
        store.create(PACK, b"again")
        store.move(PACK, "v1/trash/0a/2.pack")
        assert len(names(store, "v1/trash/0a")) == 2

    def test_what_writers_left_is_no_object_and_can_be_discarded(self, store: Store) -> None:
        store.create(NAME, b"x")
        if not isinstance(store, Littered):
            return
        assert list(store.leftovers()) == []
        with pytest.raises(UsageError):
            store.discard(NAME)
        store.discard("v1/manifests/.tmp-nobody")

    def test_a_quarantined_object_is_out_of_the_way(self, store: Store) -> None:
        store.create(NAME, b"bad")
        store.quarantine(NAME)
        with pytest.raises(ObjectNotFound):
            store.get(NAME, limit=10)
        assert names(store, "v1/manifests") == []
        store.create(NAME, b"good")
        store.quarantine(NAME)
        store.create(NAME, b"better")
        assert store.get(NAME, limit=10) == b"better"

    # -- what it says of itself -----------------------------------------------------------

    def test_it_declares_its_traits_and_names_itself_in_errors(self, store: Store) -> None:
        assert isinstance(store.traits, StoreTraits)
        with pytest.raises(ObjectNotFound) as missed:
            store.get(NAME, limit=1)
        assert store.url and store.url in str(missed.value)
