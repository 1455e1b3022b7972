"""`python -m benchmarks [--task NAME]... [--pairs N] [--json FILE]`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from . import hit, many, measure, rebuild, report, restore
from .inputs import work_folder

TASKS: dict[str, Callable[[Path], measure.Task]] = {
    "hit": hit.command,
    "library": hit.library,
    "restore": restore.restore,
    "publish": restore.publish,
    "rebuild": rebuild.rebuild,
    "many": many.many,
}


def main() -> int:
    """Exit code 1 when a goal was missed or a check failed; a missing peer is neither."""
    asked = _parser().parse_args()
    results = []
    for name in asked.task or TASKS:
        with work_folder() as work:
            _progress(f"{name}: inputs")
            measured = measure.run(TASKS[name](work), asked.pairs, _progress)
        results.append(measured)
        print("\n".join(report.table(measured)), flush=True)
    if asked.json:
        report.write(asked.json, results, asked.pairs)
    good = [outcome.met for result in results for outcome in result.outcomes]
    good += [check.ok for result in results for check in result.task.checks]
    return 0 if all(good) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--task", action="append", choices=list(TASKS), help="default: all")
    parser.add_argument("--pairs", type=int, default=5, help="rounds per task (default 5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all samples")
    return parser


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
