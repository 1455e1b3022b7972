"""Wanted lists: what some machines miss and cannot build, others build."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from test_cache import Told
from test_remote_cache import Bucket, bucket  # noqa: F401
from toy import Machine, Ran

import artcache
from artcache import cache as caches
from artcache import fulfil, wanted
from artcache.errors import CacheMiss, UnknownRecipe
from artcache.home import Home
from artcache.key import Key
from artcache.stores.posix import PosixStore
from artcache.tier import Tier
from artcache.toolchain import CudaVersion, Gpu


def machine_at(folder: Path, name: str, *stores: object) -> Machine:
    (folder / name).mkdir()
    machine = Machine(folder / name)
    machine.env["ARTCACHE_STORES"] = ",".join(map(str, stores))
    return machine


def records(store: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_bytes()) for path in sorted(store.glob("v1/wanted/*/*.json"))]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "store"


# -- the story ----------------------------------------------------------------------------


def test_what_one_machine_missed_another_builds_and_the_first_fetches(
    tmp_path: Path, store: Path
) -> None:
    wanter, builder = machine_at(tmp_path, "wanter", store), machine_at(tmp_path, "builder", store)
    words = ("fetch", "toy", "--arch", "sm_75", "--set", "WORD=good day", "--build", "never")

    missed = wanter.run(*words, "--json")
    assert missed.code == 3
    assert str(store) in missed.json["error"]["hint"]
    assert "artcache build --wanted" in missed.json["error"]["hint"]
    listed = builder.run("wanted", "--json").json["result"]
    assert [(row["recipe"], row["fields"]["arch"]) for row in listed] == [("toy", ["sm_75"])]

    done = builder.run("build", "--wanted", "--json")
    assert done.code == 0, done.err
    (row,) = done.json["result"]
    assert (row["outcome"], row["built"]["origin"]) == ("built", "built")
    assert records(store) == []
    assert wanter.run(*words, "--json").json["result"]["origin"] == str(store)


def test_several_wanters_in_two_stores_each_get_theirs(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    builder = machine_at(tmp_path, "builder", one, two)
    asks = {
        "a": (one, ("--arch", "sm_75")),
        "b": (one, ("--arch", "sm_80")),
        "c": (two, ("--arch", "sm_75")),
        "d": (two, ("--set", "WORD=bye")),
    }
    for name, (place, words) in asks.items():
        machine_at(tmp_path, name, place).run("fetch", "toy", *words, "--build", "never")

    counter = tmp_path / "counter"
    done = builder.run("build", "--wanted", "toy", "--json", TOY_COUNTER=str(counter))

    outcomes = sorted(row["outcome"] for row in done.json["result"])
    assert outcomes == ["built", "built", "built", "served"]  # sm_75 went to both stores
    assert counter.read_text().count("built") == 3
    assert records(one) == records(two) == []
    for name, (place, words) in asks.items():
        again = tmp_path / f"again {name}"
        again.mkdir()
        machine = machine_at(again, name, place)
        assert machine.run("fetch", "toy", *words, "--build", "never").code == 0


def test_a_build_that_is_impossible_here_is_wanted_too(tmp_path: Path, store: Path) -> None:
    machine = machine_at(tmp_path, "machine", store)
    done = machine.run("fetch", "toy", "--json", TOY_FAIL="tool")
    assert (done.code, done.json["error"]["code"]) == (1, "missing-tool")
    assert "wanted list" in done.json["error"]["hint"]
    assert len(records(store)) == 1
    machine.run("fetch", "toy", "--set", "WORD=other", TOY_FAIL="compile")
    assert len(records(store)) == 1  # a build that is only broken is nobody's wish


def test_a_failed_build_keeps_the_record_and_the_others_are_built(
    tmp_path: Path, store: Path
) -> None:
    machine = machine_at(tmp_path, "machine", store)
    for word in ("one", "two"):
        machine.run("fetch", "toy", "--set", f"WORD={word}", "--build", "never")
    done = machine.run("build", "--wanted", "--json", TOY_FAIL="compile")
    assert (done.code, done.json["error"]["code"]) == (1, "build-failed")
    assert "2 of 2" in done.json["error"]["message"]
    assert len(records(store)) == 2
    assert machine.run("build", "--wanted").code == 0
    assert records(store) == []


def test_what_exists_meanwhile_is_dropped_without_a_build(tmp_path: Path, store: Path) -> None:
    machine = machine_at(tmp_path, "machine", store)
    machine.run("fetch", "toy", "--build", "never")
    machine.run("build", "toy")
    done = machine.run("build", "--wanted", "--json")
    assert [row["outcome"] for row in done.json["result"]] == ["served"]
    assert records(store) == []


def test_what_the_builder_s_home_has_already_is_published(tmp_path: Path, store: Path) -> None:
    machine = machine_at(tmp_path, "machine", store)
    machine.run("fetch", "toy", "--store", tmp_path / "elsewhere")
    shutil.rmtree(tmp_path / "elsewhere")
    machine_at(tmp_path, "wanter", store).run("fetch", "toy", "--build", "never")
    done = machine.run("build", "--wanted", "--json", TOY_FAIL="compile")
    assert [row["reason"] for row in done.json["result"]] == ["copied from the home"]
    assert records(store) == []


def test_asking_again_is_counted(tmp_path: Path, store: Path) -> None:
    machine = machine_at(tmp_path, "machine", store)
    for _ in range(3):
        machine.run("fetch", "toy", "--build", "never")
    (record,) = records(store)
    assert record["asked"] == 3


def test_buckets_have_wanted_lists(bucket: Bucket, tmp_path: Path) -> None:  # noqa: F811
    wanter, builder = (machine_at(tmp_path, name, bucket.url) for name in ("one", "two"))
    for _ in range(2):
        assert wanter.run("fetch", "toy", "--build", "never").code == 3
    (row,) = builder.run("wanted", "--json").json["result"]
    assert (row["where"], row["asked"]) == (bucket.url, 2)
    assert builder.run("build", "--wanted").code == 0
    assert builder.run("wanted", "--json").json["result"] == []
    assert wanter.run("fetch", "toy", "--build", "never").code == 0


# -- where a record is left, and what is in it --------------------------------------------


def test_the_first_store_that_may_be_written_and_answers_gets_it(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad", tmp_path / "good"
    bad.write_text("a file stands where the store should be")
    machine = machine_at(tmp_path, "machine", f"read:{tmp_path / 'mirror'}", bad, good)
    done = machine.run("fetch", "toy", "--build", "never", "--json")
    assert done.code == 3
    assert len(records(good)) == 1
    assert not done.json["warnings"]


def test_read_only_stores_get_none(tmp_path: Path, store: Path) -> None:
    machine = machine_at(tmp_path, "machine", f"read:{store}")
    done = machine.run("fetch", "toy", "--build", "never", "--json")
    assert "wanted" not in done.json["error"]["hint"]
    assert not store.exists()


def test_a_record_that_cannot_be_written_is_told_with_v_alone(tmp_path: Path, store: Path) -> None:
    (store / "v1").mkdir(parents=True)
    (store / "v1" / "wanted").write_text("in the way")
    machine = machine_at(tmp_path, "machine", store)
    quiet = machine.run("fetch", "toy", "--build", "never")
    loud = machine.run("fetch", "toy", "--build", "never", "-v")
    assert (quiet.code, loud.code) == (3, 3)
    assert "wanted" not in quiet.err
    assert f"not on the wanted list of {store}" in loud.err


def test_a_drive_mount_keeps_one_record_that_is_never_replaced(tmp_path: Path) -> None:
    drive = PosixStore(tmp_path / "drive", mount_like=True)
    for number in range(2):
        cache = artcache.Cache([drive], home=tmp_path / f"home {number}")
        with pytest.raises(CacheMiss):
            cache.fetch(artcache.make_recipe("thing", fields={})(print), build="never")
    (record,) = records(tmp_path / "drive")
    assert record["asked"] == 1


HOST = artcache.HostFacts(
    libc="glibc2.36",
    gpus=(Gpu("Tesla T4", 75),),
    driver="580.65.06",
    driver_cuda=CudaVersion(13, 0),
    service="colab",
)


class Bench:
    """Machines of any kind with one recipe by name, and one store."""

    def __init__(self, store: Path, recipe: artcache.Recipe) -> None:
        self.store, self._recipe = store, recipe

    def cache(self, name: str, host: artcache.HostFacts = HOST, **more: Any) -> caches.Cache:
        self.told = Told()

        def find(name: str) -> artcache.Recipe:
            if name != self._recipe.name:
                raise UnknownRecipe(f"no recipe is called {name!r}")
            return self._recipe

        return caches.Cache(
            Home(self.store.parent / name),
            [Tier(PosixStore(self.store), **more)],
            host=lambda: host,
            recipes=find,
            libraries=set,
            observer=self.told,
        )

    def miss(self, request: artcache.Request | None = None, **more: Any) -> dict[str, Any] | None:
        with pytest.raises(CacheMiss):
            self.cache("wanter", **more).fetch(self._recipe.name, request, build="never")
        found = records(self.store)
        return found[0] if found else None

    def fulfil(self, host: artcache.HostFacts = HOST, **options: Any) -> list[fulfil.Fulfilled]:
        cache = self.cache("builder", host)
        return [fulfil.fulfil(cache, one, **options) for one in wanted.listed(cache)]


class Program(artcache.Recipe):
    """A C library; it needs no more of glibc than it says."""

    name = "program"
    options = {"WORD": "any word"}  # noqa: RUF012

    def key_fields(self, host: artcache.HostFacts, request: artcache.Request) -> dict[str, Any]:
        return {
            "commit": request.ref or "1",
            "source": "https://example.org/program",
            "libc": host.libc,
            "platform": host.platform,
            "options": [f"{name}={value}" for name, value in request.options.items()],
        }

    def build(self, context: artcache.BuildContext) -> None:
        source = context.scratch / "a.c"
        source.write_text(self.code)
        words = ["cc", "-shared", "-nostartfiles", "-o", context.tree / "a.so", source]
        context.runner.run(words)

    code = "int main(void) { return 0; }"


@pytest.fixture
def bench(store: Path) -> Bench:
    return Bench(store, Program())


def test_a_record_says_what_the_host_is(bench: Bench) -> None:
    record = bench.miss()
    assert record is not None
    assert record["host"] == {
        "platform": "linux-x86_64",
        "libc": "glibc2.36",
        "gpus": [[75, False]],
        "driver": "580.65.06",
        "driver_cuda": "13.0",
        "service": "colab",
    }
    assert record["match"] == "compatible"
    assert len(json.dumps(record)) < wanted.LIMIT


@pytest.mark.parametrize(
    "secret",
    [
        artcache.Request(source="https://me:t0ken@example.org/program"),
        artcache.Request(source="git@example.org:program.git", toolchain="/opt/mine"),
        artcache.Request(toolchain="~/cuda"),
    ],
)
def test_no_secret_and_no_folder_of_this_machine_is_in_a_record(
    bench: Bench, secret: artcache.Request, isolated: Path
) -> None:
    bench.miss(secret)
    (path,) = bench.store.glob("v1/wanted/*/*.json")
    text = path.read_text()
    for word in ("t0ken", "me:", "git@", "/opt", "~", str(isolated), "Tesla"):
        assert word not in text
    assert wanted._decoded(path.read_bytes(), "program", path.stem).request.ref in ("1", None)


def test_what_only_this_machine_has_is_no_wish_for_others(
    bench: Bench, tmp_path: Path, isolated: Path
) -> None:
    request = artcache.Request(options={"WORD": f"{isolated}/secret"})
    assert bench.miss(request) is None
    assert any("own files" in line for line in bench.told.lines)


# -- whom an artifact serves --------------------------------------------------------------


def test_one_that_provably_runs_on_the_wanter_s_host_serves(bench: Bench) -> None:
    bench.miss()
    (done,) = bench.fulfil(HOST._replace(libc="glibc2.31", gpus=(), driver=None))
    assert (done.outcome, records(bench.store)) == ("built", [])
    served = bench.cache("wanter").fetch("program", build="never")
    assert served.key.get("libc") == "glibc2.31"


def test_one_that_does_not_run_there_leaves_the_record_and_is_not_built_twice(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.miss(host=HOST._replace(libc="glibc2.1"))
    monkeypatch.setattr(
        Program,
        "code",
        "#include <string.h>\nvoid *m(void *a, void *b) { return memcpy(a, b, 9); }",
    )
    for outcome in ("built", None):
        (done,) = bench.fulfil()
        assert done.outcome == "kept"
        assert "glibc" in done.reason
        assert bool(done.built) == bool(outcome)
        assert len(records(bench.store)) == 1


def test_who_asked_for_the_exact_one_is_not_served_by_another(bench: Bench) -> None:
    with pytest.raises(CacheMiss):
        bench.cache("wanter").fetch("program", build="never", match="exact")
    (done,) = bench.fulfil(HOST._replace(libc="glibc2.31"))
    assert (done.outcome, done.built) == ("kept", None)
    assert "libc: glibc2.31, wanted glibc2.36" in done.reason


def test_another_recipe_version_is_told(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.miss()
    monkeypatch.setattr(Program, "version", "2")
    (done,) = bench.fulfil()
    assert "recipe_version: 2, wanted 1" in done.reason


def test_a_source_or_commit_of_its_own_is_built_only_if_that_is_allowed(bench: Bench) -> None:
    bench.miss(artcache.Request(ref="evil"))
    (kept,) = bench.fulfil()
    assert (kept.outcome, kept.built) == ("kept", None)
    assert "--any-source" in kept.reason
    (done,) = bench.fulfil(any_source=True)
    assert done.outcome == "built"


# -- strangers' records -------------------------------------------------------------------


def hostile(record: dict[str, Any]) -> dict[str, bytes]:
    """Records by what is wrong with them."""

    def changed(**members: Any) -> bytes:
        return json.dumps({**record, **members}).encode()

    request = record["request"]
    return {
        "too big": changed(more="x" * wanted.LIMIT),
        "no JSON": b"{",
        "deep": b"[" * 9000,
        "no object": b"[1]",
        "a newer kind": changed(wanted=2),
        "another key": changed(key={**record["key"], "commit": "2"}),
        "no key": changed(key={"recipe": "../program"}),
        "an option for a command": changed(request={**request, "ref": "--upload-pack=touch x"}),
        "a control character": changed(request={**request, "source": "a\nb"}),
        "a folder": changed(request={**request, "toolchain": "a/b"}),
        "a wish that is unknown here": changed(request={**request, "run": "touch x"}),
        "no architecture": changed(request={**request, "archs": ["sm_99999"]}),
        "a list of options": changed(request={**request, "options": ["a"]}),
        "an option's value": changed(request={**request, "options": {"WORD": 1}}),
        "no host": changed(host=None),
        "no GPU": changed(host={**record["host"], "gpus": [["x", 1]]}),
        "no match": changed(match="anything"),
    }


@pytest.mark.parametrize("kind", list(hostile({"request": {}, "key": {}, "host": {}})))
def test_a_bad_record_is_told_and_skipped(bench: Bench, kind: str) -> None:
    record = bench.miss()
    assert record
    (path,) = bench.store.glob("v1/wanted/*/*.json")
    path.write_bytes(hostile(record)[kind])

    (done,) = bench.fulfil(any_source=True)

    assert (done.outcome, done.built) == ("kept", None)
    assert done.reason.startswith("it cannot be read: ")
    assert len(done.reason) < 200
    assert path.exists()


def test_an_unknown_recipe_and_unknown_options_are_told_and_skipped(bench: Bench) -> None:
    record = bench.miss()
    assert record
    folder = bench.store / "v1" / "wanted"
    shutil.rmtree(folder)
    for fields, request, why in (
        ({"recipe": "stranger"}, {}, "no recipe is called 'stranger'"),
        ({"recipe": "program"}, {"options": {"CC": "evil"}}, "no option 'CC'"),
    ):
        key = Key({**record["key"], **fields})
        body = {**record, "key": key.fields, "hash": key.hash, "request": request}
        path = folder / key.recipe / f"{key.hash}.json"
        path.parent.mkdir(parents=True)
        path.write_text(json.dumps(body))
        (done,) = bench.fulfil()
        assert (done.outcome, done.built) == ("kept", None)
        assert why in done.reason
        shutil.rmtree(folder)


def test_bad_records_are_listed_and_can_be_dropped(tmp_path: Path, store: Path) -> None:
    machine = machine_at(tmp_path, "machine", store)
    for word in ("one", "two"):
        machine.run("fetch", "toy", "--build", "never", "--set", f"WORD={word}")
    first, second = sorted(store.glob("v1/wanted/toy/*.json"))
    first.write_text("{")
    (store / "v1" / "wanted" / "toy" / "notes.txt").write_text("left alone")

    listed = machine.run("wanted", "--json")
    assert [bool(row["problem"]) for row in listed.json["result"]].count(True) == 1
    assert machine.run("build", "--wanted", "--json").code == 0
    assert (first.exists(), second.exists()) == (True, False)
    dropped = machine.run("wanted", first.stem[:8], "--drop")
    assert dropped.code == 0
    assert not first.exists()
    assert "nothing is wanted" in machine.run("wanted").err


def test_wanted_builds_nothing_else(tmp_path: Path, store: Path) -> None:
    machine = machine_at(tmp_path, "machine", store)
    assert machine.run("build", "--wanted", "--arch", "sm_75").code == 2
    assert machine.run("build").code == 2
    done: Ran = machine.run("build", "--wanted")
    assert (done.code, done.out) == (0, "")
    assert "nothing is wanted" in done.err


# -- a real program -----------------------------------------------------------------------


@pytest.mark.real
def test_a_darknet_that_is_wanted_is_built(tmp_path: Path, store: Path) -> None:
    wanter, builder = machine_at(tmp_path, "wanter", store), machine_at(tmp_path, "builder", store)
    words = ("fetch", "darknet", "--cuda", "none", "--source", "debian", "--json")
    assert wanter.run(*words, "--build", "never").code == 3
    done = builder.run("build", "--wanted", "darknet", "--json")
    assert [row["outcome"] for row in done.json["result"]] == ["built"], done.out
    fetched = wanter.run(*words, "--build", "never")
    assert fetched.json["result"]["origin"] == str(store)
    assert "darknet" in wanter.run("run", "darknet", "--source", "debian", "--cuda", "none").err
