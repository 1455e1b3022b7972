"""Several fetches in one: in the order asked, together where they wait, apart where they build."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import artcache
from artcache import several
from artcache.errors import BuildFailed, CacheMiss, StoreUnavailable, UsageError
from artcache.recipe import FunctionRecipe
from artcache.several import Load
from tests.making import MemoryStore
from tests.test_cache import HOST, Told, compiled
from tests.toy import Machine

PATIENCE = 20.0
"""Seconds for what must come to meet what it waits for."""


class Events(Told):
    """What was told, in order, with the bytes of each progress."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[tuple[str, str]] = []
        self.bytes: list[tuple[int, int]] = []

    def phase(self, name: str, detail: str = "") -> None:
        self.all.append((name, detail))

    def progress(self, done: int, total: int) -> None:
        self.bytes.append((done, total))


def thing(name: str, then: Callable[[], object] = lambda: None) -> FunctionRecipe:
    """A recipe whose tree is one file of its own, of 100 kB."""

    @artcache.make_recipe(name, fields={"commit": "1"})
    def build(context: artcache.BuildContext) -> None:
        then()
        (context.tree / name).write_bytes(name.encode() * (100_000 // len(name)))

    return build


def cache_of(store: object, home: Path, observer: artcache.Observer | None = None) -> Any:
    return artcache.Cache([store], home=home, host=HOST, observer=observer)  # type: ignore[list-item]


@pytest.fixture
def stocked(tmp_path: Path) -> Path:
    """A store with `one`, `two`, `three` and `four`."""
    cache = cache_of(tmp_path / "store", tmp_path / "publisher")
    for name in ("one", "two", "three", "four"):
        cache.build(thing(name))
    return tmp_path / "store"


# -- results ------------------------------------------------------------------------------


def test_the_results_come_in_the_order_asked_wherever_they_are_from(
    stocked: Path, tmp_path: Path
) -> None:
    cache = cache_of(stocked, tmp_path / "home")
    cache.fetch(thing("three"))

    done = cache.fetch_all([thing("new"), thing("two"), thing("three"), thing("one")])

    assert [one.key.recipe for one in done] == ["new", "two", "three", "one"]
    assert [one.origin for one in done] == ["built", str(stocked), "home", str(stocked)]
    assert all((one.path / one.key.recipe).stat().st_size > 90_000 for one in done)


def test_each_may_have_its_own_request(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    script = (
        "import artcache\n"
        "Request = artcache.Request\n"
        "a, b = artcache.fetch_all(['toy', ('toy', Request(options={'WORD': 'hi'}))])\n"
        "print(a.key.hash != b.key.hash, 'hello' in (a.path / 'bin/toy').read_text(),"
        " 'hi' in (b.path / 'bin/toy').read_text())"
    )
    done = subprocess.run(
        [machine.command()[0], "-c", script], env=machine.env, capture_output=True, text=True
    )
    assert done.stdout == "True True True\n", done.stderr


def test_one_artifact_twice_is_made_once(tmp_path: Path) -> None:
    built: list[str] = []
    cache = cache_of(tmp_path / "store", tmp_path / "home")

    first, second = cache.fetch_all([thing("one", lambda: built.append("one"))] * 2)

    assert first.path == second.path
    assert built == ["one"]


def test_a_stand_in_of_the_home_serves_without_a_store(tmp_path: Path) -> None:
    cache = artcache.Cache([], home=tmp_path / "home", host=HOST)
    cache.fetch(compiled("glibc2.31"))

    done, _ = cache.fetch_all([compiled("glibc2.36"), thing("one")])

    assert (done.origin, done.key.get("libc")) == ("home", "glibc2.31")


def test_a_name_alone_is_no_list(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'darknet' is one name"):
        cache_of(tmp_path / "store", tmp_path / "home").fetch_all("darknet")


# -- failures -----------------------------------------------------------------------------


def test_one_that_fails_stops_no_other(stocked: Path, tmp_path: Path) -> None:
    def fail() -> None:
        raise BuildFailed("it does not compile", hint="see the log")

    cache = cache_of(stocked, tmp_path / "home")

    with pytest.raises(artcache.FetchesFailed) as caught:
        cache.fetch_all([thing("one"), thing("bad", fail), "no such", thing("new")])

    one, bad, unknown, new = caught.value.results
    assert (one.origin, new.origin) == (str(stocked), "built")
    assert caught.value.exceptions == (bad, unknown)
    assert "bad: it does not compile" in str(caught.value)
    assert "no such: no recipe" in str(caught.value)


def test_the_error_has_the_code_of_the_first_that_failed_in_the_order_asked(
    tmp_path: Path,
) -> None:
    cache = cache_of(tmp_path / "store", tmp_path / "home")

    with pytest.raises(artcache.FetchesFailed) as caught:
        cache.fetch_all([thing("missed"), "no such"], build="never")

    assert (caught.value.code, caught.value.exit_code) == (CacheMiss.code, CacheMiss.exit_code)


def test_a_mistake_of_ours_is_raised_as_it_is_after_all_others_came(
    stocked: Path, tmp_path: Path
) -> None:
    class Broken(MemoryStore):
        def get(self, name: str, *, limit: int) -> bytes:
            if "/two/" in name:
                raise ZeroDivisionError("a mistake")
            return super().get(name, limit=limit)

    cache = artcache.Cache([Broken(), stocked], home=tmp_path / "home", host=HOST)

    with pytest.raises(ZeroDivisionError):
        cache.fetch_all([thing("one"), thing("two"), thing("three")])

    assert cache.fetch(thing("one")).origin == cache.fetch(thing("three")).origin == "home"


# -- together, and apart ------------------------------------------------------------------


class Meeting(MemoryStore):
    """Answers the first read of a pack when that of another pack has come too."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.met = threading.Event()

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.seen.add(name)
        if len(self.seen) > 1:
            self.met.set()
        assert self.met.wait(PATIENCE), "the second transfer waited for the first to end"
        return super().get_range(name, offset, length)


def test_two_are_restored_at_the_same_time(tmp_path: Path) -> None:
    store = Meeting()
    publisher = cache_of(store, tmp_path / "publisher")
    for name in ("one", "two"):
        publisher.build(thing(name))

    done = cache_of(store, tmp_path / "home").fetch_all([thing("one"), thing("two")])

    assert [one.origin for one in done] == [store.url] * 2


def test_builds_wait_for_what_is_cached_and_for_each_other(stocked: Path, tmp_path: Path) -> None:
    events = Events()
    building: list[str] = []

    def alone(name: str) -> Callable[[], None]:
        def build() -> None:
            assert not building
            building.append(name)
            time.sleep(0.05)
            building.remove(name)

        return build

    wanted = [thing("new", alone("new")), thing("one"), thing("other", alone("other"))]
    cache_of(stocked, tmp_path / "home", events).fetch_all([*wanted, thing("two")])

    told = [(name, detail.split()[0]) for name, detail in events.all if name in "restore build"]
    assert {told[0][0], told[1][0]} == {"restore"}
    assert told[2:] == [("build", "new"), ("build", "other")]


def test_the_progress_is_the_sum_of_all_and_never_falls(stocked: Path, tmp_path: Path) -> None:
    events = Events()

    done = cache_of(stocked, tmp_path / "home", events).fetch_all(
        [thing(name) for name in ("one", "two", "three", "four")]
    )

    finished = [done for done, _ in events.bytes]
    assert finished == sorted(finished)
    assert events.bytes[-1] == (sum(one.entry.size for one in done),) * 2


def test_what_is_in_the_home_already_starts_no_thread(stocked: Path, tmp_path: Path) -> None:
    cache = cache_of(stocked, tmp_path / "home")
    wanted = [thing("one"), thing("two")]
    cache.fetch_all(wanted)

    def start(thread: threading.Thread) -> None:
        raise AssertionError("a thread")

    before, threading.Thread.start = threading.Thread.start, start  # type: ignore[method-assign]
    try:
        assert [one.origin for one in cache.fetch_all(wanted)] == ["home", "home"]
    finally:
        threading.Thread.start = before  # type: ignore[method-assign]


def test_nothing_stays_open_in_the_store_so_that_it_can_be_unmounted(
    stocked: Path, tmp_path: Path
) -> None:
    cache_of(stocked, tmp_path / "home").fetch_all(
        [thing(name) for name in ("one", "two", "three", "four")]
    )

    handles = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert not [handle for handle in handles if handle.startswith(str(stocked))]


def test_what_fits_is_admitted_and_what_is_too_much_waits_until_it_is_alone() -> None:
    load, order = Load(10), []
    admitted, go_on = threading.Event(), threading.Event()

    def small() -> None:
        load.admit(4)
        admitted.set()
        go_on.wait(PATIENCE)
        order.append("small is done")
        load.done()

    def large() -> None:
        load.admit(100)
        order.append("large")

    threads = [threading.Thread(target=work) for work in (small, large)]
    load.admit(6)
    threads[0].start()
    assert admitted.wait(PATIENCE), "4 and 6 are not over 10"
    threads[1].start()
    load.done()
    go_on.set()
    for thread in threads:
        thread.join()

    assert order == ["small is done", "large"]


def test_trees_of_very_many_files_come_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Alone(MemoryStore):
        under_way = 0

        def get_range(self, name: str, offset: int, length: int) -> bytes:
            self.under_way += 1
            time.sleep(0.1)
            assert self.under_way == 1
            self.under_way -= 1
            return super().get_range(name, offset, length)

    store = Alone()
    wanted = [thing(name) for name in ("one", "two", "three", "four")]
    publisher = cache_of(store, tmp_path / "publisher")
    for recipe in wanted:
        publisher.build(recipe)
    monkeypatch.setattr(several, "_MANIFESTS", 1)

    done = cache_of(store, tmp_path / "home").fetch_all(wanted)

    assert [one.origin for one in done] == [store.url] * 4


def test_a_change_in_a_restored_tree_is_seen_though_its_files_were_forgotten(
    stocked: Path, tmp_path: Path
) -> None:
    cache = cache_of(stocked, tmp_path / "home")
    one, _ = cache.fetch_all([thing("one"), thing("two")])
    assert cache.fetch(thing("one"), build="never").origin == "home"
    assert [file.path for file in one.entry.manifest().files] == ["one"]

    (one.path / "one").unlink()
    (one.path / "one").write_bytes(b"something else")

    assert cache.fetch(thing("one"), build="never").origin == str(stocked)


# -- Ctrl-C -------------------------------------------------------------------------------


class Stuck(MemoryStore):
    """Stops answering in the midst of two packs, as a user presses Ctrl-C; until `abort`."""

    def __init__(self) -> None:
        super().__init__()
        self.sick = True
        self.reads = 0
        self.aborted = threading.Event()

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        self.reads += 1
        if self.sick:
            if self.reads == 2:
                os.kill(os.getpid(), signal.SIGINT)
            assert self.aborted.wait(PATIENCE), "nobody ended this read"
            raise StoreUnavailable("interrupted")
        return super().get_range(name, offset, length)

    def abort(self) -> None:
        self.aborted.set()


def test_ctrl_c_ends_all_and_the_same_cache_goes_on_later(tmp_path: Path) -> None:
    store, told = Stuck(), Told()
    publisher = cache_of(store, tmp_path / "publisher")
    wanted = [thing(name) for name in ("one", "two", "three", "four")]
    for recipe in wanted:
        publisher.build(recipe)
    cache = cache_of(store, tmp_path / "home", told)

    with pytest.raises(KeyboardInterrupt):
        cache.fetch_all(wanted)

    assert not list((tmp_path / "home").glob("v1/tmp/*"))
    assert not told.warnings
    store.sick = False
    assert [one.origin for one in cache.fetch_all(wanted)] == [store.url] * 4


@pytest.mark.parametrize("after", [0.2, 0.4, 0.6, 0.8, 1.0])
def test_ctrl_c_of_the_command_leaves_nothing_half_done(tmp_path: Path, after: float) -> None:
    machine = with_more(Machine(tmp_path))
    machine.run("fetch", "big", "large", "--store", machine.store)
    again = ("fetch", "big", "slow", "large", "--store", machine.store, "--dir", tmp_path / "new")
    process = machine.start(*again)
    time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode in ((0, 1, 130, -signal.SIGINT) if after < 0.3 else (0, 130))
    assert not list((tmp_path / "new").glob("v1/tmp/*"))
    done = machine.run(*again)
    assert (done.code, len(done.out.splitlines())) == (0, 3), done.err


# -- the command --------------------------------------------------------------------------

MORE = """
import artcache, os, time

def recipe(name, size, seconds=0):
    @artcache.make_recipe(name, fields={"commit": "1", "platform": "any", "libc": "any"})
    def build(context):
        if os.environ.get("MORE_FAIL") == name:
            raise artcache.errors.BuildFailed(f"{name} does not compile")
        time.sleep(seconds)
        (context.tree / f"{name}.bin").write_bytes(os.urandom(1000) * (size // 1000))
    return build

small, big, large, slow = (
    recipe("small", 1000), recipe("big", 9_000_000), recipe("large", 20_000_000),
    recipe("slow", 1000, 0.3),
)
"""


def with_more(machine: Machine) -> Machine:
    """The recipes `small`, `big`, `large` and `slow` beside `toy`."""
    (machine.toy / "more_recipes.py").write_text("import artcache.errors\n" + MORE)
    info = machine.toy / "more_recipes-1.0.dist-info"
    info.mkdir()
    names = "".join(f"{name} = more_recipes:{name}\n" for name in "small big large slow".split())
    (info / "entry_points.txt").write_text(f"[artcache.recipes]\n{names}")
    return machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return with_more(Machine(tmp_path))


def test_the_command_prints_one_path_each_in_the_order_asked(machine: Machine) -> None:
    machine.run("fetch", "big", "--store", machine.store)

    done = machine.run("fetch", "toy", "big", "small", "--store", machine.store)

    assert done.code == 0, done.err
    assert [path.split("/")[-3] for path in done.out.splitlines()] == ["toy", "big", "small"]


def test_json_has_a_list_for_several_and_an_object_for_one(machine: Machine) -> None:
    one = machine.run("fetch", "small", "--json").json["result"]
    several = machine.run("fetch", "small", "toy", "--json").json

    assert one["recipe"] == "small"
    assert "error" not in one
    assert several["ok"]
    assert [row["recipe"] for row in several["result"]] == ["small", "toy"]
    assert several["result"][0].keys() == {*one, "error"}
    assert [row["error"] for row in several["result"]] == [None, None]


def test_the_command_fetches_the_others_and_says_which_failed(machine: Machine) -> None:
    done = machine.run("fetch", "small", "big", "no-such", MORE_FAIL="small")

    assert done.code == BuildFailed.exit_code
    assert [path.split("/")[-3] for path in done.out.splitlines()] == ["big"]
    assert "2 of 3 failed" in done.err
    assert "small: small does not compile" in done.err
    assert "no-such: no recipe" in done.err


def test_json_has_what_was_fetched_beside_the_error(machine: Machine) -> None:
    told = machine.run("fetch", "no-such", "small", "--json")

    assert told.code == UsageError.exit_code
    assert told.json["error"]["code"] == "unknown-recipe"
    first, second = told.json["result"]
    assert (first["recipe"], first["error"]["code"]) == ("no-such", "unknown-recipe")
    assert (second["recipe"], second["error"]) == ("small", None)
    assert Path(second["path"], "small.bin").is_file()


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("small", "toy", "small"), "small is named twice"),
        (("small", "toy", "--set", "WORD=hi"), "--set is for one RECIPE, and 2 are named"),
        (("small", "toy", "--source", "debian"), "--source is for one RECIPE"),
        (("small", "toy", "--ref", "main"), "--ref is for one RECIPE"),
        (("small", "toy", "--race"), "--race is for one RECIPE"),
        ((), "RECIPE"),
    ],
)
def test_what_makes_no_sense_for_several_is_refused_before_anything_is_done(
    machine: Machine, words: tuple[str, ...], why: str
) -> None:
    done = machine.run("fetch", *words)

    assert done.code == UsageError.exit_code
    assert why in done.err
    assert not list(machine.home.glob("v1/entries/*"))


def test_all_trees_appear_in_one_folder_and_go_again_one_by_one(machine: Machine) -> None:
    done = machine.run("fetch", "small", "toy", "--to", "here")

    here = machine.work / "here"
    assert done.out.splitlines() == [str(here)] * 2
    assert (here / "small.bin").is_file()
    assert (here / "bin/toy").is_file()
    assert machine.run("uninstall", "small").code == 0
    assert not (here / "small.bin").exists()
    assert (here / "bin/toy").is_file()


def test_one_that_cannot_be_installed_stops_no_other(machine: Machine) -> None:
    (machine.work / "here").mkdir()
    (machine.work / "here" / "small.bin").write_text("mine")

    done = machine.run("fetch", "small", "toy", "--to", "here", "--json")

    assert done.code == 5
    assert [row["error"] and row["error"]["code"] for row in done.json["result"]] == [
        "refused",
        None,
    ]
    assert (machine.work / "here" / "bin/toy").is_file()
    assert (machine.work / "here" / "small.bin").read_text() == "mine"


def test_what_is_told_meanwhile_is_whole_lines(machine: Machine) -> None:
    names = ("big", "large", "small", "toy")
    machine.run("fetch", *names, "--store", machine.store)

    told = machine.run("fetch", *names, "--store", machine.store, "--dir", machine.work / "new")

    starts = ("artcache: restore ", *(f"{name} " for name in names))
    assert all(line.startswith(starts) for line in told.err.splitlines()), told.err
    assert sum(" from " in line and " in " in line for line in told.err.splitlines()) == 4


def test_several_hits_import_no_more_than_one(machine: Machine) -> None:
    machine.run("fetch", "small", "big", "toy")
    script = (
        "import sys; sys.argv = ['artcache', 'fetch', *sys.argv[1:]]\n"
        "from artcache.cli import main\n"
        "try: main()\n"
        "finally: print(*sorted(sys.modules), file=sys.stderr)"
    )

    def modules(*names: str) -> set[str]:
        words = [machine.command()[0], "-c", script, *names]
        done = subprocess.run(words, env=machine.env, capture_output=True, text=True)
        assert done.stderr.count("from home") == len(names)
        return set(done.stderr.splitlines()[-1].split())

    more = modules("small", "toy", "big") - modules("small") - modules("toy")
    assert more == {"artcache.several", "artcache.cli.several"}


def test_an_error_of_one_name_is_told_as_ever(machine: Machine) -> None:
    done = machine.run("fetch", "no-such", "--json")

    assert "result" not in done.json
    assert done.json["error"]["message"].startswith("no recipe is called")
