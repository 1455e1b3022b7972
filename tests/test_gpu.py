"""On a machine with a GPU: build for it, run on it, and compare verdicts with what happens."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import artcache
from artcache import detect
from artcache.match import judge
from tests.test_main_job import forward_pass
from tests.toy import Machine

HOST = detect.host()
pytestmark = [
    pytest.mark.gpu,
    pytest.mark.real,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not HOST.gpus, reason="no NVIDIA GPU is visible on this machine"),
]


def seconds_of(output: str) -> float:
    """What darknet says of a prediction, in seconds or `milli-seconds`."""
    match = re.search(r"Predicted in ([\d.]+) (milli-)?seconds", output)
    assert match, output
    return float(match[1]) / (1000 if match[2] else 1)


def test_the_default_fetch_builds_for_this_gpu_and_runs_on_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    start = time.perf_counter()
    gpu = machine.run("fetch", "darknet", "--to", "gpu", "--json")
    took = time.perf_counter() - start
    assert gpu.code == 0, gpu.err
    fields = gpu.json["result"]["fields"]
    assert fields["arch"] == [f"sm_{one.capability}" for one in HOST.gpus[:1]]
    assert machine.run("fetch", "darknet", "--cuda", "none", "--to", "cpu").code == 0

    on_gpu = seconds_of(forward_pass(machine.work / "gpu"))
    on_cpu = seconds_of(forward_pass(machine.work / "cpu"))

    print(
        f"built in {took:.1f} s; a prediction takes {on_gpu:.4f} s on the GPU, {on_cpu:.4f} s off"
    )


def test_a_verdict_on_sm_80_agrees_with_what_happens(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    built = machine.run("build", "darknet", "--arch", "sm_80", "--json")
    assert built.code == 0, built.err
    cache = artcache.Cache([], home=machine.home)
    (entry,) = [one for one in cache.home.entries("darknet") if not isinstance(one, Exception)]
    verdict = judge(entry.manifest(), HOST)
    assert machine.run("fetch", "darknet", "--arch", "sm_80", "--to", "here").code == 0

    output = forward_pass(machine.work / "here")

    assert ("Predicted in" in output) == verdict.ok, (verdict, output[-500:])
