"""A fetch that is slower than the build was: said, and with `--race` run against a build."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from buckets import HurtBucket
from fault_proxy import Fault, FaultProxy
from test_cache import HOST, Told
from test_interrupt import sleeping
from toy import Machine

import artcache
from artcache.errors import BuildFailed, StoreUnavailable
from artcache.race import Pace
from artcache.stores.posix import PosixStore

NOISE = 300_000
SLOW = Fault(drip=0.0001)
"""Several kB a second: not so slow that the connection counts as stalled."""


def is_pack(request: object) -> bool:
    return ".pack" in request.path and request.method == "GET"  # type: ignore[attr-defined]


# -- the pace -----------------------------------------------------------------------------


def test_the_pace_is_measured_by_the_bytes_of_the_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(1000)
    assert pace.seconds_left == 0  # nothing is known yet
    pace.asked(100)
    now[0] += 1
    assert pace.rate == 50
    pace.came(100, whole=True)
    pace.asked(100)
    now[0] += 1
    assert pace.rate == 75
    assert pace.seconds_left == pytest.approx(850 / 75)
    pace.came(100, whole=False)  # it has to be asked for again
    assert pace.rate == 50


def test_what_is_known_to_have_come_counts_before_it_is_handed_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    pace = Pace(1000)
    pace.asked(100)
    pace.arrived(80)
    now[0] += 1
    assert pace.rate == 80
    pace.arrived(320)
    pace.came(100, whole=True)
    now[0] += 1
    assert (pace.rate, pace.seconds_left) == (200, 3)


def after(condition: Callable[[], object], *actions: Callable[[], object]) -> None:
    """Do something while a fetch waits, once a condition holds."""

    def wait() -> None:
        until = time.monotonic() + 60
        while not condition() and time.monotonic() < until:
            time.sleep(0.05)
        for action in actions:
            action()

    threading.Thread(target=wait, daemon=True).start()


# -- through buckets, on the command line -------------------------------------------------


class Link:
    """A bucket behind a link, and machines."""

    def __init__(self, folder: Path, url: str, proxy: FaultProxy) -> None:
        self.folder, self.url, self.proxy = folder, url, proxy
        self.words = ("fetch", "toy", "--set", f"NOISE={NOISE}", "--store", url, "--json")
        assert self.machine("maker").run(*self.words).code == 0
        proxy.heal()

    def machine(self, name: str) -> Machine:
        folder = self.folder / name
        folder.mkdir()
        return Machine(folder)


@pytest.fixture
def link(hurt_bucket: HurtBucket, tmp_path: Path) -> Link:
    return Link(tmp_path, *hurt_bucket)


def nothing_half_done(machine: Machine) -> bool:
    return not list((machine.home / "v1" / "tmp").iterdir())


def test_the_build_wins_where_the_link_is_slow(link: Link) -> None:
    link.proxy.plan(SLOW, when=is_pack)
    machine = link.machine("a")

    start = time.monotonic()
    done = machine.run(*link.words, "--race")

    assert done.code == 0, done.err
    assert done.json["result"]["origin"] == "built"
    assert not done.json["warnings"]
    (note,) = [note for note in done.json["notes"] if "fetching" in note]
    assert "building it at the same time" in note
    assert time.monotonic() - start < 25  # the fetch would take a minute
    assert nothing_half_done(machine)
    assert Path(done.json["result"]["path"], "data", "noise").stat().st_size == NOISE
    assert machine.run(*link.words).json["result"]["origin"] == "home"


@pytest.mark.parametrize("hurt_bucket", ["gs"], indirect=True)
def test_the_fetch_wins_where_the_build_is_slow(link: Link) -> None:
    link.proxy.plan(SLOW, when=is_pack)
    machine = link.machine("a")
    nap = "61.0123"
    after(lambda: sleeping(nap), link.proxy.heal)  # the link gets better

    done = machine.run(*link.words, "--race", TOY_SLEEP=nap)

    assert done.code == 0, done.err
    assert done.json["result"]["origin"] == link.url
    assert any("building it at the same time" in note for note in done.json["notes"])
    assert not sleeping(nap)
    assert nothing_half_done(machine)
    assert machine.run(*link.words).json["result"]["origin"] == "home"


@pytest.mark.parametrize("hurt_bucket", ["gs"], indirect=True)
def test_without_race_it_is_only_said(link: Link, tmp_path: Path) -> None:
    link.proxy.plan(SLOW, when=is_pack)
    after(lambda: any(map(is_pack, link.proxy.requests)), lambda: time.sleep(4), link.proxy.heal)
    counter = tmp_path / "counter"
    done = link.machine("a").run(*link.words, TOY_COUNTER=str(counter))
    assert done.json["result"]["origin"] == link.url
    (note,) = [note for note in done.json["notes"] if "fetching" in note]
    assert "kB" in note or "MB" in note
    assert "--race builds it at the same time" in note
    assert not counter.exists()


@pytest.mark.parametrize("hurt_bucket", ["gs"], indirect=True)
def test_ctrl_c_ends_both(link: Link) -> None:
    link.proxy.plan(SLOW, when=is_pack)
    machine = link.machine("a")
    nap = "62.0123"
    process = machine.start(*link.words, "--race", TOY_SLEEP=nap)
    until = time.monotonic() + 60
    while not sleeping(nap):
        assert time.monotonic() < until
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert not sleeping(nap)
    assert nothing_half_done(machine)


# -- through a store that can do anything -------------------------------------------------


class SlowStore(PosixStore):
    """Its reads of packs wait, and may fail or lie at last."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.go = threading.Event()
        self.at_last: Callable[[bytes], bytes] = lambda data: data

    def fill(self, name: str, offset: int, out: memoryview) -> None:
        super().fill(name, offset, out)
        if self.go.wait(0.2 * len(out) / 10_000):
            out[:] = self.at_last(bytes(out))


class Bench:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = SlowStore(folder / "store")
        self.content = os.urandom(NOISE)
        self.builds, self.hold, self.fails = 0, threading.Event(), False
        self.store.go.set()
        self.cache("maker").fetch(self.recipe)
        self.store.go.clear()
        self.hold.clear()

    @property
    def recipe(self) -> artcache.Recipe:
        @artcache.make_recipe("thing", fields={"commit": "1"})
        def build(context: artcache.BuildContext) -> None:
            self.builds += 1
            context.runner.run(["sleep", "0.05"])
            while self.builds > 1 and not self.hold.wait(0.05):
                context.phase("compile")
            if self.fails:
                raise BuildFailed("no compiler likes it")
            (context.tree / "thing").write_bytes(self.content)

        return build

    def cache(self, home: str) -> artcache.Cache:
        self.told = Told()
        return artcache.Cache(
            [self.store], home=self.folder / home, host=HOST, observer=self.told, race=True
        )


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_build_that_fails_leaves_the_fetch_alone(bench: Bench) -> None:
    bench.fails = True
    bench.hold.set()
    cache = bench.cache("a")
    after(lambda: bench.told.notes[1:], bench.store.go.set)
    done = cache.fetch(bench.recipe)
    assert (done.origin, bench.builds) == (bench.store.url, 2)
    assert any("no compiler likes it" in note for note in bench.told.notes)
    assert not bench.told.warnings


def test_a_store_that_goes_away_leaves_the_build(bench: Bench) -> None:
    def fails(data: bytes) -> bytes:
        raise StoreUnavailable(f"{bench.store.url} went away")

    bench.store.at_last = fails
    after(lambda: bench.builds == 2, bench.store.go.set)
    cache = bench.cache("a")
    after(lambda: bench.told.warnings, bench.hold.set)
    done = cache.fetch(bench.recipe)
    assert (done.origin, bench.builds) == ("built", 2)
    assert len(bench.told.warnings) == 1
    assert "went away" in bench.told.warnings[0]


def test_a_store_whose_pack_is_damaged_gets_what_was_built(bench: Bench) -> None:
    bench.store.at_last = lambda data: bytes(len(data))
    after(lambda: bench.builds == 2, bench.store.go.set)
    after(lambda: bench.store.go.is_set(), lambda: time.sleep(1), bench.hold.set)
    assert bench.cache("a").fetch(bench.recipe).origin == "built"
    assert any("corrupt" in warning for warning in bench.told.warnings)
    bench.store.at_last = lambda data: data
    assert bench.cache("b").fetch(bench.recipe, build="never").origin == bench.store.url
    assert bench.builds == 2


def test_a_pure_python_build_that_lost_is_stopped_too(bench: Bench) -> None:
    after(lambda: bench.builds == 2, bench.store.go.set)
    done = bench.cache("a").fetch(bench.recipe)
    assert (done.origin, bench.builds) == (bench.store.url, 2)
    assert not [one for one in threading.enumerate() if one.name == "artcache race"]


def test_nothing_races_where_nothing_may_be_built(bench: Bench) -> None:
    cache = bench.cache("a")
    after(lambda: bench.told.notes, bench.store.go.set)
    done = cache.fetch(bench.recipe, build="never")
    assert (done.origin, bench.builds) == (bench.store.url, 1)
    assert any("fetching" in note for note in bench.told.notes)


def test_a_quick_fetch_says_nothing(bench: Bench) -> None:
    bench.store.go.set()
    assert bench.cache("a").fetch(bench.recipe).origin == bench.store.url
    assert (bench.told.notes, bench.builds) == ([], 1)
