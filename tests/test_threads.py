"""One cache, several threads: nothing is asked, opened or told twice, and memory has one bound."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import artcache
from artcache.disk import replace_file
from artcache.errors import StoreUnavailable
from artcache.shares import Shares
from artcache.store import Store
from artcache.tier import Tier
from tests.making import MemoryStore
from tests.test_cache import HOST, Told

_Result = TypeVar("_Result")
AT_ONCE = 8


def at_once(work: Callable[[], _Result]) -> list[_Result]:
    """The results of as many threads as there are, which all begin at the same time."""
    barrier = threading.Barrier(AT_ONCE)

    def one(_: int) -> _Result:
        barrier.wait()
        return work()

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, range(AT_ONCE)))


def test_a_store_is_opened_once() -> None:
    opened: list[Store] = []

    def open_slowly() -> Store:
        time.sleep(0.05)
        opened.append(MemoryStore())
        return opened[-1]

    tier = Tier(open_slowly, url="memory:")

    assert len(set(map(id, at_once(lambda: tier.repository)))) == len(opened) == 1


def test_the_machine_is_examined_once(tmp_path: Path) -> None:
    asked: list[Any] = []

    def examine() -> artcache.HostFacts:
        time.sleep(0.05)
        asked.append(1)
        return HOST

    cache = artcache.Cache([], home=tmp_path)
    cache._host = examine

    assert at_once(lambda: cache.host) == [HOST] * AT_ONCE
    assert len(asked) == 1


def test_a_store_that_fails_several_threads_is_told_once(tmp_path: Path) -> None:
    told = Told()
    cache = artcache.Cache([MemoryStore()], home=tmp_path, host=HOST, observer=told)

    at_once(lambda: cache.give_up(cache.tiers[0], StoreUnavailable("it does not answer")))

    assert told.warnings == ["it does not answer; going on without it"]


def test_each_problem_of_a_store_is_told_once(tmp_path: Path) -> None:
    told = Told()
    cache = artcache.Cache([MemoryStore()], home=tmp_path, host=HOST, observer=told)
    problems = [f"object {number} is corrupt" for number in range(500)]
    cache.tiers[0].repository.problems += problems

    at_once(lambda: cache.tell_problems(cache.tiers[0]))

    assert sorted(told.warnings) == sorted(problems)


def test_a_memo_is_whole_whoever_writes_it(tmp_path: Path) -> None:
    memo = tmp_path / "memo" / "facts.json"
    bodies = [json.dumps({"writer": name, "more": name * 5000}).encode() for name in "ab"]
    replace_file(memo, bodies[0])

    def write_and_read() -> None:
        for number in range(50):
            replace_file(memo, bodies[number % 2])
            assert memo.read_bytes() in bodies

    at_once(write_and_read)

    assert [path.name for path in memo.parent.iterdir()] == ["facts.json"]


# -- memory -------------------------------------------------------------------------------


def test_whoever_is_at_work_has_an_equal_share() -> None:
    shares = Shares(100, most=2)

    with shares.one() as one:
        assert one() == 100
        with shares.one() as other:
            assert (one(), other()) == (50, 50)
        assert one() == 100


def test_one_too_many_waits_until_somebody_is_done() -> None:
    shares = Shares(100, most=2)
    begun, order = threading.Event(), []

    def third() -> None:
        begun.set()
        with shares.one():
            order.append("third")

    thread = threading.Thread(target=third)
    with shares.one():
        with shares.one():
            thread.start()
            begun.wait()
            time.sleep(0.05)
            order.append("second is done")
        thread.join()

    assert order == ["second is done", "third"]


MEASURE = """
import os, resource, sys, threading, time
from pathlib import Path
from artcache import pack
from tests.making import packed, plant
pack.threads = lambda: 4
root = Path(sys.argv[1])
file = (root / "pack").open("w+b")
manifest = packed(root / "tree", root / "pack")
def fetch(pack, offset, length):
    time.sleep(0.01)
    return os.pread(file.fileno(), length, offset)
def back(number):
    pack.unpack(manifest, fetch, plant(root / f"back {number}", {}), parallel=8)
back("before")
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
threads = [threading.Thread(target=back, args=[number]) for number in range(6)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert all((root / f"back {number}" / "noise").stat().st_size == 80_000_000 for number in range(6))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def test_six_restores_at_once_take_little_more_memory_than_one(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with open("/dev/urandom", "rb") as noise, (tmp_path / "tree" / "noise").open("wb") as out:
        for _ in range(80):
            out.write(noise.read(1_000_000))
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(tmp_path)], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 48 * 1024, f"{int(done.stdout) / 1024:.0f} MiB over one restore"
