"""The commands as a user types them, in processes of their own, over a toy recipe."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.toy import Machine


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_fetch_prints_the_path_and_nothing_else_on_stdout(machine: Machine) -> None:
    first = machine.run("fetch", "toy")
    second = machine.run("fetch", "toy")

    assert first.code == second.code == 0
    assert first.out == second.out
    assert (Path(first.out.rstrip("\n")) / "bin" / "toy").is_file()
    assert "built in" in first.err
    assert "from home in" in second.err


def test_quiet_says_nothing_at_all_on_stderr(machine: Machine) -> None:
    assert machine.run("fetch", "toy", "-q").err == ""


def test_progress_names_the_phases_and_can_be_turned_off(machine: Machine) -> None:
    shown = machine.run("fetch", "toy")
    silent = machine.run("fetch", "toy", "--ref", "2", "--no-progress")

    assert "artcache: compile toy" in shown.err
    assert "artcache:" not in silent.err


def test_verbose_shows_the_build_s_lines(machine: Machine) -> None:
    assert "  | hello" in machine.run("fetch", "toy", "-v").err


def test_to_makes_the_tree_appear_with_its_program(machine: Machine) -> None:
    done = machine.run("fetch", "toy", "--to", "here", "--set", "WORD=moo")

    assert done.out == f"{machine.work / 'here'}\n"
    ran = subprocess.run([machine.work / "here/bin/toy"], capture_output=True, text=True)
    assert ran.stdout == "moo\n"
    assert (machine.work / "here/data/link").read_text() == "cat\ndog\n"


def test_what_the_user_changed_there_stays_unless_overwritten(machine: Machine) -> None:
    machine.run("fetch", "toy", "--to", "here")
    names = machine.work / "here/data/names"
    names.write_text("mine\n")

    kept = machine.run("fetch", "toy", "--to", "here", "--json")
    assert names.read_text() == "mine\n"
    assert kept.json["result"]["kept"] == ["data/names"]

    machine.run("fetch", "toy", "--to", "here", "--overwrite")
    assert names.read_text() == "cat\ndog\n"


def test_somebody_else_s_file_in_the_way_is_refused_and_untouched(machine: Machine) -> None:
    (machine.work / "here/bin").mkdir(parents=True)
    (machine.work / "here/bin/toy").write_text("theirs")

    done = machine.run("fetch", "toy", "--to", "here")

    assert done.code == 5
    assert "bin/toy" in done.err
    assert (machine.work / "here/bin/toy").read_text() == "theirs"
    assert not (machine.work / "here/data").exists()


def test_uninstall_takes_out_exactly_what_was_put_there(machine: Machine) -> None:
    (machine.work / "here").mkdir()
    (machine.work / "here/mine").write_text("mine")
    machine.run("fetch", "toy", "--to", "here")

    assert machine.run("uninstall", "toy", "--from", "here").code == 0
    assert os.listdir(machine.work / "here") == ["mine"]


def test_run_becomes_the_program_with_its_arguments_and_exit_code(machine: Machine) -> None:
    done = machine.run("run", "-q", "toy", "--", "--json", "data/names", "none")
    tree = machine.run("fetch", "toy").out.rstrip("\n")

    assert done.out == f"hello --json {tree}/data/names none\n"
    assert machine.run("run", "toy", "--set", "WORD=$(exit 7) || exit 7 #").code in (0, 7)


def test_run_prefers_a_file_of_the_working_folder(machine: Machine) -> None:
    (machine.work / "data").mkdir()
    (machine.work / "data/names").touch()

    assert machine.run("run", "-q", "toy", "--", "data/names").out == "hello data/names\n"


def test_a_program_that_is_not_there_offers_those_that_are(machine: Machine) -> None:
    done = machine.run("run", "--program", "bin/tay", "toy")

    assert done.code == 2
    assert "bin" in done.err


def test_build_makes_one_artifact_for_each_architecture(machine: Machine) -> None:
    done = machine.run("build", "toy", "--arch", "sm_80,7.5,9.0+PTX", "--json")

    assert [built["fields"]["arch"] for built in done.json["result"]] == [
        ["sm_75"],
        ["sm_80"],
        ["compute_90", "sm_90"],
    ]


def test_build_says_whether_what_was_there_is_the_same(machine: Machine) -> None:
    store = ("--store", machine.store)
    machine.run("build", "toy", *store)
    before = machine.manifests()[0].read_bytes()

    same = machine.run("build", "toy", "--force", *store)
    other = machine.run("build", "toy", "--json", *store, TOY_FAIL="differ")

    assert "this build made the same bytes" in same.err
    assert {row["where"]: row["differing"] for row in other.json["result"][0]["already"]} == {
        "home": ["data/names"],
        str(machine.store): ["data/names"],
    }
    assert machine.manifests()[0].read_bytes() == before


def test_key_prints_the_hash_the_fields_and_a_difference(machine: Machine) -> None:
    plain = machine.run("key", "toy")
    assert re.fullmatch(r"[0-9a-f]{32}\n", plain.out)

    fields = machine.run("key", "toy", "--fields", "--ref", "2").out
    assert re.search(r"^commit +2$", fields, re.MULTILINE)
    assert re.search(r"^recipe +toy$", fields, re.MULTILINE)

    machine.run("fetch", "toy")
    machine.run("fetch", "toy", "--ref", "2")
    hashes = [row["key"] for row in machine.run("ls", "--json").json["result"]]
    diff = machine.run("key", "--diff", *[name[:8] for name in hashes])
    assert re.fullmatch(r"commit +[12] \| [12]\n", diff.out)


def test_ls_info_and_rm(machine: Machine) -> None:
    store = ("--store", machine.store)
    machine.run("fetch", "toy", *store)
    (home, there) = machine.run("ls", *store, "--json").json["result"]
    assert (home["where"], there["where"]) == ("home", str(machine.store))
    assert home["size"] == there["size"] > 0
    assert "toy" in machine.run("ls", *store).out

    info = machine.run("info", "toy", *store, "--json").json["result"]
    assert info["key"] == home["key"]
    assert len(info["places"]) == 2
    assert "bin/sh" not in machine.run("info", home["key"][:6], *store).out

    assert machine.run("rm", "toy", *store).code == 0
    assert [row["where"] for row in machine.run("ls", *store, "--json").json["result"]] == [
        str(machine.store)
    ]
    assert machine.run("rm", home["key"][:8], *store).code == 2
    assert machine.run("rm", home["key"][:8], "--from", "all", *store).code == 0
    assert machine.run("ls", *store, "--json").json["result"] == []


def test_explain_says_hit_or_miss_and_names_the_differing_field(machine: Machine) -> None:
    store = ("--store", machine.store)
    machine.run("fetch", "toy", *store)

    hit = machine.run("explain", "toy", *store).out
    assert "the next fetch is a hit" in hit

    miss = machine.run("explain", "toy", "--ref", "2", *store)
    assert "the next fetch is a miss" in miss.out
    assert "commit: 1, wanted 2" in miss.out
    assert machine.run("explain", "toy", "--ref", "2", "--json").json["result"]["hit"] is False


def test_explain_changes_nothing_and_builds_nothing(machine: Machine) -> None:
    machine.run("explain", "toy", "--store", machine.store)

    assert not machine.store.exists()
    assert machine.run("ls", "--json").json["result"] == []


def test_verify_reads_every_byte_and_deep_the_packs_too(machine: Machine) -> None:
    store = ("--store", machine.store)
    machine.run("fetch", "toy", *store)
    assert "2 checked" in machine.run("verify", "--deep", *store).err

    (pack,) = machine.packs()
    pack.write_bytes(pack.read_bytes()[:-1] + b"\0")
    assert machine.run("verify", *store).code == 0
    bad = machine.run("verify", "toy", "--deep", *store)
    assert bad.code == 5
    assert "corrupt" in bad.out
    assert not machine.packs()
    assert not machine.manifests()


def test_every_command_answers_in_json_even_when_it_fails(machine: Machine) -> None:
    for words in (
        ("fetch", "nosuch"),
        ("fetch", "toy", "--arch", "sm_1"),
        ("nosuch",),
        ("fetch",),
        ("info", "abcdef"),
        ("rm", "toy"),
    ):
        done = machine.run(*words, "--json")
        body = json.loads(done.out)
        assert body["ok"] is False
        assert body["artcache"] == 1
        assert body["error"]["exit_code"] == done.code == 2
        assert body["error"]["message"]


def test_recipes_and_completion(machine: Machine) -> None:
    names = [row["name"] for row in machine.run("recipes", "--json").json["result"]]
    assert {"toy", "darknet"} <= set(names)
    assert "_ARTCACHE_COMPLETE" in machine.run("completion", "bash").out

    completing = {"_ARTCACHE_COMPLETE": "bash_complete", "COMP_WORDS": "artcache fetch to"}
    script = "import sys; sys.argv = ['artcache']; from artcache.cli import main; main()"
    done = subprocess.run(
        [machine.command()[0], "-c", script],
        env={**machine.env, **completing, "COMP_CWORD": "2"},
        capture_output=True,
        text=True,
    )
    assert "plain,toy" in done.stdout


def test_the_module_and_the_script_are_the_same_program(machine: Machine) -> None:
    assert machine.run("--version").out.startswith("artcache, version 0.1")
    assert machine.run("--help").code == 0


def test_no_colour_codes_leave_a_pipe_or_pass_no_color(machine: Machine) -> None:
    assert "\x1b" not in machine.run("fetch", "nosuch").err


def test_stores_come_from_the_environment_and_from_files(machine: Machine) -> None:
    machine.run("fetch", "toy", ARTCACHE_STORES=f"read:/nonexistent, {machine.store}")
    assert machine.manifests()

    (machine.work / "artcache.toml").write_text('stores = ["../store 2"]\n')
    machine.run("build", "toy")
    assert list((machine.folder / "store 2").glob("v1/manifests/toy/*.json"))


def test_a_closed_pipe_is_no_error(machine: Machine) -> None:
    machine.run("fetch", "toy")
    done = subprocess.run(
        f"{machine.command()[0]} -m artcache ls | true; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        env=machine.env,
        capture_output=True,
        text=True,
    )
    assert "Traceback" not in done.stderr
    assert "Broken pipe" not in done.stderr


HEAVY = ("fsspec", "gcsfs", "asyncio", "rich", "zstandard", "blake3", "socket", "subprocess")


def test_a_warm_hit_imports_nothing_heavy_and_opens_no_socket(machine: Machine) -> None:
    machine.run("fetch", "toy")
    script = (
        "import sys; sys.argv = ['artcache', 'fetch', 'toy']\n"
        "from artcache.cli import main\n"
        "try: main()\n"
        f"finally: print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [machine.command()[0], "-c", script], env=machine.env, capture_output=True, text=True
    )
    assert "from home" in done.stderr
    assert done.stderr.endswith("[]\n"), done.stderr


def test_host_names_what_was_found_and_what_was_not(machine: Machine) -> None:
    facts = machine.run("host", "--json").json["result"]

    assert facts["facts"]["platform"].startswith("linux-")
    assert facts["facts"]["libc"].startswith("glibc")
    assert "cpu" in machine.run("host").out
    assert machine.run("host", ARTCACHE_ARCH="banana").code == 2
    assert "ARTCACHE_ARCH sm_89" in machine.run("host", ARTCACHE_ARCH="8.9").out


def test_a_rebuild_shows_reproducible_or_names_what_differs(machine: Machine) -> None:
    machine.run("fetch", "toy", "--store", machine.store)

    same = machine.run("verify", "--rebuild", "toy", "--store", machine.store)
    other = machine.run("verify", "--rebuild", "toy", TOY_FAIL="differ")

    assert "same bytes" in same.out
    assert other.code == 1
    assert "data/names" in other.err
    assert len(machine.manifests()) == 1


def test_uninstall_knows_the_folder_if_there_is_only_one(machine: Machine) -> None:
    assert machine.run("uninstall", "toy").code == 2
    machine.run("fetch", "toy", "--to", "one")
    machine.run("fetch", "toy", "--to", "two")

    asked = machine.run("uninstall", "toy")
    assert asked.code == 2
    assert str(machine.work / "two") in asked.err
    assert machine.run("uninstall", "toy", "--from", "two").code == 0
    assert machine.run("uninstall", "toy").code == 0
    assert not (machine.work / "one").exists()
