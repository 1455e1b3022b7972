"""How files fall into frames, and work on frames in order."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcache import frames
from artcache.digest import xxh3
from artcache.frames import Digests, Segment, cut, in_order, segments, threads

SIZES = st.lists(st.integers(0, 350) | st.sampled_from([0, 99, 100, 101, 200]), max_size=12)


def cut_small(sizes: list[int]) -> list[int]:
    with mock.patch.object(frames, "FRAME", 100):
        return list(cut(sizes))


@pytest.mark.parametrize(
    ("sizes", "raws"),
    [
        ([], []),
        ([0, 0], []),
        ([1], [1]),
        ([100], [100]),
        ([101], [100, 1]),
        ([200], [100, 100]),
        ([60, 40], [100]),
        ([60, 41], [60, 41]),
        ([60, 0, 40, 0], [100]),
        ([1, 101, 1], [1, 100, 1, 1]),
        ([1, 100, 1], [1, 100, 1]),
        ([30, 30, 30, 30], [90, 30]),
    ],
)
def test_small_files_share_a_frame_and_large_ones_have_their_own(
    sizes: list[int], raws: list[int]
) -> None:
    assert cut_small(sizes) == raws


@given(SIZES)
def test_frames_cover_the_files_and_none_is_empty_or_too_large(sizes: list[int]) -> None:
    raws = cut_small(sizes)
    assert sum(raws) == sum(sizes)
    assert all(0 < raw <= 100 for raw in raws)


@given(SIZES)
def test_a_file_lies_in_one_frame_unless_it_is_larger_than_one(sizes: list[int]) -> None:
    borders = {0, *accumulate(cut_small(sizes))}
    for end, size in zip(accumulate(sizes), sizes, strict=True):
        inside = [border for border in borders if end - size < border < end]
        assert bool(inside) == (size > 100)
        if size > 100:
            assert {end - size, end} <= borders


@given(SIZES, st.data())
def test_segments_cover_every_byte_once_however_the_frames_are_cut(
    sizes: list[int], data: st.DataObject
) -> None:
    left, raws = sum(sizes), []
    while left:
        raws.append(data.draw(st.integers(1, left)))
        left -= raws[-1]
    content = [bytes([number]) * size for number, size in enumerate(sizes)]
    whole = b"".join(content)

    rows = list(segments(sizes, raws))

    assert len(rows) == len(raws)
    seen: list[bytes] = [b""] * len(sizes)
    for row, end, raw in zip(rows, accumulate(raws), raws, strict=True):
        frame, covered = whole[end - raw : end], 0
        for segment in row:
            assert segment.at == covered and segment.length > 0
            assert segment.start == len(seen[segment.file])
            seen[segment.file] += frame[segment.at : segment.at + segment.length]
            covered += segment.length
        assert covered == raw
    assert seen == content


def test_a_file_in_pieces_has_the_digest_of_the_whole() -> None:
    digests = Digests([5, 0, 3])
    one, two = Segment(0, 0, 2, 0), Segment(0, 2, 3, 0)
    whole = Segment(2, 0, 3, 3)

    assert [digests.is_whole(s) for s in (one, two, whole)] == [False, False, True]
    assert digests.piece(one, memoryview(b"ab")) == ""
    assert digests.whole(whole, memoryview(b"xyz")) == xxh3(b"xyz")
    assert digests.piece(two, memoryview(b"cde")) == xxh3(b"abcde")
    assert digests.found == [xxh3(b"abcde"), xxh3(b""), xxh3(b"xyz")]


@given(st.lists(st.integers(), max_size=30), st.integers(1, 5))
def test_results_come_in_the_order_of_the_items(items: list[int], window: int) -> None:
    with ThreadPoolExecutor(3) as pool:
        assert list(in_order(pool, lambda item: item + 1, items, window)) == [i + 1 for i in items]


def test_no_more_than_the_window_is_under_way() -> None:
    taken = 0

    def items():  # type: ignore[no-untyped-def]
        nonlocal taken
        for item in range(100):
            taken += 1
            yield item

    with ThreadPoolExecutor(2) as pool:
        for done, item in enumerate(in_order(pool, lambda item: item, items(), 4)):
            assert item == done
            assert taken <= done + 4


def test_the_first_error_ends_it_and_what_waits_is_never_begun() -> None:
    begun: list[int] = []
    gate = threading.Event()

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise ValueError("one")
        gate.wait(5)
        return item

    with ThreadPoolExecutor(1) as pool:
        found = in_order(pool, work, [1, 2, 3, 4, 5, 6], 6)
        with pytest.raises(ValueError, match="one"):
            next(found)
        gate.set()
    assert len(begun) < 6


def test_there_are_threads_but_not_too_many() -> None:
    assert 1 <= threads() <= 4
    with mock.patch("os.sched_getaffinity", return_value=set(range(96))):
        assert threads() == 4
