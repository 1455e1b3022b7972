"""Child processes: how each contender is started and what its run cost."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .measure import Failed, Sample

ROOT = Path(__file__).resolve().parent.parent
_LEFT_OUT = ("ARTCACHE_", "PYTHON", "CCACHE_", "SCCACHE_", "XDG_", "MAKE")
"""Prefixes of variables that would make two machines measure different things.
PYTHONDONTWRITEBYTECODE among them: an installed package has its bytecode."""


class Child(NamedTuple):
    argv: Sequence[str | Path]
    env: Mapping[str, str] = {}
    cwd: Path = Path("/")


class ChildFailed(Failed):
    """With what it said."""


def environment(extra: Mapping[str, str]) -> dict[str, str]:
    kept = {name: text for name, text in os.environ.items() if not name.startswith(_LEFT_OUT)}
    return {**kept, "LC_ALL": "C.UTF-8", **extra}


_STARTER = """
import json, os, sys, time
argv, env, cwd = json.load(sys.stdin)
start = time.perf_counter()
child = os.fork()
if not child:
    try:
        os.chdir(cwd)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in range(3):
            os.dup2(nothing, number)
        os.execvpe(argv[0], argv, env)
    finally:
        os._exit(127)
_, status, cost = os.wait4(child, 0)
seconds = time.perf_counter() - start
own = int(open("/proc/self/status").read().partition("VmHWM:")[2].split()[0])
rss = cost.ru_maxrss if cost.ru_maxrss > own else 0
code = os.waitstatus_to_exitcode(status)
print(json.dumps([seconds, cost.ru_utime + cost.ru_stime, rss << 10, code]))
"""
"""Starts one child and waits for it. The kernel counts a process's memory from before its exec
too: this one has 10 MB, while who makes the inputs may have had a gigabyte."""


def timed(child: Child) -> Sample:
    """Run it to the end, from before its start to after its death."""
    argv = [str(word) for word in child.argv]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _STARTER],
        input=json.dumps([argv, environment(child.env), str(child.cwd)]),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    seconds, processor, rss, code = json.loads(done.stdout)
    if code:
        raise ChildFailed(_why(child))
    return Sample(seconds, processor, rss)


def told(child: Child) -> Any:
    """Run it and return the JSON that it printed."""
    done = subprocess.run(
        [str(word) for word in child.argv],
        env=environment(child.env),
        cwd=child.cwd,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise ChildFailed(f"{child.argv}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def helper(name: str, *words: str | Path) -> list[str | Path]:
    """The command line of one of `helpers.py`'s jobs; to be run in `ROOT`."""
    return [sys.executable, "-m", "benchmarks.helpers", name, *words]


def bash(script: str, env: Mapping[str, str] | None = None, cwd: Path = Path("/")) -> Child:
    return Child(["bash", "-o", "pipefail", "-ec", script], env or {}, cwd)


def console_script() -> Path | None:
    """`artcache` of the running interpreter's environment."""
    found = Path(sys.executable).parent / "artcache"
    return found if found.is_file() else None


def tool(name: str, missing: dict[str, str]) -> str:
    """A program's path; '' and a line in `missing` if it is not on PATH."""
    found = shutil.which(name) or ""
    if not found:
        missing[name] = f"{name} is not on PATH"
    return found


def _why(child: Child) -> str:
    done = subprocess.run(
        [str(word) for word in child.argv],
        env=environment(child.env),
        cwd=child.cwd,
        capture_output=True,
        text=True,
    )
    words = " ".join(str(word) for word in child.argv)
    shown = words if len(words) < 300 else f"{words[:100]} ... {words[-150:]}"
    return f"{shown} failed; again it ends with {done.returncode}: {done.stderr.strip()[-500:]}"
