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
"""What a hit has no use for. Some click versions load subprocess-like modules lazily; these
names are looked for at the start of a line of `-X importtime`."""


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
    task.goals = [Goal("artcache fetch", "within", 2.0, "import click")]
    task.checks = [_imports(fetch), *_sockets(fetch, task.missing)]
    return task


def library(work: Path) -> Task:
    """`artcache.fetch` in a running process."""
    task = Task("library", f"warm hit in a running process: the same tree of {SMALL_FILES} files")
    home = home_with_darknet(work / "home", artcache.Request(), SECOND)

    def contender(name: str, member: str) -> Contender:
        child = Child(helper("library", home), cwd=ROOT)
        return Contender(name, lambda: Sample(told(child)[member]))

    task.contenders = [
        contender("first look at the tree", "first"),
        contender("again", "again"),
        contender("os.lstat of each file", "lstat"),
    ]
    task.goals = [
        Goal("first look at the tree", "under", 0.001),
        Goal("again", "under", 0.001),
    ]
    return task


def _hit(script: Path, home: Path, work: Path) -> Child:
    empty = work / "empty"
    empty.mkdir()
    env = {"ARTCACHE_DIR": str(home), "ARTCACHE_STORES": "", "XDG_CONFIG_HOME": str(empty)}
    return Child([script, "fetch", "darknet"], env, empty)


def _imports(fetch: Child) -> Check:
    """Which of the heavy packages a hit imports."""
    words = [sys.executable, "-X", "importtime", *fetch.argv]
    done = subprocess.run(
        words, env=environment(fetch.env), cwd=fetch.cwd, capture_output=True, text=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.split("\n")}
    bad = sorted(loaded.intersection(HEAVY))
    return Check(f"a hit imports none of {', '.join(HEAVY)}", not bad, ", ".join(bad))


def _sockets(fetch: Child, missing: dict[str, str]) -> list[Check]:
    """Whether a hit asks the kernel for a socket, or starts a process."""
    strace = tool("strace", missing)
    if not strace:
        return []
    words = [strace, "-f", "-e", "trace=socket,connect,execve", *fetch.argv]
    done = subprocess.run(
        [str(word) for word in words],
        env=environment(fetch.env),
        cwd=fetch.cwd,
        capture_output=True,
        text=True,
    )
    calls = re.findall(r"^(?:\[pid +\d+\] )?(\w+)\(", done.stderr, re.MULTILINE)
    if "execve" not in calls:
        missing["strace"] = f"strace cannot trace here: {done.stderr.strip()[:200]}"
        return []
    return [
        Check("a hit opens no socket", not {"socket", "connect"}.intersection(calls)),
        Check("a hit starts no process", calls.count("execve") == 1),
    ]
