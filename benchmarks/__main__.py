"""`python -m benchmarks`: every task, its peers installed first; text, JSON and a page of plots.

Results are kept one file a task, so one task can be run again and the page tells of all.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import (
    again,
    grow,
    hit,
    inputs,
    many,
    measure,
    page,
    peers,
    plots,
    publish,
    race,
    rebuild,
    remote,
    report,
    session,
    slow,
)
from . import restore as restores

TASKS: dict[str, Callable[[Path], measure.Task]] = {
    "hit": hit.command,
    "library": hit.library,
    "verify": again.verify,
    "to": again.to,
    "restore": restores.restore,
    "publish": publish.publish,
    "sizes": publish.sizes,
    "upgrade": publish.upgrade,
    "mounted": slow.mounted,
    "gcs": slow.bucket,
    "session": session.session,
    "images": restores.images,
    "tiny": restores.tiny,
    "big": restores.big,
    "frames": remote.frames,
    "remote": remote.remote,
    "fleet": remote.fleet,
    "rebuild": rebuild.rebuild,
    "rebuild-gpu": rebuild.rebuild_gpu,
    "rebuild-upstream": rebuild.rebuild_upstream,
    "many": many.many,
}
LEFT_OUT = {
    "tiny": ("rebuild", "rebuild-gpu", "rebuild-upstream", "many", "fleet", "frames"),
    "quick": ("rebuild-gpu", "rebuild-upstream", "many"),
    "full": (),
}
"""By scale, unless asked for: what has one size only, or many processes."""
MINUTES = 2.0
"""What a task that was never measured here is thought to take."""


def main() -> int:
    """Exit code 1 when a check failed or, at full scale, a goal was missed; a missing peer
    is neither."""
    asked = _parser().parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # servers and mounts are stopped
    scale = inputs.choose(asked.scale)
    results = report.Results(asked.results or inputs.KEPT / "results" / scale.name)
    if asked.grow is not None:
        peers.use()
        return _grow(asked.grow or list(grow.KINDS), results, asked)
    names = asked.task or [name for name in TASKS if name not in LEFT_OUT[scale.name]]
    if asked.resume:
        names = [name for name in names if not results.is_current(name)]
    lacking = _install(asked.install)
    if names:
        _say(f"{len(names)} tasks, about {_estimate(names, results):.0f} minutes")
    for name in names:
        result = _run(name, asked.pairs or scale.pairs)
        result["goals_count"] = scale.name == "full"
        results.keep(name, result)
        print("\n".join(report.table(result)), flush=True)
    document = _write(results, lacking, asked)
    done = [task for task in document["tasks"] if task["task"] in names]
    return 0 if all(report.good(task) for task in done) else 1


def _write(
    results: report.Results, lacking: dict[str, str], asked: argparse.Namespace
) -> dict[str, Any]:
    """JSON and page of all that is kept."""
    document = report.document(results.all(TASKS), lacking, asked.scale)
    document["growth"] = results.all(f"grow-{kind}" for kind in grow.KINDS)
    report.write(asked.json or results.folder / "results.json", document)
    target = asked.html or results.folder / "results.html"
    target.write_text(page.html(document))
    print("\n".join(report.summary(document)))
    print(f"page: {target}")
    return document


def _grow(kinds: list[str], results: report.Results, asked: argparse.Namespace) -> int:
    failed = 0
    for kind in kinds:
        _progress(f"grow: {kind}")
        with inputs.work_folder() as work:
            try:
                plot = grow.KINDS[kind](work)
            except Exception as error:
                _say(f"grow {kind}: {error}\n{traceback.format_exc()}")
                failed = 1
                continue
        _progress("")
        results.keep(f"grow-{kind}", {**plot, "code": inputs.code()})
        print(f"== {kind}: {plot['title']}")
        for panel in plot["panels"]:
            points = ", ".join(f"{plots.si(x)}: {y:.3g}" for x, y in panel["points"])
            print(f"   {panel['title']} by {plot['x']}: {points}")
        print("\n".join(f"   {line}" for line in plot["lines"]), flush=True)
    _write(results, {}, asked)
    return failed


def _run(name: str, pairs: int) -> dict[str, Any]:
    """A task's result; one that breaks is a failed check, and the others go on."""
    start = time.monotonic()
    task = measure.Task(name, name)
    with inputs.work_folder() as work:
        try:
            _progress(f"{name}: inputs")
            task = TASKS[name](work)
            measured = measure.run(task, pairs, _progress)
            race.memory_check(measured)
        except Exception as error:
            _say(traceback.format_exc())
            told = measure.Check("the task runs to its end", False, f"{error}")
            task.checks.append(told)
            measured = measure.Measured(task, {}, [], (0.0, 0.0), time.monotonic() - start)
        finally:
            task.close()
    return report.stamped(measure.as_json(measured), pairs, time.monotonic() - start)


def _install(wanted: bool) -> dict[str, str]:
    if not wanted:
        peers.use()
        return {}
    _progress("peers: looking, installing what is not there")
    missing = peers.install()
    _progress("")
    for name, why in missing.items():
        _say(f"missing peer {name}: {why}")
    return missing


def _estimate(names: list[str], results: report.Results) -> float:
    kept: dict[str, float] = {task["task"]: task["whole"] / 60 for task in results.all(TASKS)}
    return sum(kept.get(name, MINUTES) for name in names)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--task", action="append", choices=list(TASKS), help="default: all")
    parser.add_argument("--pairs", type=int, help="rounds per task (default 5; --quick 2)")
    parser.add_argument("--scale", choices=list(inputs.SCALES), default="full")
    parser.add_argument(
        "--quick", dest="scale", action="store_const", const="quick", help="small inputs: a trial"
    )
    parser.add_argument(
        "--resume", action="store_true", help="only what this code was not measured at yet"
    )
    parser.add_argument(
        "--grow",
        nargs="*",
        choices=list(grow.KINDS),
        metavar="KIND",
        help="instead: how cost grows, against " + ", ".join(grow.KINDS),
    )
    parser.add_argument("--no-install", dest="install", action="store_false")
    parser.add_argument("--results", type=Path, metavar="FOLDER", help="where results are kept")
    parser.add_argument("--json", type=Path, metavar="FILE", help="all samples of all tasks")
    parser.add_argument("--html", type=Path, metavar="FILE", help="the page")
    return parser


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
