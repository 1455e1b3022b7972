"""The main job on real input: from an empty machine to a darknet that runs, and back again."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.toy import Machine, Ran

pytestmark = pytest.mark.real

NOBODY = "http://127.0.0.1:9"
TINY = """[net]
batch=1
width=32
height=32
channels=3
[convolutional]
filters=18
size=3
stride=1
pad=1
activation=linear
[yolo]
mask=0,1,2
anchors=10,14, 23,27, 37,58
classes=1
num=3
"""


def forward_pass(folder: Path) -> str:
    """Load a network with random weights and detect in the dog's picture."""
    (folder / "tiny.cfg").write_text(TINY)
    (folder / "names").write_text("thing\n")
    (folder / "tiny.data").write_text("classes=1\nnames=names\n")
    done = subprocess.run(
        ["./darknet", "detector", "test", "tiny.data", "tiny.cfg"],
        cwd=folder,
        input="data/dog.jpg\n",
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


class Served(NamedTuple):
    machine: Machine
    first: Ran
    """The fetch that built it, and put it into the machine's store."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Served:
    machine = Machine(tmp_path_factory.mktemp("machine"))
    first = machine.run("fetch", "darknet", "--store", machine.store, "--json")
    assert first.code == 0, first.err
    return Served(machine, first)


def test_the_second_fetch_needs_neither_network_nor_compiler(
    served: Served, tmp_path: Path
) -> None:
    again = served.machine.run("fetch", "darknet", PATH=str(tmp_path), http_proxy=NOBODY)

    assert again.code == 0, again.err
    assert "from home" in again.err


def test_from_an_empty_machine_to_a_detection_and_back_from_the_store(served: Served) -> None:
    machine = served.machine
    store = ("--store", machine.store)

    built = served.first.json["result"]
    assert (built["hit"], built["origin"]) == (False, "built")
    assert len(machine.manifests()) == len(machine.packs()) == 1

    second = machine.run("fetch", "darknet", *store, "--json").json["result"]
    assert (second["hit"], second["origin"], second["path"]) == (True, "home", built["path"])
    assert second["saved_seconds"] > 0

    shutil.rmtree(machine.home)
    third = machine.run("fetch", "darknet", *store, "--json").json["result"]
    assert (third["hit"], third["origin"]) == (True, str(machine.store))
    assert third["key"] == built["key"]

    here = machine.work / "a darknet"
    assert machine.run("fetch", "darknet", *store, "--to", here).code == 0
    assert os.access(here / "darknet", os.X_OK)
    assert "Predicted in" in forward_pass(here)

    (machine.work / "tiny.cfg").write_text(TINY)
    ran = machine.run("run", "-q", "darknet", *store, "--", "ops", "tiny.cfg")
    assert "Floating Point Operations" in ran.out + ran.err
