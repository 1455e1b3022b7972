"""What goes wrong, and what the user is told: message, hint, exit code, nothing lost."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.toy import Machine, Ran


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def entries(machine: Machine) -> list[Path]:
    return list(machine.home.glob("v1/entries/*/*"))


def leftovers(machine: Machine) -> list[Path]:
    return list(machine.home.glob("v1/tmp/*"))


def test_an_unknown_recipe_offers_the_nearest_names(machine: Machine) -> None:
    done = machine.run("fetch", "darknt")
    assert done.code == 2
    assert "did you mean darknet" in done.err


def test_an_unknown_command_offers_the_nearest(machine: Machine) -> None:
    done = machine.run("fecth", "toy")
    assert done.code == 2
    assert "did you mean fetch" in done.err


def test_an_unknown_option_of_a_recipe_offers_those_it_has(machine: Machine) -> None:
    done = machine.run("fetch", "toy", "--set", "WERD=x")
    assert done.code == 2
    assert "WORD" in done.err


@pytest.mark.parametrize("word", ["sm_76", "banana", "7.5.1", "sm_", "999", ""])
def test_an_architecture_that_does_not_exist_is_refused(machine: Machine, word: str) -> None:
    done = machine.run("fetch", "toy", "--arch", word)
    assert done.code == 2
    assert "hint:" in done.err


def test_a_cuda_version_that_is_none_is_refused(machine: Machine) -> None:
    assert machine.run("fetch", "toy", "--cuda", "twelve").code == 2


def test_a_compile_error_shows_the_last_lines_and_keeps_the_log(machine: Machine) -> None:
    done = machine.run("fetch", "toy", "--store", machine.store, TOY_FAIL="compile")

    assert done.code == 1
    assert "exit code 3" in done.err
    assert "| line 30" in done.err
    assert "| line 11" in done.err
    assert "| line 10\n" not in done.err
    (log,) = machine.home.glob("v1/logs/toy/*.log")
    assert str(log) in done.err
    assert "line 1\n" in log.read_text()
    assert not entries(machine)
    assert not leftovers(machine)
    assert not machine.manifests() and not machine.packs()


@pytest.mark.parametrize(
    ("how", "said"),
    [("smoke", "does not run"), ("empty", "left no file"), ("crash", "own mistake")],
)
def test_a_build_that_is_no_good_is_not_published(machine: Machine, how: str, said: str) -> None:
    done = machine.run("fetch", "toy", "--store", machine.store, TOY_FAIL=how)

    assert done.code == 1
    assert said in done.err
    assert not entries(machine)
    assert not machine.manifests() and not machine.packs()


def test_a_source_that_does_not_answer_gives_way_to_the_next(machine: Machine) -> None:
    done = machine.run("fetch", "toy", "--set", "FAIL=source", TOY_FAIL="source")

    assert done.code == 0
    assert "took the spare" in done.err
    again = machine.run("fetch", "toy", "--set", "FAIL=source", TOY_FAIL="source")
    assert "from home" in again.err


def test_no_build_allowed_is_exit_code_3(machine: Machine) -> None:
    done = machine.run("fetch", "toy", "--build", "never")
    assert done.code == 3
    assert "artcache build toy" in done.err


def test_a_store_that_cannot_be_written_is_one_warning_and_exit_code_0(machine: Machine) -> None:
    wall = machine.folder / "wall"
    wall.write_text("")

    done = machine.run("fetch", "toy", "--store", wall / "store")

    assert done.code == 0
    assert done.err.count("warning:") == 1
    assert entries(machine)


def test_a_store_without_permission_is_one_warning(machine: Machine) -> None:
    machine.store.mkdir()
    machine.store.chmod(0o555)

    done = as_nobody(machine, "fetch", "toy", "--store", machine.store)

    assert done.code == 0, done.err
    assert done.err.count("warning:") == 1
    assert "cannot be written" in done.err
    assert f"read:{machine.store}" in done.err


def test_a_home_that_is_not_ours_names_the_folder_and_the_way_out(machine: Machine) -> None:
    machine.home.mkdir()
    machine.home.chmod(0o555)

    done = as_nobody(machine, "fetch", "toy")

    assert done.code == 7, done.err
    assert str(machine.home) in done.err
    assert "ARTCACHE_DIR" in done.err


def as_nobody(machine: Machine, *words: object) -> Ran:
    """Root ignores permission bits, so become somebody whom they bind."""
    prefix: list[str] = []
    if os.geteuid() == 0:
        for folder in [machine.folder, *machine.folder.parents]:
            if folder.stat().st_uid == 0 and folder != Path("/"):
                folder.chmod(folder.stat().st_mode | 0o055)
        prefix = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
        machine.home.exists() or (machine.home.mkdir(), machine.home.chmod(0o777))
    probe = subprocess.run(
        [*prefix, *machine.command("--version")], env=machine.env, capture_output=True, check=False
    )
    if probe.returncode:
        pytest.skip(f"nobody cannot run this Python: {probe.stderr.decode()[-200:]}")
    done = subprocess.run(
        [*prefix, *machine.command(*words)],
        env=machine.env,
        cwd="/",
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def small_disk(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A disk of 6 MB."""
    point = tmp_path / "small"
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(point)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield point
    subprocess.run(["umount", "-l", str(point)], check=True)


def test_a_full_home_says_what_was_free_and_leaves_nothing(
    machine: Machine, small_disk: Path
) -> None:
    big = ("fetch", "toy", "--set", "SIZE=20000000")

    done = machine.run(*big, ARTCACHE_DIR=str(small_disk / "home"))

    assert done.code in (1, 7)
    assert "disk is full" in done.err or "No space left" in done.err
    assert not list(small_disk.glob("home/v1/entries/*/*"))
    assert not list(small_disk.glob("home/v1/tmp/*"))


def test_a_restore_into_a_full_home_says_what_it_needs(machine: Machine, small_disk: Path) -> None:
    big = ("fetch", "toy", "--set", "SIZE=20000000", "--store", machine.store)
    assert machine.run(*big).code == 0

    done = machine.run(*big, ARTCACHE_DIR=str(small_disk / "home"))

    assert done.code == 7
    assert "20.0 MB are needed" in done.err or "20 MB are needed" in done.err
    assert not list(small_disk.glob("home/v1/entries/*/*"))


def test_a_full_store_never_fails_a_good_build(machine: Machine, small_disk: Path) -> None:
    import random

    done = machine.run(
        *("fetch", "toy", "--set", f"SIZE={20_000_000 + random.randrange(9) * 1000}"),
        *("--store", small_disk / "store"),
        TOY_FAIL="",
    )

    assert done.code == 0
    assert "bin" in os.listdir(done.out.rstrip("\n"))
    if done.err.count("warning:"):
        assert not list(small_disk.glob("store/v1/manifests/*/*.json"))


def test_a_configuration_error_names_file_and_entry(machine: Machine) -> None:
    (machine.work / "artcache.toml").write_text("[[store]]\nurl = 'x'\n")
    done = machine.run("fetch", "toy")
    assert done.code == 2
    assert "artcache.toml" in done.err
    assert "stores" in done.err

    (machine.work / "artcache.toml").write_text("stores = [\n")
    assert machine.run("fetch", "toy").code == 2


def test_a_store_that_nothing_reads_is_refused_by_its_scheme(machine: Machine) -> None:
    done = machine.run("fetch", "toy", "--store", "gopher://host/x")
    assert done.code == 2
    assert "gopher" in done.err


def test_debug_shows_the_traceback_and_nothing_else_does(machine: Machine) -> None:
    assert "Traceback" in machine.run("fetch", "nosuch", "--debug").err
