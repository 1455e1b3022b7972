"""The rule for the length of a request and the number of connections."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcache.link import FEW, LONGEST, Link

MIB = 1 << 20
MEMORY = 32 * MIB
MUCH = 600 * MIB


def after(rate: float, *, most: int = 8, requests: int = 1) -> Link:
    """A link whose connections bring so many bytes a second each."""
    link = Link(most, MEMORY)
    for number in range(requests):
        link.length(MUCH)
        link.ended(MIB, 0.0, MIB / rate, number * 0.001)
    return link


def test_nothing_is_known_at_first_so_it_is_a_single_frame() -> None:
    assert Link(8, MEMORY).length(MUCH) == 0


def test_a_quick_link_is_asked_for_as_much_as_may_be() -> None:
    assert after(50e6).length(MUCH) == LONGEST


def test_a_slow_link_is_asked_for_what_it_brings_in_a_second() -> None:
    assert after(300_000).length(MUCH) == pytest.approx(300_000, rel=0.01)


def test_a_short_answer_that_comes_with_its_head_is_no_proof_of_a_quick_link() -> None:
    link = Link(8, MEMORY)
    link.ended(10_000, 0.1, 0.0, 0.1)
    assert 0 < link.length(MUCH) < MIB


def test_a_server_that_thinks_for_long_is_asked_for_much_at_once() -> None:
    link = Link(8, MEMORY)
    link.ended(2 * MIB, 1.5, 0.1, 1.6)
    assert link.length(MUCH) == LONGEST


def test_a_link_that_gets_slower_is_asked_for_less() -> None:
    link = after(50e6)
    for _ in range(10):
        link.ended(MIB, 0.0, 10.0, 1.0)
    assert link.length(MUCH) < MIB


def test_the_end_is_shared_among_the_connections_in_pieces_worth_a_request() -> None:
    link = after(50e6)
    assert link.length(20 * MIB) == 5 * MIB
    assert link.length(2 * MIB) == LONGEST // 2


@given(
    st.integers(1, 16),
    st.integers(1, 256 * MIB),
    st.lists(st.tuples(st.integers(1, 64 * MIB), st.floats(0, 100)), max_size=60),
    st.integers(0, 1 << 40),
)
def test_what_is_under_way_fits_into_memory_and_pleases_the_store(
    most: int, memory: int, ended: list[tuple[int, float]], left: int
) -> None:
    link, now = Link(most, memory), 0.0
    for length, seconds in ended:
        now += seconds
        link.asked(waited=True)
        link.came(length)
        link.ended(length, seconds / 2, seconds, now)
        assert 1 <= link.connections <= most
        assert 0 <= link.length(left) * link.connections <= memory
        assert link.length(left) <= LONGEST


class Run:
    """A link in use: each connection brings so much a second, all together so much at most."""

    def __init__(self, each: float, whole: float = 1e12, *, starved: bool = True) -> None:
        self.link, self.each, self.whole, self.starved = Link(8, MEMORY), each, whole, starved
        self.now, self.most = 0.0, FEW

    def go(self, left: int = MUCH) -> Run:
        for _ in range(60):
            count = self.link.connections
            self.most = max(self.most, count)
            seconds = MIB / min(self.each, self.whole / count)
            self.now += seconds
            for _ in range(count):
                self.link.length(left)
                self.link.asked(waited=self.starved)
                self.link.came(MIB)
                self.link.ended(MIB, 0.0, seconds, self.now)
        return self


def test_where_each_connection_is_held_down_by_itself_there_are_many() -> None:
    assert Run(5e6).go().link.connections == 8


def test_where_the_link_is_the_limit_many_are_tried_and_given_up() -> None:
    run = Run(50e6, whole=20e6).go()
    assert (run.most, run.link.connections) == (8, FEW)


def test_where_the_cores_are_the_limit_many_are_not_even_tried() -> None:
    assert Run(5e6, starved=False).go().most == FEW


def test_shortly_before_the_end_nothing_is_tried() -> None:
    assert Run(5e6).go(left=MIB).most == FEW


def test_a_store_that_likes_few_has_few() -> None:
    assert Link(2, MEMORY).connections == 2
