"""The results as one page: plots as inline SVG, nothing fetched from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from . import plots, report

_STYLE = """
:root { --ours: #0b7a75; --peer: #8a93a0; --ink: #1c2230; --soft: #5c6675; --line: #d8dde4;
  --back: #fcfcfd; --good: #1a7f37; --bad: #b3261e; color-scheme: light dark; }
@media (prefers-color-scheme: dark) { :root { --ours: #3fc1b8; --peer: #7d8794; --ink: #e6e9ee;
  --soft: #a3acb9; --line: #333b47; --back: #14181f; --good: #56c271; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--back);
  max-width: 62rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.15rem; margin: 2.5rem 0 .3rem; }
p, li { margin: .2rem 0; } .soft { color: var(--soft); } .good { color: var(--good); }
.bad { color: var(--bad); } svg { width: 100%; height: auto; display: block; margin: .6rem 0; }
svg text { fill: var(--ink); font: 12px system-ui, sans-serif; } svg .soft { fill: var(--soft); }
svg .ours { fill: var(--ours); } svg .peer { fill: var(--peer); }
svg .axis { stroke: var(--line); } svg .whisker { stroke: var(--ink); stroke-width: 1.4; }
svg .fit { stroke: var(--ours); stroke-width: 1.5; fill: none; stroke-dasharray: 5 4; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
td, th { text-align: left; padding: .15rem .8rem .15rem 0; border-bottom: 1px solid var(--line);
  vertical-align: top; } ul { padding-left: 1.1rem; }
.wide { overflow-x: auto; }
"""


def html(document: Mapping[str, Any]) -> str:
    """The whole page for a results document (see `report.document`)."""
    body = "\n".join(_body(document))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>artcache benchmarks</title><style>{_STYLE}</style></head>\n"
        f"<body>\n{body}\n</body></html>\n"
    )


def _body(document: Mapping[str, Any]) -> Iterator[str]:
    tasks = document["tasks"]
    yield f"<h1>artcache {escape(document['artcache'])} and its peers</h1>"
    for line in report.summary(document):
        yield f"<p>{escape(line)}</p>"
    yield (
        "<p class=soft>Contenders of a task run in alternation. Bars are medians, whiskers the"
        f" least and the most; shorter is better. {escape(document['created'])}.</p>"
    )
    yield from _machine(document)
    yield from _goals(tasks)
    for task in tasks:
        yield from _task(task)
    for plot in document.get("growth", ()):
        yield from _growth(plot)
    yield from _peers(document)


def _machine(document: Mapping[str, Any]) -> Iterator[str]:
    facts = document["machine"].items()
    cells = "".join(f"<tr><td>{escape(k)}</td><td>{escape(str(v))}</td></tr>" for k, v in facts)
    yield f"<h2>Machine</h2><div class=wide><table>{cells}</table></div>"


def _goals(tasks: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    rows = [
        f"<tr><td>{_verdict(goal['met'])}</td><td>{escape(task['task'])}</td>"
        f"<td>{escape(report.told(goal, task['unit']))}</td></tr>"
        for task in tasks
        for goal in task["goals"]
    ]
    yield f"<h2>Goals</h2><div class=wide><table>{''.join(rows)}</table></div>"


def _verdict(good: bool, yes: str = "met", no: str = "missed") -> str:
    return f"<span class=good>{yes}</span>" if good else f"<span class=bad>{no}</span>"


def _task(task: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2 id={escape(task['task'])}>{escape(task['title'])}</h2>"
    if task["contenders"]:
        yield plots.bars(task["contenders"], task["unit"])
    yield "<ul>"
    for goal in task["goals"]:
        yield f"<li>{_verdict(goal['met'])}: {escape(report.told(goal, task['unit']))}</li>"
    for check in task["checks"]:
        detail = f" ({check['detail']})" if check["detail"] else ""
        yield f"<li>{_verdict(check['ok'], 'so', 'not so')}: {escape(check['what'] + detail)}</li>"
    for note in task["notes"]:
        yield f"<li class=soft>{escape(note)}</li>"
    for peer, why in task["missing"].items():
        yield f"<li class=soft>missing: {escape(peer)}: {escape(why)}</li>"
    before, after = task["load"]
    yield (
        f"<li class=soft>task <code>{escape(task['task'])}</code>, {task['pairs']} pairs; load"
        f" {before:.1f} before, {after:.1f} after; {escape(task['created'])}</li></ul>"
    )


def _growth(plot: Mapping[str, Any]) -> Iterator[str]:
    yield f"<h2 id=grow-{escape(plot['name'])}>{escape(plot['title'])}</h2>"
    yield plots.growth(plot)
    for line in plot["lines"]:
        yield f"<p>{escape(line)}</p>"


def _peers(document: Mapping[str, Any]) -> Iterator[str]:
    rows = [f"<tr><td>{escape(k)}</td><td>{escape(v)}</td></tr>" for k, v in _all(document)]
    yield f"<h2>Peers</h2><div class=wide><table>{''.join(rows)}</table></div>"


def _all(document: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    here = list(document["peers"].items())
    return here + [(peer, f"missing: {why}") for peer, why in document["missing"].items()]
