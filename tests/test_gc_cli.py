"""`gc`, `pin`, `unpin` and the listing, as a user types them."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from servers import make_gcs_bucket

from tests.toy import Machine
from tests.world import small_disk

DAY = 86400.0


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def fetched(machine: Machine, ref: str, *words: str, days: float = 0) -> str:
    """Fetch a toy, used so many days ago; its hash."""
    done = machine.run("fetch", "toy", "--ref", ref, "--json", *words)
    path, hash_ = (done.json["result"][name] for name in ("path", "key"))
    then = time.time() - days * DAY
    os.utime(Path(path).parent / "seal.json", (then, then))
    return str(hash_)


def listed(machine: Machine, *words: str) -> list[dict[str, Any]]:
    return list(machine.run("ls", "--json", *words).json["result"])


def test_gc_removes_from_the_home_what_was_not_used(machine: Machine) -> None:
    old, new = fetched(machine, "1", days=40), fetched(machine, "2")

    would = machine.run("gc", "--older-than", "30d", "--dry-run")
    assert f"would remove artifact toy {old[:12]}" in would.out
    assert "1 would go" in would.err
    assert len(listed(machine)) == 2

    done = machine.run("gc", "--older-than", "30d", "--json").json["result"]
    (removed,) = done["removed"]
    assert (removed["place"], removed["kind"], removed["key"]) == ("home", "artifact", old)
    assert done["freed"] == removed["size"] > 0
    assert [row["key"] for row in listed(machine)] == [new]


def test_gc_without_rules_says_that_there_is_nothing(machine: Machine) -> None:
    fetched(machine, "1", days=400)
    done = machine.run("gc")
    assert (done.code, done.out) == (0, "")
    assert done.err.startswith("nothing to remove; --max-size 5G")


def test_a_full_store_can_be_emptied(machine: Machine, tmp_path: Path) -> None:
    with small_disk(tmp_path / "small", 4 << 20) as disk:
        store = disk / "store"
        old = fetched(machine, "1", "--set", "NOISE=100000", "--store", str(store))
        with contextlib.suppress(OSError), (disk / "rest").open("wb") as rest:
            while True:
                rest.write(bytes(4096))
                rest.flush()

        push = machine.run("push", old[:12], "--to", disk / "other")
        assert push.code == 6
        assert f"{disk / 'other'} is full" in push.err
        assert "artcache gc --store" in push.err

        gc = machine.run("gc", "--store", store, "--max-size", "0", "--grace", "0", "--yes")
        assert gc.code == 0, gc.err
        assert "start no other until it ends" in gc.err
        assert old[:12] in gc.out
        assert not list(store.rglob("*.pack"))


def test_a_store_that_does_not_answer_holds_the_next_one_up_in_nothing(machine: Machine) -> None:
    hash_ = fetched(machine, "1", "--store", "store")
    silent = "gs://bucket/folder"

    done = machine.run(
        "gc", "--store", silent, "--store", "store", "--max-size", "0", "--yes",
        STORAGE_EMULATOR_HOST="http://127.0.0.1:9",
    )  # fmt: skip
    assert done.code == 6
    assert f"removed artifact toy {hash_[:12]}" in done.out
    assert f"{silent} could not be collected" in done.err


def test_rm_takes_it_out_of_a_store_that_nobody_configured(machine: Machine) -> None:
    fetched(machine, "1", "--store", "store")

    assert machine.run("rm", "toy", "--ref", "1", "--from", "store").code == 0
    assert [row["where"] for row in listed(machine, "--store", "store")] == ["home"]


def test_a_pin_in_a_home_that_cannot_be_written_is_the_local_disk_s_fault(
    machine: Machine, tmp_path: Path
) -> None:
    with small_disk(tmp_path / "small", 4 << 20) as disk:
        home = str(disk / "home")
        machine.run("fetch", "toy", ARTCACHE_DIR=home)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)

        done = machine.run("pin", "toy", ARTCACHE_DIR=home)
        assert done.code == 7
        assert "set ARTCACHE_DIR" in done.err


def test_gc_of_what_is_not_there_makes_nothing(machine: Machine) -> None:
    assert machine.run("gc", "--max-size", "0").err == "nothing to remove\n"
    assert not machine.home.exists()
    assert machine.run("gc", "--store", machine.store, "--yes", "--grace", "0").code == 0
    assert not machine.store.exists()


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--max-size", "5X"), "5G"),
        (("--older-than", "30"), "30d"),
        (("--grace", "x"), "30d"),
        (("--keep-last", "-1"), "keep-last"),
        (("--dry-run", "--yes"), "exclude each other"),
    ],
)
def test_what_cannot_be_meant_is_refused_and_nothing_goes(
    machine: Machine, words: tuple[str, ...], told: str
) -> None:
    fetched(machine, "1")
    done = machine.run("gc", *words)
    assert done.code == 2
    assert told in done.err
    assert len(listed(machine)) == 1


def test_a_pin_in_the_home_holds_until_it_is_taken_back(machine: Machine) -> None:
    kept, other = fetched(machine, "1", days=40), fetched(machine, "2", days=40)
    pinned = machine.run("pin", kept[:6], "--keep-days", "90")
    assert pinned.out == f"pinned toy {kept[:12]} in home for 90 days\n"
    assert "for 89 d" in machine.run("ls").out
    assert "pinned for 89 d" in machine.run("info", kept[:6]).out

    removed = machine.run("gc", "--older-than", "0", "--json").json["result"]["removed"]
    assert [one["key"] for one in removed] == [other]
    (row,) = listed(machine)
    assert row["pinned"] and row["pinned_until"] > time.time() + 80 * DAY

    assert f"unpinned toy {kept[:12]}" in machine.run("unpin", kept[:6]).out
    machine.run("gc", "--older-than", "0")
    assert listed(machine) == []


def test_a_pin_by_recipe_is_of_what_a_fetch_would_use_and_all_go_at_once(machine: Machine) -> None:
    fetched(machine, "2")
    hash_ = fetched(machine, "1")
    assert machine.run("pin", "toy", "--ref", "1", "--json").json["result"] == [
        {"where": "home", "recipe": "toy", "key": hash_, "days": None}
    ]
    assert "forever" in machine.run("ls").out
    assert len(machine.run("unpin", "--all", "--json").json["result"]) == 1
    assert machine.run("unpin", "--all").err == "there was no pin\n"
    assert machine.run("unpin").code == 2


def test_a_pin_where_the_artifact_is_not_says_where_it_is(machine: Machine) -> None:
    hash_ = fetched(machine, "1")
    fetched(machine, "2", "--store", str(machine.store))
    in_store = machine.run("ls", "--json", "--store", machine.store).json["result"][-1]["key"]

    done = machine.run("pin", hash_, "--store", machine.store)
    assert done.code == 2
    assert "it is in home" in done.err

    machine.run("rm", in_store)
    done = machine.run("pin", in_store, ARTCACHE_STORES=str(machine.store))
    assert done.code == 2
    assert f"add --store {machine.store}" in done.err
    assert machine.run("pin", in_store, "--store", machine.store).code == 0
    (row,) = [r for r in listed(machine, "--store", str(machine.store)) if r["where"] != "home"]
    assert row["pinned"]
    refused = machine.run("pin", in_store, "--store", f"read:{machine.store}")
    assert (refused.code, "read-only" in refused.err) == (2, True)


def test_a_listing_ends_at_its_limit(machine: Machine) -> None:
    for ref in "123":
        fetched(machine, ref)
    assert len(listed(machine, "--limit", "2")) == 2
    assert machine.run("ls", "--limit", "2").out.count("\n") == 3
    assert machine.run("ls", "--limit", "0").code == 2


def test_a_listing_that_fails_half_way_is_one_json_object_still(machine: Machine) -> None:
    """Rows were written before the error was known."""
    fetched(machine, "1")
    code = (
        "import artcache.survey as survey\n"
        "from artcache.errors import Corrupt\n"
        "rows = survey.home_rows\n"
        "def broken(cache, recipe=None):\n"
        "    yield from rows(cache, recipe)\n"
        "    raise Corrupt('it broke')\n"
        "survey.home_rows = broken\n"
    )
    (machine.toy / "sitecustomize.py").write_text(code)
    done = machine.run("ls", "--json")
    assert done.code == 5
    body = json.loads(done.out)
    assert (len(body["result"]), body["ok"], body["error"]["message"]) == (1, False, "it broke")


# -- stores -------------------------------------------------------------------------------


@pytest.fixture
def shared(machine: Machine) -> Machine:
    """A machine whose store has two toys, made three days ago."""
    for ref in "12":
        machine.run("fetch", "toy", "--ref", ref, "--set", f"WORD={ref}", "--store", machine.store)
    then = time.time() - 3 * DAY
    for path in machine.store.rglob("*.*"):
        os.utime(path, (then, then))
    return machine


def test_a_store_is_only_looked_at_unless_yes_is_said(shared: Machine) -> None:
    would = shared.run("gc", "--store", shared.store, "--older-than", "2d")
    assert would.out.count("would remove artifact toy") == 2
    assert "4 would go" in would.err and "--yes does it" in would.err  # two leases too
    assert len(shared.manifests()) == 2

    done = shared.run("gc", "--store", shared.store, "--older-than", "2d", "--yes", "--json")
    result = done.json["result"]
    assert {one["place"] for one in result["removed"]} == {str(shared.store)}
    assert (result["dry_run"], len(result["removed"])) == (False, 4)
    assert result["later"] > 0
    assert shared.manifests() == shared.packs() == []
    assert len(list(shared.store.glob("v1/trash/*/*.pack"))) == 2


def test_the_home_stays_when_a_store_is_named_and_the_other_way_round(shared: Machine) -> None:
    shared.run("gc", "--store", shared.store, "--older-than", "0", "--yes")
    assert len(listed(shared)) == 2
    shared.run("gc", "--older-than", "0", ARTCACHE_STORES=str(shared.store))
    assert listed(shared) == []


def test_everything_at_once_leaves_an_empty_store_that_works(shared: Machine) -> None:
    everything = ("gc", "--older-than", "0d", "--yes", "--grace", "0", "--store", shared.store)
    shared.run(*everything)
    files = [path.name for path in shared.store.rglob("*") if path.is_file()]
    assert [name for name in files if name != ".lock"] == ["artcache.json"]
    shared.run("gc", "--older-than", "0")

    assert shared.run("fetch", "toy", "--store", shared.store).code == 0
    shared.run("gc", "--older-than", "0")
    again = shared.run("fetch", "toy", "--store", shared.store, "--json", "--build", "never")
    assert again.json["result"]["origin"] == str(shared.store)


def test_a_store_that_is_read_only_here_can_be_looked_at_and_not_collected(
    shared: Machine,
) -> None:
    store = f"read:{shared.store}"
    assert "4 would go" in shared.run("gc", "--store", store, "--older-than", "2d").err
    refused = shared.run("gc", "--store", store, "--older-than", "2d", "--yes")
    assert (refused.code, "read-only" in refused.err) == (2, True)
    assert len(shared.manifests()) == 2


def test_a_store_that_is_not_there_is_said(machine: Machine) -> None:
    done = machine.run("gc", "--store", machine.store, "--yes", "--max-size", "1G")
    assert (done.code, done.err) == (0, f"{machine.store} holds nothing\nnothing to remove\n")


def test_a_bucket_is_collected_like_a_folder(machine: Machine, gcs_url: str) -> None:
    store = f"gs://{make_gcs_bucket(gcs_url)}/cache"
    env = {"STORAGE_EMULATOR_HOST": gcs_url}
    assert machine.run("fetch", "toy", "--store", store, **env).code == 0
    assert machine.run("pin", "toy", "--store", store, **env).code == 0
    everything = ("gc", "--store", store, "--older-than", "0", "--grace", "0")
    assert machine.run(*everything, "--yes", **env).err == "nothing to remove\n"
    assert machine.run("unpin", "--all", "--store", store, **env).code == 0
    assert "1 would go" in machine.run(*everything, **env).err
    assert "1 removed" in machine.run(*everything, "--yes", **env).err
    assert len(machine.run("ls", "--store", store, "--json", **env).json["result"]) == 1  # home
