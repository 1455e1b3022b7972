"""Runs of frames, read ahead of who decodes them: what is asked of a store, and what is kept."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcache.ahead import Ahead, Ring
from artcache.errors import Corrupt, ObjectNotFound, StoreUnavailable
from artcache.frames import FRAME
from artcache.key import Key
from artcache.layout import TRASH, pack_name
from artcache.manifest import File, Frame, Manifest, Pack
from artcache.partial import Partial
from artcache.repository import Found, Repository
from artcache.store import StoreTraits
from tests.making import MemoryStore, packed, picture, plant

# -- the ring -----------------------------------------------------------------------------


@given(st.integers(1, 100), st.data())
def test_places_in_use_never_overlap_and_all_of_the_memory_comes_back(
    size: int, data: st.DataObject
) -> None:
    ring, used = Ring(size), dict[int, int]()
    for _ in range(data.draw(st.integers(1, 40))):
        if used and data.draw(st.booleans()):
            place = data.draw(st.sampled_from(sorted(used)))
            ring.give(place)
            del used[place]
            continue
        lengths = data.draw(st.lists(st.integers(1, size), min_size=1, max_size=4))
        place, count = ring.find(lengths)
        ring.take(place, lengths[:count])
        for length in lengths[:count]:
            assert place + length <= size
            assert all(place + length <= at or at + used[at] <= place for at in used)
            used[place] = length
            place += length
    for place in used:
        ring.give(place)
    assert ring.find([size]) == (0, 1)


def test_a_run_is_cut_at_the_end_of_the_memory_if_half_of_it_fits_there() -> None:
    ring = Ring(10)
    ring.take(0, [5])
    assert ring.find([2, 2, 2]) == (5, 2)
    assert ring.find([2, 4, 4]) == (0, 0)
    ring.give(0)
    assert ring.find([2, 4, 4]) == (0, 3)


# -- reading ------------------------------------------------------------------------------


class FarStore(MemoryStore):
    """A store behind a network, that streams; its answers can be made odd."""

    def __init__(self) -> None:
        super().__init__()
        self.traits = StoreTraits(True, durable_on_return=True, parallel=8)
        self.asked: list[tuple[str, int, int]] = []
        self.alter: Callable[[int], int] = lambda length: length
        """How many bytes of a run come before the link breaks."""
        self.silent = threading.Event()
        self.silent.set()
        self.aborted = threading.Event()

    def stream(
        self, name: str, offset: int, out: memoryview, came: Callable[[int], object]
    ) -> None:
        self.asked.append((name, offset, len(out)))
        data = self.get_range(name, offset, len(out))
        whole = self.alter(len(out))
        for at in range(0, whole, 100_000):
            end = min(at + 100_000, whole)
            out[at:end] = data[at:end]
            came(end)
        while not self.silent.wait(0.05):
            if self.aborted.is_set():
                raise StoreUnavailable("interrupted")
        if whole < len(out):
            raise StoreUnavailable("the link broke")

    def abort(self) -> None:
        self.aborted.set()


class Bench:
    """A tree in a far store: frames of 4 MiB and of half as much, and some of small files."""

    def __init__(self, folder: Path, store: MemoryStore | None = None) -> None:
        self.folder, self.store = folder, FarStore()
        tree = {"noise": os.urandom(2 * FRAME + 5), "large": os.urandom(6 * FRAME).hex().encode()}
        tree |= {f"small {number}": os.urandom(700_000) for number in range(9)}
        self.tree = plant(folder / "tree", tree)
        manifest = packed(self.tree, folder / "pack")
        Repository(self.store).publish(manifest, lambda pack: folder / "pack")
        self.store.asked.clear()
        found = Repository(self.store).find(manifest.key)
        assert found
        self.found: Found = found
        self.manifest = found.manifest

    def partial(self) -> Partial:
        return Partial(self.folder / "into", len(self.manifest.frames))

    def restore(self, **words: object) -> Path:
        partial = self.partial()
        try:
            return Repository(self.store).restore(self.found, partial, **words)  # type: ignore[arg-type]
        finally:
            partial.close()

    def restored(self) -> None:
        assert picture(self.restore()) == picture(self.tree)

    def bytes_asked(self) -> int:
        return sum(length for _, _, length in self.store.asked)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    yield Bench(tmp_path)
    assert not [one for one in threading.enumerate() if one.name == "artcache read"]


def test_neighbours_are_read_in_one_request_and_every_byte_once(bench: Bench) -> None:
    bench.restored()
    assert len(bench.store.asked) < len(bench.manifest.frames) - 4
    spans = sorted((at, at + length) for _, at, length in bench.store.asked)
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(spans))


def test_a_frame_is_used_before_its_run_has_ended(bench: Bench) -> None:
    """No run ends before four frames are in place."""
    bench.store.silent.clear()
    too_late = threading.Event()
    timer = threading.Timer(30, lambda: (too_late.set(), bench.store.silent.set()))
    timer.start()
    done: list[int] = []

    def progress(count: int) -> None:
        done.append(count)
        if len(done) == 4:
            bench.store.silent.set()

    bench.restore(progress=progress)
    timer.cancel()
    assert not too_late.is_set()


@pytest.mark.parametrize("whole", [0, 1000, 2_300_000, 3_000_000])
def test_no_frame_that_came_whole_is_read_again(bench: Bench, whole: int) -> None:
    good = itertools.count()
    came: list[int] = []

    def breaks(length: int) -> int:
        most = length if next(good) < 5 else min(whole, length)
        came.append(most)
        return most

    bench.store.alter = breaks
    with pytest.raises(StoreUnavailable, match="the link broke"):
        bench.restore()
    wholes = 0
    for (_, at, _), count in zip(bench.store.asked, came, strict=True):
        inside = {
            f for f in bench.manifest.frames if at <= f.offset and f.offset + f.stored <= at + count
        }
        wholes += sum(frame.stored for frame in inside)
    bench.store.alter, bench.store.asked = lambda length: length, []
    bench.restored()
    assert bench.bytes_asked() == sum(f.stored for f in set(bench.manifest.frames)) - wholes


def test_damage_is_found_in_its_frame_and_named(bench: Bench) -> None:
    (name,) = [name for name in bench.store.objects if name.endswith(".pack")]
    data = bytearray(bench.store.objects[name])
    frame = bench.manifest.frames[3]
    data[frame.offset + 7] ^= 1
    bench.store.objects[name] = bytes(data)
    with pytest.raises(Corrupt, match=f"the {frame.stored} bytes at {frame.offset}"):
        bench.restore()
    assert name in bench.store.aside


def test_a_pack_that_went_to_the_trash_is_read_from_there(bench: Bench) -> None:
    (pack,) = bench.manifest.packs
    bench.store.move(pack_name(pack.blake3), f"{TRASH}/{pack.blake3}/1")
    bench.restored()


def test_a_marked_frame_that_is_damaged_is_read_again_by_itself(bench: Bench) -> None:
    good = itertools.count()
    bench.store.alter = lambda length: length if next(good) < 6 else 0
    with pytest.raises(StoreUnavailable):
        bench.restore()
    large = bench.folder / "into" / "tree" / "large"
    with large.open("r+b") as file:
        file.truncate(5)
    bench.store.alter = lambda length: length
    bench.restored()


def test_an_abort_ends_who_reads_and_who_waits(bench: Bench) -> None:
    bench.store.silent.clear()
    bench.store.alter = lambda length: 0
    repository, partial = Repository(bench.store), bench.partial()
    threading.Timer(0.3, repository.abort).start()
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match="interrupted"):
        repository.restore(bench.found, partial)
    partial.close()
    assert time.monotonic() - start < 20


def test_ctrl_c_before_anybody_waits_ends_the_reads_too(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*words: object, **more: object) -> None:
        while not bench.store.asked:
            time.sleep(0.01)
        raise KeyboardInterrupt

    bench.store.silent.clear()
    monkeypatch.setattr("artcache.repository.unpack", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bench.restore()
    assert bench.store.aborted.is_set()


def test_a_store_that_only_reads_ranges_is_read_in_runs_too(tmp_path: Path) -> None:
    class Plain(MemoryStore):
        def get_range(self, name: str, offset: int, length: int) -> bytes:
            asked.append(length)
            return super().get_range(name, offset, length)

    asked: list[int] = []
    bench = Bench(tmp_path)
    store = Plain()
    store.objects, store.traits = bench.store.objects, bench.store.traits
    partial = bench.partial()
    assert picture(Repository(store).restore(bench.found, partial)) == picture(bench.tree)
    assert len(asked) < len(bench.manifest.frames)


def test_what_came_is_told_to_the_byte(bench: Bench) -> None:
    told: list[int] = []
    bench.restore(arrived=told.append)
    assert sum(told) == bench.bytes_asked()


# -- frames of any kind ------------------------------------------------------------------


def manifest_of(frames: Sequence[Frame], packs: Sequence[Pack]) -> Manifest:
    size = sum(frame.raw for frame in frames)
    files = (File("one", 0o644, size, "0" * 32),)
    return Manifest(Key({"recipe": "x"}), files, packs=tuple(packs), frames=tuple(frames))


@given(st.data())
def test_frames_in_any_order_and_of_any_length_come_with_their_own_bytes(
    data: st.DataObject,
) -> None:
    packs = [Pack(str(number) * 64, 1000) for number in range(2)]
    bodies = {pack: os.urandom(1000) for pack in packs}
    frames, at = [], 0
    for _ in range(data.draw(st.integers(1, 30))):
        length = data.draw(st.integers(1, 200))
        if data.draw(st.integers(0, 3)) == 0 or at + length > 1000:
            at = data.draw(st.integers(0, 1000 - length))
        frames.append(Frame(data.draw(st.integers(0, 1)), at, length, length, ""))
        at += length
    there = [data.draw(st.booleans()) for _ in frames]

    def read(pack: Pack, offset: int, out: memoryview, came: Callable[[int], object]) -> memoryview:
        out[:] = bodies[pack][offset : offset + len(out)]
        return out

    workers = deque(
        (packs[frame.pack], frame.offset, frame.stored)
        for frame, skip in zip(frames, there, strict=True)
        if not skip
    )
    found: list[bool] = []

    def work() -> None:
        while workers:
            with taking:
                if not workers:
                    return
                pack, offset, length = workers.popleft()
            got = bytes(ahead.fetch(pack, offset, length))
            found.append(got == bodies[pack][offset : offset + length])
            ahead.back()

    taking = threading.Lock()
    manifest = manifest_of(frames, packs)
    with Ahead(manifest, there, read, most=4, memory=300, abort=lambda: None) as ahead:
        threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    assert found == [True] * there.count(False)


def test_an_error_reaches_whoever_waits_for_what_will_not_come() -> None:
    pack = Pack("0" * 64, 100)
    frames = [Frame(0, at, 10, 10, "") for at in range(0, 100, 10)]

    def read(*words: object) -> bytes:
        raise ObjectNotFound("gone")

    manifest = manifest_of(frames, [pack])
    with Ahead(manifest, (), read, most=4, abort=lambda: None) as ahead:
        for frame in frames:
            with pytest.raises(ObjectNotFound):
                ahead.fetch(pack, frame.offset, 10)
        assert not ahead.left(0)
