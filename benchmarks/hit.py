"""Warm hits: the whole command, the library in a running process, and what they touch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import artcache

from .children import ROOT, Child, console_script, environment, helper, timed, told, tool
from .helpers import SECOND
from .inputs import SMALL_FILES, home_with_darknet
from .measure import Check, Contender, Goal, Sample, Task

HEAVY = ("fsspec", "asyncio", "rich", "gcsfs", "zstandard", "blake3", "subprocess", "elftools")
"""What a hit has no use for."""


def command(work: Path) -> Task:
    """`artcache fetch darknet`, from the start of the interpreter to the end of the process."""
    task = Task("hit", f"warm hit, whole process: a tree of {SMALL_FILES} files and a program")
    task.repeat = 5
    script = console_script()
    if script is None:
        task.missing["artcache fetch"] = f"{sys.executable} has no artcache script beside it"
        return task
    fetch = _hit(script, home_with_darknet(work / "home", artcache.Request()), work)
    task.contenders = [
        Contender("artcache fetch", lambda: timed(fetch)),
        Contender("import click", lambda: timed(Child([sys.executable, "-c", "import click"]))),
        Contender("python", lambda: timed(Child([sys.executable, "-c", "pass"]))),
    ]
    task.goals = [Goal("artcache fetch", "within", 1.6, "import click")]
    task.checks = _touches(fetch, task.missing)
    return task


def library(work: Path) -> Task:
    """`artcache.fetch` in a running process."""
    task = Task("library", f"warm hit in a running process: the same tree of {SMALL_FILES} files")
    home = home_with_darknet(work / "home", artcache.Request(), SECOND)
    child = Child(helper("library", home), cwd=ROOT)

    def contender(name: str, member: str) -> Contender:
        return Contender(name, lambda: Sample(told(child)[member]))

    task.contenders = [
        contender("first look at the tree", "first"),
        contender("again", "again"),
        contender("os.lstat of each file", "lstat"),
    ]
    task.goals = [
        Goal("first look at the tree", "under", 0.001),
        Goal("again", "under", 0.0002),
    ]
    task.checks = _touches(child, task.missing)
    return task


def _hit(script: Path, home: Path, work: Path) -> Child:
    empty = work / "empty"
    empty.mkdir()
    env = {"ARTCACHE_DIR": str(home), "ARTCACHE_STORES": "", "XDG_CONFIG_HOME": str(empty)}
    return Child([script, "fetch", "darknet"], env, empty)


def _touches(hit: Child, missing: dict[str, str]) -> list[Check]:
    """What a hit imports, by Python's own list; what it asks of the kernel, by strace."""
    listing = _stderr(hit._replace(env={**hit.env, "PYTHONPROFILEIMPORTTIME": "1"}))
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in listing.split("\n")}
    bad = sorted(loaded.intersection(HEAVY))
    checks = [
        Check(
            f"a hit imports none of {', '.join(HEAVY)}",
            "artcache" in loaded and not bad,
            ", ".join(bad),
        )
    ]
    strace = tool("strace", missing)
    if not strace:
        return checks
    traced = [strace, "-f", "-e", "trace=socket,connect,execve", *hit.argv]
    output = _stderr(hit._replace(argv=traced))
    calls = re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", output, re.MULTILINE)
    if "execve" not in calls:
        missing["strace"] = f"strace cannot trace here: {output.strip()[:200]}"
        return checks
    return [
        *checks,
        Check("a hit opens no socket", not {"socket", "connect"}.intersection(calls)),
        Check("a hit starts no process", calls.count("execve") == 1),
    ]


def _stderr(child: Child) -> str:
    done = subprocess.run(
        [str(word) for word in child.argv],
        env=environment(child.env),
        cwd=child.cwd,
        capture_output=True,
        text=True,
    )
    return done.stderr
