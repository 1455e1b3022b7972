"""push, pull, save and restore: artifacts between homes, stores and files, as users move them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from buckets import gcs_store, s3_store
from fault_proxy import Fault, fault_proxy
from servers import make_gcs_bucket
from test_cache import Told
from test_supply import World, run
from toy import Machine

import artcache
from artcache.errors import Corrupt, Refused, StoreUnavailable
from artcache.recipe import FunctionRecipe
from artcache.repository import Repository
from artcache.store import Store, StoreSpec
from artcache.stores import open_store
from artcache.stores.posix import PosixStore
from artcache.transfer.archive import open_archive, save
from artcache.transfer.choose import Chosen, choose, with_libraries
from artcache.transfer.send import Moved, pull, push
from tests.making import MemoryStore, picture

HOST = artcache.HostFacts(libc="glibc2.36")
ASKED = artcache.Request()


class Bench:
    """Homes, and things that are built in them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.content = os.urandom(5_000_000)

    def cache(self, home: str = "home") -> artcache.Cache:
        self.told = Told()
        return artcache.Cache([], home=self.folder / home, host=HOST, observer=self.told)

    def recipe(self, commit: str = "1") -> FunctionRecipe:
        @artcache.make_recipe("thing", fields={"commit": commit})
        def build(context: artcache.BuildContext) -> None:
            (context.tree / "thing").write_bytes(self.content + commit.encode())
            (context.tree / "run").write_text("#!/bin/sh\n")
            (context.tree / "run").chmod(0o755)
            (context.tree / "empty").mkdir()
            (context.tree / "link").symlink_to("run")

        return build

    def built(self, cache: artcache.Cache, *commits: str) -> list[artcache.Fetched]:
        return [cache.fetch(self.recipe(commit)) for commit in commits or ("1",)]

    def chosen(self, cache: artcache.Cache, place: artcache.cache.Tier | None) -> list[Chosen]:
        return choose(cache, [place], (), ASKED)

    def push(self, cache: artcache.Cache, store: Store, *, dry_run: bool = False) -> list[Moved]:
        tier = artcache.cache.Tier(store)
        return list(push(cache, self.chosen(cache, None), tier, dry_run=dry_run))

    def pull(self, cache: artcache.Cache, tier: artcache.cache.Tier) -> list[Moved]:
        return list(pull(cache, self.chosen(cache, tier)))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def states(moves: list[Moved]) -> list[str]:
    return [moved.state for moved in moves]


def shows(store: Store) -> list[str]:
    return sorted(entry.name for entry in store.list("v1"))


# -- between a home and each kind of store ------------------------------------------------


STORES: dict[str, Callable[[Path, pytest.FixtureRequest], Store]] = {
    "folder": lambda folder, request: PosixStore(folder),
    "drive": lambda folder, request: PosixStore(folder, mount_like=True),
    "gcs": lambda folder, request: gcs_store(
        request.getfixturevalue("gcs_url"), request.getfixturevalue("monkeypatch")
    ),
    "s3": lambda folder, request: s3_store(
        request.getfixturevalue("s3_url"), request.getfixturevalue("monkeypatch")
    ),
}


@pytest.mark.parametrize("kind", STORES)
def test_what_is_pushed_is_pulled_elsewhere_to_the_bit(
    kind: str, bench: Bench, request: pytest.FixtureRequest
) -> None:
    store = STORES[kind](bench.folder / "store", request)
    one, two = bench.cache("a"), bench.cache("b")
    (built,) = bench.built(one)

    assert states(bench.push(one, store)) == ["copied"]
    assert states(bench.pull(two, artcache.cache.Tier(store))) == ["copied"]

    entry = two.home.lookup(built.key, verify=True)
    assert entry
    assert picture(entry.path) == picture(built.path)
    before, after = built.entry.manifest(), entry.manifest()
    assert (after.key, after.needs) == (before.key, before.needs)
    assert after.provenance == before.provenance
    assert states(bench.push(two, store)) == ["present"]
    assert states(bench.pull(two, artcache.cache.Tier(store))) == ["present"]
    assert not bench.told.warnings


@pytest.mark.parametrize("kind", STORES)
def test_a_store_is_saved_in_a_file_and_the_file_pushed_to_another(
    kind: str, bench: Bench, request: pytest.FixtureRequest
) -> None:
    store = STORES[kind](bench.folder / "store", request)
    cache, file = bench.cache(), bench.folder / "a.artcache"
    bench.built(cache, "1", "2")
    bench.push(cache, store)
    tier = artcache.cache.Tier(store)

    assert states(list(save(cache, bench.chosen(cache, tier), file))) == ["copied"] * 2

    other = STORES[kind](bench.folder / "other", request)
    place = open_archive(file)
    moves = list(push(cache, bench.chosen(cache, place), artcache.cache.Tier(other)))
    assert states(moves) == ["copied"] * 2
    for found in other.list("v1/packs"):
        data = other.get(found.name, limit=1 << 30)
        assert store.get(found.name, limit=1 << 30) == data
    for key in (moved.key for moved in moves):
        there = [Repository(one).find(key) for one in (store, other)]
        assert there[0] and there[1]
        assert there[0].data == there[1].data


def test_what_was_pulled_is_pushed_with_the_manifest_of_its_first_publisher(bench: Bench) -> None:
    one, two = MemoryStore(), MemoryStore()
    bench.built(bench.cache("a"))
    bench.push(bench.cache("a"), one)
    cache = bench.cache("b")
    bench.pull(cache, artcache.cache.Tier(one))
    bench.push(cache, two)
    assert {name: one.objects[name] for name in shows(one)} == {
        name: two.objects[name] for name in shows(two)
    }


def test_a_dry_run_says_what_it_would_do_and_does_nothing(bench: Bench) -> None:
    cache, store = bench.cache(), MemoryStore()
    bench.built(cache, "1")
    bench.push(cache, store)
    bench.built(cache, "2")
    before = shows(store)

    moves = bench.push(cache, store, dry_run=True)
    assert sorted(states(moves)) == ["planned", "present"]
    assert all(moved.size == 5_000_011 for moved in moves)
    assert shows(store) == before

    other = bench.cache("b")
    chosen = bench.chosen(other, artcache.cache.Tier(store))
    assert states(list(pull(other, chosen, dry_run=True))) == ["planned"]
    assert not list(other.home.entries())


# -- what goes wrong ----------------------------------------------------------------------


def test_other_content_of_the_same_key_is_told_and_the_first_stays(bench: Bench) -> None:
    store, one = MemoryStore(), bench.cache("a")
    bench.built(one)
    bench.push(one, store)
    before = dict(store.objects)
    bench.content = b"another"
    two = bench.cache("b")
    bench.built(two)

    (moved,) = bench.push(two, store)
    assert (moved.state, moved.differing) == ("differs", ("thing",))
    assert store.objects == before
    (moved,) = bench.pull(two, artcache.cache.Tier(store))
    assert (moved.state, moved.differing) == ("differs", ("thing",))
    assert bench.built(two)[0].path.joinpath("thing").read_bytes() == b"another1"


def test_what_went_away_since_it_was_chosen_is_said(bench: Bench) -> None:
    cache, store = bench.cache(), MemoryStore()
    bench.built(cache)
    bench.push(cache, store)
    here, there = bench.chosen(cache, None), bench.chosen(cache, artcache.cache.Tier(store))
    cache.home.remove(here[0].key)
    for name in shows(store):
        store.delete(name)
    for moves in (
        push(cache, here, artcache.cache.Tier(store)),
        push(cache, there, artcache.cache.Tier(MemoryStore())),
        pull(cache, there),
    ):
        (moved,) = moves
        assert moved.state == "failed"
        assert "any more" in str(moved.error)


def test_a_broken_tree_is_set_aside_and_the_others_are_pushed(bench: Bench) -> None:
    cache, store = bench.cache(), MemoryStore()
    trees = {one.key: one.path for one in bench.built(cache, "1", "2", "3")}
    bad = sorted(trees, key=lambda key: key.hash)[1]
    (trees[bad] / "thing").write_bytes(b"?" * 5_000_001)

    moves = bench.push(cache, store)

    assert states(moves) == ["copied", "failed", "copied"]
    assert isinstance(moves[1].error, Corrupt)
    assert "quarantine" in str(moves[1].error)
    assert not trees[bad].exists()
    assert not [name for name in shows(store) if bad.hash in name]


def test_a_damaged_pack_is_not_pulled_and_the_others_are(bench: Bench) -> None:
    store, cache = MemoryStore(), bench.cache("a")
    bench.built(cache, "1", "2")
    bench.push(cache, store)
    packs = [name for name in shows(store) if name.endswith(".pack")]
    pack = min(packs, key=lambda name: len(store.objects[name]))  # the other one is shared
    store.objects[pack] = bytes(len(store.objects[pack]))

    other = bench.cache("b")
    moves = bench.pull(other, artcache.cache.Tier(store))

    assert sorted(states(moves)) == ["copied", "failed"]
    assert len(list(other.home.entries())) == 1
    assert not list(other.home.folder("tmp").iterdir())
    assert any("corrupt" in line for line in bench.told.warnings)


class Silent(MemoryStore):
    """Does not answer a write."""

    asked = 0

    def create(self, name: str, content: object) -> None:
        self.asked += 1
        raise StoreUnavailable("no answer")


def test_a_store_that_is_silent_twice_is_not_asked_for_the_rest(bench: Bench) -> None:
    cache, store = bench.cache(), Silent()
    bench.content = b"x"
    bench.built(cache, *"123456")
    moves = bench.push(cache, store)
    assert states(moves) == ["failed"] * 6
    assert store.asked == 2
    assert "not tried" in str(moves[-1].error)


def test_what_may_not_be_redistributed_never_goes_to_a_public_store(bench: Bench) -> None:
    cache, store = bench.cache(), MemoryStore()
    recipe = bench.recipe()
    recipe.redistributable = False
    recipe.licence = "the vendor's licence"
    cache._recipes = {"thing": recipe}.__getitem__
    tier = artcache.cache.Tier(store)
    tier.public = True
    key = cache.fetch(recipe).key

    (moved,) = push(cache, [Chosen(key, None)], tier)
    assert isinstance(moved.error, Refused)
    assert "the vendor's licence does not allow" in str(moved.error)
    (moved,) = push(cache, [Chosen(key, None, named=False)], tier)
    assert (moved.state, moved.error) == ("refused", None)
    assert "does not allow" in bench.told.warnings[0]
    assert not store.objects


def test_a_store_keeps_its_configured_mark_however_it_is_named(tmp_path: Path) -> None:
    spec = StoreSpec(str(tmp_path / "store"), public=True)
    cache = artcache.Cache([spec], home=tmp_path / "home", host=HOST)
    assert cache.tier(f"{tmp_path}/store/").public
    assert not cache.tier(f"{tmp_path}/other").public
    assert cache.tier(f"public:{tmp_path}/other").public


# -- with its libraries -------------------------------------------------------------------


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_the_libraries_that_it_runs_with_go_along(world: World, tmp_path: Path) -> None:
    cache, file = world.cache("a"), tmp_path / "a.artcache"
    cache.fetch("whole")
    chosen = with_libraries(cache, choose(cache, [None], ["whole"], ASKED))
    assert sorted(one.key.recipe for one in chosen) == ["part", "whole"]
    list(save(cache, chosen, file))

    away, place = world.cache("b"), open_archive(file)
    list(pull(away, with_libraries(away, choose(away, [place], ["whole"], ASKED), here=True)))
    built = type(away.recipe("part")).built
    done = away.fetch("whole", build="never")

    assert run(done.path / "whole") == 42
    assert type(away.recipe("part")).built == built


def test_a_machine_that_has_them_gets_none(world: World, tmp_path: Path) -> None:
    cache, file = world.cache("a"), tmp_path / "a.artcache"
    cache.fetch("whole")
    list(save(cache, choose(cache, [None], (), ASKED), file))
    away, place = world.cache("b"), open_archive(file)
    chosen = choose(away, [place], ["whole"], ASKED)

    assert len(with_libraries(away, chosen, here=True)) == 2
    world.present.add("libartcachepart.so.1")
    assert len(with_libraries(away, chosen, here=True)) == 1
    old = world.cache("b", host=artcache.HostFacts(libc="glibc2.0"))  # it cannot run there
    assert len(with_libraries(old, chosen, here=True)) == 1


def test_libraries_that_are_not_there_are_noted(world: World) -> None:
    cache = world.cache("a")
    world.present.add("libartcachepart.so.1")
    cache.fetch("whole")
    notes: list[str] = []
    cache.observer.note = notes.append  # type: ignore[method-assign]
    chosen = with_libraries(cache, choose(cache, [None], ["whole"], ASKED))
    assert len(chosen) == 1
    assert "needs libartcachepart.so.1 of part, which is not in the home" in notes[0]


def test_also_those_that_it_never_ran_with_here(world: World, tmp_path: Path) -> None:
    cache = world.cache("a", host=artcache.HostFacts(libc="glibc2.0"))
    cache.fetch("whole")  # it cannot run here, so nothing was supplied
    told = world.cache("a")
    assert len(with_libraries(told, choose(told, [None], ["whole"], ASKED))) == 1
    cache.fetch("part")
    chosen = with_libraries(cache, choose(cache, [None], ["whole"], ASKED))
    assert sorted(one.key.recipe for one in chosen) == ["part", "whole"]


# -- as a user types it -------------------------------------------------------------------


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_push_and_pull_say_what_they_did(machine: Machine) -> None:
    machine.run("fetch", "toy")
    machine.run("fetch", "toy", "--ref", "2")

    pushed = machine.run("push", "toy", "--to", machine.store)
    assert (pushed.code, len(pushed.out.splitlines())) == (0, 1)
    assert f"toy: pushed to {machine.store}" in pushed.out
    again = machine.run("push", "--all", "--to", machine.store)
    assert f"in {machine.store} already" in again.out
    assert "1 there already" in again.err and "1 pushed (34 B)" in again.err

    away = {"ARTCACHE_DIR": str(machine.folder / "away"), "ARTCACHE_STORES": str(machine.store)}
    pulled = machine.run("pull", "--recipe", "toy", "--json", **away)
    rows = pulled.json["result"]
    assert [row["state"] for row in rows] == ["copied"] * 2
    assert {row["from"] for row in rows} == {str(machine.store)}
    assert rows[0].keys() == set(
        "recipe key from to state size seconds differing durable error".split()
    )
    hit = machine.run("fetch", "toy", "--ref", "2", "--build", "never", **away)
    assert "from home" in hit.err


def test_several_architectures_are_as_many_artifacts_as_build_makes(machine: Machine) -> None:
    machine.run("build", "toy", "--arch", "sm_80,7.5,sm_90")
    asked = ("push", "toy", "--to", machine.store, "--json")
    done = machine.run(*asked, "--arch", "7.5,8.0")
    assert len(done.json["result"]) == 2
    assert machine.run(*asked, "--arch", "7.5,8.6").code == 2
    machine.run("build", "toy", "--arch", "sm_80,7.5", "--fat")
    assert len(machine.run(*asked, "--arch", "7.5,8.0").json["result"]) == 1


def test_some_failures_are_an_exit_code_with_all_results_beside_it(machine: Machine) -> None:
    first = Path(machine.run("fetch", "toy").out.strip())
    machine.run("fetch", "toy", "--ref", "2")
    (first / "bin/toy").write_text("#!/bin/sh\necho evil\n")

    done = machine.run("push", "--all", "--to", machine.store, "--json")

    assert done.code == done.json["error"]["exit_code"] == 5
    assert sorted(row["state"] for row in done.json["result"]) == ["copied", "failed"]
    assert done.json["ok"] is False
    assert len(machine.manifests()) == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["push", "--to", "STORE"], 2, "which artifacts?"),
        (["push", "toy"], 2, "--to URL"),
        (["pull", "toy"], 2, "--from URL"),
        (["push", "--all", "toy", "--to", "STORE"], 2, "not both"),
        (["push", "nothing", "--to", "STORE"], 2, "no recipe"),
        (["push", "toy", "--ref", "7", "--to", "STORE"], 2, "there is no toy"),
        (["push", "abcdef", "--to", "STORE"], 2, "no artifact's hash begins"),
        (["push", "toy", "--to", "read:STORE"], 2, "read-only"),
        (["push", "toy", "--to", "x.artcache"], 6, "can only be read"),
        (["push", "toy", "--to", "https://127.0.0.1/x"], 6, "can only be read"),
        (["pull", "--all", "--from", "https://127.0.0.1/x"], 2, "cannot be listed"),
        (["restore", "none.artcache"], 6, "No such file"),
        (["save", "none/x.artcache", "toy"], 7, "No such file"),
        (["save", "x.artcache", "--recipe", "other"], 2, "nothing to save in the home"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_what_cannot_be_done_is_said(
    machine: Machine, words: list[str], code: int, said: str
) -> None:
    machine.run("fetch", "toy")
    words = [word.replace("STORE", str(machine.store)) for word in words]
    done = machine.run(*words)
    assert (done.code, done.out) == (code, "")
    assert said in done.err
    assert not machine.store.exists()


def test_of_several_stores_one_that_does_not_answer_is_one_warning(machine: Machine) -> None:
    hash_ = machine.run("fetch", "toy", "--store", machine.store, "--json").json["result"]["key"]
    away = {"ARTCACHE_STORES": f"https://127.0.0.1:9/x,{machine.store}"}
    for number, words in enumerate((["toy"], [hash_[:9]])):
        away["ARTCACHE_DIR"] = str(machine.folder / f"away{number}")
        done = machine.run("pull", *words, **away)
        assert f"pulled from {machine.store}" in done.out, done.err
        assert done.err.count("warning:") == 1


@pytest.mark.parametrize("request_", [1, 2], ids=["root", "pack"])
def test_killed_in_mid_push_leaves_no_manifest(
    machine: Machine, gcs_url: str, monkeypatch: pytest.MonkeyPatch, request_: int
) -> None:
    machine.run("fetch", "toy", "--set", "SIZE=9000000")
    name = make_gcs_bucket(gcs_url)
    words = ("push", "--all", "--to", f"gs://{name}/cache")
    with fault_proxy(gcs_url) as proxy:

        def uploads() -> int:
            return sum(asked.method == "POST" for asked in proxy.requests)

        proxy.plan(Fault(keep=0, then="hang"), when=lambda asked: uploads() >= request_)
        machine.env["STORAGE_EMULATOR_HOST"] = proxy.url
        process = machine.start(*words)
        until = time.monotonic() + 30
        while uploads() < request_:
            assert time.monotonic() < until
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate(timeout=30)
    machine.env["STORAGE_EMULATOR_HOST"] = gcs_url
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    store = open_store(f"gs://{name}/cache")
    assert list(store.list("v1/manifests")) == []
    assert machine.run(*words).code == 0
    assert len(list(store.list("v1/manifests"))) == 1


def test_a_large_tree_goes_across_an_air_gap_in_one_file(bench: Bench) -> None:
    bench.content = os.urandom(30_000_000)
    cache, away, file = bench.cache("a"), bench.cache("b"), bench.folder / "a.artcache"
    (built,) = bench.built(cache)
    list(save(cache, bench.chosen(cache, None), file))
    assert file.stat().st_size > 30_000_000
    bench.pull(away, open_archive(file))
    entry = away.home.lookup(built.key, verify=True)
    assert entry and picture(entry.path) == picture(built.path)


def test_a_save_that_is_broken_off_leaves_nothing(bench: Bench) -> None:
    cache, file = bench.cache(), bench.folder / "a.artcache"
    bench.built(cache, "1", "2")
    before = os.listdir(bench.folder)
    moves = save(cache, bench.chosen(cache, None), file)
    assert next(iter(moves)).state == "copied"
    assert len(os.listdir(bench.folder)) == len(before) + 1
    moves.close()  # type: ignore[attr-defined]
    assert os.listdir(bench.folder) == before


def test_the_same_artifact_makes_the_same_file_everywhere(machine: Machine) -> None:
    asked = ("toy", "--set", "SIZE=30000000")
    tree = Path(machine.run("fetch", *asked).out.strip())
    saved = machine.run("save", "a.artcache", *asked)
    assert saved.code == 0
    assert f"saved in {machine.work}/a.artcache (30.0 MB)" in saved.out
    before = picture(tree)

    away = {"ARTCACHE_DIR": str(machine.folder / "away")}
    assert machine.run("restore", "a.artcache", **away).code == 0
    hit = machine.run("fetch", *asked, "--build", "never", **away)
    assert picture(Path(hit.out.strip())) == before

    machine.run("save", "b.artcache", *asked, **away)
    one, two = machine.work / "a.artcache", machine.work / "b.artcache"
    assert one.read_bytes() == two.read_bytes()  # the same artifact, the same file


def test_the_file_is_a_store_to_read_from(machine: Machine) -> None:
    machine.run("fetch", "toy")
    machine.run("save", "a.artcache", "--all")
    away = {"ARTCACHE_DIR": str(machine.folder / "away"), "ARTCACHE_STORES": "read:a.artcache"}

    listed = machine.run("ls", "--json", **away).json["result"]
    assert [row["where"] for row in listed] == ["a.artcache"]
    assert "all sound" in machine.run("verify", "--deep", **away).err
    fetched = machine.run("fetch", "toy", "--json", **away)
    assert fetched.json["result"]["origin"] == "a.artcache"
    assert not fetched.json["warnings"]


def test_a_stranger_unzips_it_and_has_a_store(machine: Machine) -> None:
    machine.run("fetch", "toy")
    machine.run("save", "a.artcache", "--all")
    with zipfile.ZipFile(machine.work / "a.artcache") as file:
        assert file.testzip() is None
        file.extractall(machine.work / "unzipped")
    away = {"ARTCACHE_DIR": str(machine.folder / "away")}

    done = machine.run("fetch", "toy", "--store", "unzipped", "--build", "never", "--json", **away)

    assert done.json["result"]["origin"] == "unzipped"
    assert not done.json["warnings"]


def test_a_folder_that_a_stranger_zipped_is_restored(machine: Machine) -> None:
    machine.run("fetch", "toy", "--store", machine.store)
    shutil.make_archive(str(machine.work / "deflated"), "zip", machine.store)
    with zipfile.ZipFile(machine.work / "s.artcache", "w") as out:
        for path in sorted(machine.store.rglob("*")):
            if not any(part.startswith(".") for part in path.parts):
                out.write(path, path.relative_to(machine.store))
    away = {"ARTCACHE_DIR": str(machine.folder / "away")}

    assert machine.run("restore", "s.artcache", **away).code == 0
    assert machine.run("fetch", "toy", "--build", "never", **away).code == 0
    squeezed = machine.run("restore", "deflated.zip", **away)
    assert squeezed.code == 5
    assert "is compressed" in squeezed.err


def test_a_damaged_file_restores_nothing(machine: Machine) -> None:
    machine.run("fetch", "toy")
    machine.run("save", "a.artcache", "--all")
    file = machine.work / "a.artcache"
    file.write_bytes(file.read_bytes()[:-30])
    away = {"ARTCACHE_DIR": str(machine.folder / "away")}

    done = machine.run("restore", "a.artcache", "--json", **away)

    assert (done.code, done.json["error"]["code"]) == (5, "bad-archive")
    assert not list((machine.folder / "away").glob("v1/entries/*/*"))
    verified = machine.run("verify", "--deep", "--store", "a.artcache", **away)
    assert verified.code == 6
    assert "could not be checked" in verified.err
    built = machine.run("fetch", "toy", "--store", "a.artcache", **away)
    assert built.code == 0
    assert built.err.count("warning:") == 1


def test_a_damaged_pack_in_a_file_is_one_warning_and_the_rest_is_restored(
    machine: Machine,
) -> None:
    machine.run("fetch", "toy")
    machine.run("fetch", "toy", "--ref", "2", "--set", "WORD=two")
    machine.run("save", "a.artcache", "--all")
    file = machine.work / "a.artcache"
    data = bytearray(file.read_bytes())
    data[data.index(b".pack") + 10] ^= 1
    file.write_bytes(data)
    away = {"ARTCACHE_DIR": str(machine.folder / "away")}

    verified = machine.run("verify", "--deep", "--store", "a.artcache", **away)
    assert verified.code == 5
    done = machine.run("restore", "a.artcache", **away)
    assert done.code == 5
    assert done.out.count("restored from") == 1
    assert done.err.count(".pack is corrupt") == 1
    assert "1 of 2 artifacts failed" in done.err


def test_a_file_is_not_replaced_unless_it_is_said(machine: Machine) -> None:
    machine.run("fetch", "toy")
    (machine.work / "a.artcache").write_text("precious")

    done = machine.run("save", "a.artcache", "--all")
    assert (done.code, (machine.work / "a.artcache").read_text()) == (5, "precious")
    assert "--force" in done.err
    assert machine.run("save", "a.artcache", "--all", "--force").code == 0
    assert (machine.work / "a.artcache").read_bytes()[:4] == b"PK\3\4"


def test_what_cannot_be_saved_is_left_out_and_said(machine: Machine) -> None:
    first = Path(machine.run("fetch", "toy").out.strip())
    machine.run("fetch", "toy", "--ref", "2")
    (first / "bin/toy").write_text("#!/bin/sh\necho evil\n")

    assert machine.run("save", "a.artcache", "--all").code == 5
    assert len(machine.run("ls", "--store", "a.artcache", "--dir", "none").out.splitlines()) == 2
    assert machine.run("save", "b.artcache", "--ref", "9", "toy").code == 2
    assert not (machine.work / "b.artcache").exists()


def test_one_failure_is_told_once(machine: Machine) -> None:
    machine.run("fetch", "toy")
    (machine.work / "file").touch()

    done = machine.run("push", "toy", "--to", "file/store")
    assert (done.code, done.err.count("Not a directory")) == (6, 1)


@pytest.mark.parametrize(
    "words", [("push", "--to", "a", "--to", "b"), ("pull", "--from", "a", "--from", "b")]
)
def test_two_targets_are_not_one_in_silence(machine: Machine, words: tuple[str, ...]) -> None:
    done = machine.run(words[0], "--all", *words[1:])
    assert done.code == 2
    assert f"{words[1]} names one store" in done.err


def test_a_store_that_holds_nothing_is_named(machine: Machine) -> None:
    """So that a typing error in its URL is seen."""
    words = {
        ("pull", "--all", "--from", "typo"): "nothing to be pulled from typo",
        ("ls", "--store", "typo"): "nothing yet in the home, typo",
        ("wanted", "--store", "typo"): "nothing is wanted in typo",
        ("build", "--wanted", "--store", "typo"): "nothing is wanted in typo",
        ("wanted",): "no store is configured",
        ("ls", "typo"): "nothing of typo in the home",
    }
    for command, told in words.items():
        done = machine.run(*command)
        assert (done.code, told in done.err) == (0, True), done.err
    assert not (machine.work / "typo").exists()


def test_through_a_pipe(machine: Machine) -> None:
    machine.run("fetch", "toy", "--set", "SIZE=3000000")
    machine.run("save", "a.artcache", "--all")
    piped = subprocess.run(
        machine.command("save", "-", "--all"),
        env=machine.env, cwd=machine.work, capture_output=True, check=True,
    )  # fmt: skip
    assert piped.stdout == (machine.work / "a.artcache").read_bytes()
    assert b"saved in stdout" in piped.stderr
    done = subprocess.run(
        machine.command("restore", "-", "--json"),
        env={**machine.env, "ARTCACHE_DIR": str(machine.folder / "away")},
        cwd=machine.work, input=piped.stdout, capture_output=True, check=True,
    )  # fmt: skip
    assert b'"state": "copied"' in done.stdout
    assert not list((machine.folder / "away/v1/tmp").iterdir())
