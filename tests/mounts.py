"""A Drive's look-alike, really mounted, and a way to make it ill."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest


class Illness:
    """What `fuse_drive.py` reads before each call."""

    def __init__(self, file: Path, backing: Path) -> None:
        self._file, self.backing = file, backing
        self._number = 0

    def set(self, **faults: object) -> None:
        """`read`, `open`, `readdir`, `getattr`: [errno, times, calls before the first];
        `unseen`: ends of names that are not there; `closed`: that are, but cannot be opened."""
        self._number += 1
        temporary = self._file.with_suffix(".new")
        temporary.write_text(json.dumps({"number": self._number, **faults}))
        temporary.replace(self._file)

    def heal(self) -> None:
        self.set()


class Mounted(NamedTuple):
    folder: Path
    illness: Illness


@contextlib.contextmanager
def mounted_drive(top: Path, at: str = "mounted") -> Iterator[Mounted]:
    """A real FUSE mount; skips where there can be none."""
    try:
        import mfusepy  # noqa: F401
    except (ImportError, OSError) as error:  # the package, or the library it wraps
        pytest.skip(f"no real mount: {error}")
    if not os.access("/dev/fuse", os.R_OK | os.W_OK):
        pytest.skip("/dev/fuse cannot be used here: no real mount")
    backing, folder, control = top / "backing", top / at, top / "illness.json"
    for place in (backing, folder):
        place.mkdir(parents=True)
    illness = Illness(control, backing)
    illness.heal()
    process = subprocess.Popen(
        [sys.executable, Path(__file__).with_name("fuse_drive.py"), backing, folder, control],
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(200):
        if folder.is_mount() or process.poll() is not None:
            break
        time.sleep(0.05)
    if process.poll() is not None:
        pytest.skip(f"no FUSE mount here: {process.communicate()[1].strip()[-200:]}")
    try:
        yield Mounted(folder, illness)
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)
        process.wait(timeout=10)
