"""A home with darknet trees in it, and small disks, for the tests of `install`."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from install_trees import BIG, DARKNET, Desk


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def darknet(desk: Desk):
    return desk.tree("darknet-1", DARKNET, dirs=("backup",))


@pytest.fixture
def newer(desk: Desk):
    content = {**DARKNET, "bin/darknet": BIG + b"2", "cfg/new.cfg": b"new"}
    del content["cfg/empty"]
    return desk.tree("darknet-2", content)


@pytest.fixture
def tmpfs(tmp_path):
    mounts = []

    def mount(size: str) -> Path:
        place = tmp_path / f"mount-{len(mounts)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", place]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            pytest.skip("this machine does not let us mount a tmpfs")
        mounts.append(place)
        return place

    yield mount
    for place in mounts:
        subprocess.run(["umount", "-l", place], check=True)
