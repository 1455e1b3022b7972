"""What was measured: kept one file a task, told as a table for people and as JSON."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from statistics import fmean
from typing import Any

import artcache
from artcache.disk import mount_of

from . import peers
from .inputs import KEPT, code


class Results:
    """The newest result of each task, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def keep(self, name: str, result: Mapping[str, Any]) -> None:
        (self.folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")

    def all(self, names: Iterable[str]) -> list[dict[str, Any]]:
        files = [self.folder / f"{name}.json" for name in names]
        return [json.loads(file.read_text()) for file in files if file.exists()]

    def is_current(self, name: str) -> bool:
        """Whether it was measured, whole, with the code as it is now."""
        return any(one["code"] == code() and good(one) for one in self.all([name]))


def stamped(result: dict[str, Any], pairs: int, whole: float) -> dict[str, Any]:
    """With when and by what it was measured, and the seconds that it took with its inputs."""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    return {**result, "created": now, "code": code(), "pairs": pairs, "whole": round(whole, 1)}


def good(task: Mapping[str, Any]) -> bool:
    goals = task["goals"] if task.get("goals_count", True) else []
    return all(goal["met"] for goal in goals) and all(check["ok"] for check in task["checks"])


# -- for people ---------------------------------------------------------------------------


def table(task: Mapping[str, Any]) -> Iterator[str]:
    """Lines for the terminal; every contender is compared with the first."""
    contenders, unit = task["contenders"], task["unit"]
    width = max([30, *(len(name) for name in contenders)])
    yield f"== {task['task']}: {task['title']}"
    if contenders:
        heads = ("median", "least", "cpu", "peak RSS", "x")
        yield f"   {'':<{width}}" + "".join(f"{head:>11}" for head in heads)
    first = next((one["median"] for one in contenders.values()), 0.0)
    for name, one in contenders.items():
        yield f"   {name:<{width}}{_columns(one, first, unit)}"
    for goal in task["goals"]:
        yield f"   {'met     ' if goal['met'] else 'NOT MET '} {told(goal, unit)}"
    for check in task["checks"]:
        detail = f": {check['detail']}" if check["detail"] else ""
        yield f"   {'so      ' if check['ok'] else 'NOT SO  '} {check['what']}{detail}"
    for peer, why in task["missing"].items():
        yield f"   missing  {peer}: {why}"
    for note in task["notes"]:
        yield f"   note     {note}"
    before, after = task["load"]
    yield f"   load     {before:.1f} before, {after:.1f} after; {task['whole']:.0f} s in all"
    yield ""


def _columns(one: Mapping[str, Any], first: float, unit: str) -> str:
    cpu = fmean(sample["cpu"] for sample in one["samples"])
    rss = max(sample["rss"] for sample in one["samples"])
    words = [
        amount(one["median"], unit),
        amount(one["least"], unit),
        amount(cpu, "s") if cpu else "",
        f"{rss >> 20} MiB" if rss else "",
        f"{one['median'] / first:.2f}" if first else "",
    ]
    return "".join(f"{word:>11}" for word in words)


def told(goal: Mapping[str, Any], unit: str) -> str:
    """One goal: what came out, how far rounds differ, what was wanted."""
    if goal["word"] == "under":
        spread = f"{amount(goal['low'], unit)} to {amount(goal['high'], unit)}"
        aim = f"goal: under {amount(goal['factor'], unit)}"
        return f"{goal['ours']}: {amount(goal['value'], unit)} ({spread}); {aim}"
    aims = {
        "faster than": f"at least {goal['factor']:g} x faster",
        "within": f"at most {goal['factor']:g} x",
    }
    spread = f"rounds {goal['low']:.2f} to {goal['high']:.2f}"
    if goal["cpu"]:
        spread += f"; by CPU time {goal['cpu']:.2f}"
    ratio = f"{goal['ours']} to {goal['peer']}: {goal['value']:.2f} x"
    return f"{ratio} ({spread}); goal: {aims[goal['word']]}"


def amount(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / 1e6:.3f} MB" if value < 1e7 else f"{value / 1e6:.1f} MB"
    if value < 0.001:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def summary(document: Mapping[str, Any]) -> Iterator[str]:
    goals = [goal for task in document["tasks"] for goal in task["goals"]]
    checks = [check for task in document["tasks"] for check in task["checks"]]
    met, held = sum(g["met"] for g in goals), sum(c["ok"] for c in checks)
    yield f"{met} of {len(goals)} goals met, {held} of {len(checks)} checks hold"
    if document["scale"] != "full":
        yield f"scale {document['scale']}: a trial of the suite; its ratios mean little"
    for peer, why in document["missing"].items():
        yield f"missing peer {peer}: {why}"


# -- for programs -------------------------------------------------------------------------


def document(tasks: list[dict[str, Any]], lacking: Mapping[str, str], scale: str) -> dict[str, Any]:
    missing = dict(lacking)
    for task in tasks:
        missing |= {peer: why for peer, why in task["missing"].items() if peer != "all"}
    return {
        "benchmarks": 2,
        "artcache": artcache.__version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "scale": scale,
        "machine": machine(),
        "peers": peers.versions(),
        "missing": missing,
        "tasks": tasks,
    }


def machine() -> dict[str, Any]:
    """What decides the figures, and nothing that names the machine."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _line("/proc/cpuinfo", "model name"),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "disk": _disk(KEPT),
        "python": platform.python_version(),
    }


def write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _disk(place: Path) -> str:
    """File system and size of the disk that all of it lies on, or will: it need not exist."""
    mount = mount_of(place)
    usage = shutil.disk_usage(next(one for one in (place, *place.parents) if one.exists()))
    kind = mount.kind if mount else "?"
    return f"{kind}, {usage.total / 1e9:.0f} GB, {usage.free / 1e9:.0f} GB free"


def _line(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
