"""Ctrl-C and SIGKILL at any moment: what is visible is whole, and the next command works."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.toy import Machine

WORDS = ("--set", "SLEEP=0.15", "--set", "SIZE=3000000")


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def settle(process: subprocess.Popen[str], after: float, how: signal.Signals) -> int:
    """Send `how` after so many seconds, to all on Ctrl-C; returns the exit code."""
    time.sleep(after)
    if how is signal.SIGINT:  # a terminal sends it to the whole foreground group
        os.killpg(process.pid, how)
    else:
        process.send_signal(how)
    process.communicate(timeout=60)
    return process.returncode


def check_whole(machine: Machine) -> None:
    """Every entry, manifest and installed folder that is visible is complete."""
    verified = machine.run("verify", "--deep", "--store", machine.store)
    assert verified.code == 0, verified.out + verified.err
    target = machine.work / "here"
    if target.exists() and (set(os.listdir(target)) - {".artcache"}):
        assert (target / "bin/toy").exists()
        assert (target / "data/names").read_text() == "cat\ndog\n"
        assert (target / "data/blob").stat().st_size == 3_000_000


@pytest.mark.parametrize("after", [0.05 * step for step in range(1, 17)])
def test_ctrl_c_at_any_moment_leaves_nothing_half_done(machine: Machine, after: float) -> None:
    process = machine.start("fetch", "toy", *WORDS, "--store", machine.store, "--to", "here")

    code = settle(process, after, signal.SIGINT)

    # 1 only while Python itself starts, before a line of ours has run.
    assert code in ((0, 1, 130, -signal.SIGINT) if after < 0.3 else (0, 130))
    assert not list(machine.home.glob("v1/tmp/*"))
    check_whole(machine)
    again = machine.run("fetch", "toy", *WORDS, "--store", machine.store, "--to", "here")
    assert again.code == 0, again.err
    check_whole(machine)


@pytest.mark.parametrize("after", [0.08 * step for step in range(2, 12)])
def test_a_kill_at_any_moment_is_mended_by_the_next_command(machine: Machine, after: float) -> None:
    process = machine.start("fetch", "toy", *WORDS, "--store", machine.store, "--to", "here")

    settle(process, after, signal.SIGKILL)

    check_whole(machine)
    again = machine.run("fetch", "toy", *WORDS, "--store", machine.store, "--to", "here")
    assert again.code == 0, again.err
    check_whole(machine)


def test_ctrl_c_ends_the_compiler_too(machine: Machine) -> None:
    process = machine.start("fetch", "toy", "--set", "SLEEP=61.5")
    deadline = time.monotonic() + 10
    while not sleeping("61.5") and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sleeping("61.5")

    process.send_signal(signal.SIGINT)
    process.communicate(timeout=10)

    assert not sleeping("61.5")


def sleeping(seconds: str) -> bool:
    return subprocess.run(["pgrep", "-f", f"^sleep {seconds}$"], check=False).returncode == 0


def test_two_at_once_build_once(machine: Machine, tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    both = [
        machine.start("fetch", "toy", "--set", "SLEEP=1", TOY_COUNTER=str(counter))
        for _ in range(4)
    ]
    outs = {process.communicate(timeout=60)[0] for process in both}

    assert len(outs) == 1
    assert counter.read_text() == "built\n"


def test_what_a_killed_build_left_is_swept_later(machine: Machine) -> None:
    process = machine.start("fetch", "toy", "--set", "SLEEP=60")
    deadline = time.monotonic() + 10
    while not list(machine.home.glob("v1/tmp/*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    (left,) = machine.home.glob("v1/tmp/*")
    old = time.time() - 120
    os.utime(left, (old, old))

    machine.run("fetch", "toy")

    assert not list(machine.home.glob("v1/tmp/*"))
