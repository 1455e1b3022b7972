"""What was measured, as a table for people and as JSON; a page will be made from the latter."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import artcache

from .measure import Measured, Outcome, Sample, as_json, median


def table(measured: Measured) -> Iterator[str]:
    """Lines for the terminal; every contender is compared with the first."""
    task = measured.task
    yield f"== {task.name}: {task.title}"
    first = next(iter(measured.samples.values()), [])
    if first:
        yield f"   {'':<32}{'median':>10}{'least':>10}{'cpu':>10}{'peak RSS':>10}{'x':>8}"
    for name, samples in measured.samples.items():
        yield f"   {name:<32}{_columns(samples, median(first))}"
    for outcome in measured.outcomes:
        yield f"   {'met     ' if outcome.met else 'NOT MET '} {_told(outcome)}"
    for check in task.checks:
        detail = f": {check.detail}" if check.detail else ""
        yield f"   {'so      ' if check.ok else 'NOT SO  '} {check.what}{detail}"
    for peer, why in task.missing.items():
        yield f"   missing  {peer}: {why}"
    for note in task.notes:
        yield f"   note     {note}"
    yield f"   load     {measured.load[0]:.1f} before, {measured.load[1]:.1f} after"
    yield ""


def _columns(samples: Sequence[Sample], first: float) -> str:
    cpu = sum(sample.cpu for sample in samples) / len(samples)
    rss = max(sample.rss for sample in samples)
    words = [
        seconds(median(samples)),
        seconds(min(sample.seconds for sample in samples)),
        seconds(cpu) if cpu else "",
        f"{rss >> 20} MiB" if rss else "",
    ]
    return "".join(f"{word:>10}" for word in words) + f"{median(samples) / first:>8.2f}"


def _told(outcome: Outcome) -> str:
    goal = outcome.goal
    if goal.word == "under":
        spread = f"{seconds(outcome.low)} to {seconds(outcome.high)}"
        return (
            f"{goal.ours}: {seconds(outcome.value)} ({spread}); goal: under {seconds(goal.factor)}"
        )
    aim = {
        "faster than": f"at least {goal.factor:g} x faster",
        "within": f"at most {goal.factor:g} x",
    }
    spread = f"rounds {outcome.low:.2f} to {outcome.high:.2f}"
    if outcome.cpu:
        spread += f"; by CPU time {outcome.cpu:.2f}"
    return f"{goal.ours} to {goal.peer}: {outcome.value:.2f} x ({spread}); goal: {aim[goal.word]}"


def seconds(value: float) -> str:
    if value < 0.001:
        return f"{value * 1e6:.0f} us"
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def document(results: Sequence[Measured], pairs: int) -> dict[str, Any]:
    return {
        "benchmarks": 1,
        "artcache": artcache.__version__,
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "pairs": pairs,
        "machine": machine(),
        "tasks": [as_json(measured) for measured in results],
    }


def machine() -> dict[str, Any]:
    """What decides the figures, and nothing that names the machine."""
    return {
        "cores": len(os.sched_getaffinity(0)),
        "processor": _line("/proc/cpuinfo", "model name"),
        "memory": _line("/proc/meminfo", "MemTotal"),
        "kernel": platform.release(),
        "python": platform.python_version(),
    }


def write(path: Path, results: Sequence[Measured], pairs: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document(results, pairs), indent=1) + "\n")


def _line(path: str, name: str) -> str:
    try:
        lines = Path(path).read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(name)), "")
