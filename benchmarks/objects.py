"""ccache and sccache: set up as a careful user does, and asked whether they compiled anything.

Only `rebuild` imports this.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .children import environment
from .measure import Check, Failed
from .throttle import free_port


class Counts(NamedTuple):
    """Of one build."""

    hits: int
    """Object files that came out of the cache."""
    misses: int
    """Compilations or steps of them that the cache had to start."""
    errors: int = 0


class ObjectCache:
    """One of them, empty at first, with a folder of its own."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._builds = 0
        self._wrong = ""
        self.has_server = name == "sccache"
        self.env = {"CCACHE_DIR": str(folder)}
        if self.has_server:
            self.env = {"SCCACHE_DIR": str(folder), "SCCACHE_SERVER_PORT": str(free_port())}

    def nvcc(self, own: str) -> str:
        """What to call as nvcc where the recipe calls `own`.

        sccache takes nvcc's work apart, as `--dryrun` tells it, and runs the parts itself: the
        folder that `--objdir-as-tempdir` names is gone by then, and the build fails.
        """
        return own.replace(" --objdir-as-tempdir", "") if self.has_server else own

    def forget(self) -> None:
        """Count from zero."""
        self._tell("--zero-stats")

    def require_hits(self, objects: int) -> None:
        """Raises `Failed` if the build since `forget` compiled any of its `objects` files."""
        self._builds += 1
        if wrong := told(self.name, self.counts(), objects):
            self._wrong = self._wrong or wrong
            raise Failed(wrong)

    def counts(self) -> Counts:
        if self.has_server:
            return sccache_counts(json.loads(self._tell("--show-stats", "--stats-format=json")))
        return ccache_counts(self._tell("--print-stats"))

    def verdict(self) -> Check:
        """For the whole task."""
        what = f"{self.name} has every object file in every build that counts"
        return Check(what, self._builds > 0 and not self._wrong, self._wrong or self._summary())

    def _summary(self) -> str:
        return f"{self._builds} builds, none compiled a file" if self._builds else "none was made"

    def stop(self) -> None:
        """Its server, if it has one."""
        if self.has_server:
            command = [self.name, "--stop-server"]
            subprocess.run(command, env=environment(self.env), capture_output=True)

    def _tell(self, *words: str) -> str:
        command: Sequence[str] = [self.name, *words]
        done = subprocess.run(command, env=environment(self.env), capture_output=True, text=True)
        if done.returncode:
            raise Failed(f"{' '.join(command)}: {done.stderr.strip()[-300:]}")
        return done.stdout


def ccache_counts(text: str) -> Counts:
    """From what `--print-stats` prints: a name, a tab and a number a line."""
    counts = {name: int(number) for name, number in map(str.split, text.splitlines())}
    hits = counts["direct_cache_hit"] + counts["preprocessed_cache_hit"]
    return Counts(hits, counts["cache_miss"])


def sccache_counts(document: Mapping[str, Any]) -> Counts:
    """From its statistics in JSON. It keeps what cudafe++, cicc and ptxas make as well, each
    counted by itself; the file's own object counts as `CUDA`, by way of `nvcc`."""
    stats = document["stats"]
    hits = stats["cache_hits"]
    languages = hits["counts"]
    objects = languages.get("C/C++", 0) + hits["adv_counts"].get("cuda [nvcc]", 0)
    misses = sum(stats["cache_misses"]["counts"].values())
    return Counts(objects, misses, sum(stats["cache_errors"]["counts"].values()))


def told(name: str, counts: Counts, objects: int) -> str:
    """What is wrong with a build of so many object files that ought to compile none, or ''."""
    if counts == Counts(objects, 0):
        return ""
    more = f", {counts.errors} errors" if counts.errors else ""
    return f"{name}: {objects} object files, {counts.hits} hits, {counts.misses} misses{more}"
