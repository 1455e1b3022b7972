"""Contenders run in alternation, so that a busy machine is as unkind to one as to the other."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Sample(NamedTuple):
    """One run."""

    seconds: float
    cpu: float = 0.0
    """Seconds of processor time, of the process and its children."""
    rss: int = 0
    """Peak resident bytes; 0 if nobody measured it."""


def _nothing() -> None:
    return


class Contender(NamedTuple):
    name: str
    run: Callable[[], Sample]
    prepare: Callable[[], object] = _nothing
    """Before each run, not timed."""
    clean: Callable[[], object] = _nothing
    """After each run, not timed."""
    check: Callable[[], str] = lambda: ""
    """Once, after the first run and before its `clean`, not timed: what is wrong with the
    result, or ''."""
    most: int = 1000
    """Rounds that it takes part in, at most: for slow ones that no goal names."""


class Goal(NamedTuple):
    """What `ours` has to reach. Each kind of `word` is one line of `_ratio` and `_met`."""

    ours: str
    word: str
    """`faster than`: at least `factor` times; `within`: at most `factor` times the peer's
    time; `under`: at most `factor` of the task's unit."""
    factor: float
    peer: str = ""


@dataclass
class Task:
    name: str
    title: str
    contenders: list[Contender] = field(default_factory=list)
    goals: list[Goal] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    """Peers that could not take part, each with why."""
    repeat: int = 1
    """Runs of each contender for one pair: short ones need more."""
    most_rounds: int = 1000
    notes: list[str] = field(default_factory=list)
    checks: list[Check] = field(default_factory=list)
    verdicts: list[Callable[[], Check]] = field(default_factory=list)
    """Checks that only the whole run can tell, asked after the last round."""
    unit: str = "s"
    """Of `Sample.seconds`: `s`, or `B` where sizes are compared."""
    close: Callable[[], object] = _nothing
    """Stops what the task started: servers, mounts."""


class Check(NamedTuple):
    """Something that is so or is not, rather than fast or slow."""

    what: str
    ok: bool
    detail: str = ""


class Outcome(NamedTuple):
    goal: Goal
    value: float
    """A ratio of medians, or seconds for `under`."""
    low: float
    high: float
    """The least and the most over single rounds."""
    met: bool
    cpu: float
    """The ratio by processor time, which a busy machine changes less; 0.0 if unknown."""


class Measured(NamedTuple):
    task: Task
    samples: dict[str, list[Sample]]
    outcomes: list[Outcome]
    load: tuple[float, float]
    """The machine's one-minute load before and after."""
    took: float = 0.0
    """Seconds, all in all."""


LIMIT = 900.0
"""Seconds after which a task starts no further round."""


def run(task: Task, pairs: int, progress: Callable[[str], None]) -> Measured:
    """Run every contender once to warm up and to check its result, then in rounds whose
    order turns and reverses. One that fails, in whichever round, is told and left out."""
    began, before = time.monotonic(), os.getloadavg()[0]
    samples: dict[str, list[Sample]] = {contender.name: [] for contender in task.contenders}
    able = []
    for contender in task.contenders:
        progress(f"{task.name}: warm-up: {contender.name}")
        if _warm_up(task, contender, samples):
            able.append(contender)
    rounds = min(pairs * task.repeat, task.most_rounds) if able else 0
    for number in range(rounds):
        if not able:
            break
        if time.monotonic() - began > LIMIT:
            task.notes.append(f"ended after {number} of {rounds} rounds: it took too long")
            break
        for contender in _order(able, number):
            if number < contender.most:
                progress(f"{task.name}: round {number + 1} of {rounds}: {contender.name}")
                if not _one(task, contender, samples[contender.name]):
                    able.remove(contender)
    progress("")
    task.checks += [verdict() for verdict in task.verdicts]
    samples = {name: taken for name, taken in samples.items() if taken}
    outcomes = [_outcome(goal, samples) for goal in task.goals if _present(goal, samples)]
    load = (before, os.getloadavg()[0])
    return Measured(task, samples, outcomes, load, time.monotonic() - began)


def _warm_up(task: Task, contender: Contender, samples: dict[str, list[Sample]]) -> bool:
    try:
        contender.prepare()
        first = contender.run()
        wrong = contender.check()
    except Failed as error:
        wrong = str(error)
    finally:
        contender.clean()
    if wrong:
        task.checks.append(_broken(contender, wrong))
    elif contender.most == 0:
        samples[contender.name].append(first)
    return not wrong


def _one(task: Task, contender: Contender, samples: list[Sample]) -> bool:
    """Whether it did its work; if not, what it did before counts no longer either."""
    try:
        contender.prepare()
        samples.append(contender.run())
    except Failed as error:
        task.checks.append(_broken(contender, str(error)))
        samples.clear()
        return False
    finally:
        contender.clean()
    return True


def _broken(contender: Contender, why: str) -> Check:
    return Check(f"{contender.name} does its work", False, why)


class Failed(Exception):
    """A contender that did not do its work must not win."""


def _order(contenders: Sequence[Contender], number: int) -> list[Contender]:
    """Each contender comes first, last and after each other one about equally often."""
    start = number // 2 % len(contenders)
    turned = [*contenders[start:], *contenders[:start]]
    return turned[::-1] if number % 2 else turned


def _present(goal: Goal, samples: dict[str, list[Sample]]) -> bool:
    return all(samples.get(name) for name in (goal.ours, goal.peer) if name)


def _outcome(goal: Goal, samples: dict[str, list[Sample]]) -> Outcome:
    ours = [sample.seconds for sample in samples[goal.ours]]
    theirs = [sample.seconds for sample in samples[goal.peer]] if goal.peer else ours
    value = _ratio(goal, statistics.median(ours), statistics.median(theirs))
    rounds = [_ratio(goal, a, b) for a, b in zip(ours, theirs, strict=False)]
    met = value >= goal.factor if goal.word == "faster than" else value <= goal.factor
    return Outcome(goal, value, min(rounds), max(rounds), met, _cpu_ratio(goal, samples))


def _cpu_ratio(goal: Goal, samples: dict[str, list[Sample]]) -> float:
    if not goal.peer:
        return 0.0
    cpu = [
        statistics.fmean(sample.cpu for sample in samples[name]) for name in (goal.ours, goal.peer)
    ]
    return _ratio(goal, *cpu) if all(cpu) else 0.0


def _ratio(goal: Goal, ours: float, theirs: float) -> float:
    if goal.word == "faster than":
        return theirs / ours
    return ours / theirs if goal.word == "within" else ours


def median(samples: Sequence[Sample]) -> float:
    return statistics.median(sample.seconds for sample in samples)


def as_json(measured: Measured) -> dict[str, Any]:
    """For the results folder, from which the page is made."""
    task = measured.task
    return {
        "task": task.name,
        "title": task.title,
        "unit": task.unit,
        "took": round(measured.took, 1),
        "load": measured.load,
        "contenders": {
            name: {
                "median": median(samples),
                "least": min(sample.seconds for sample in samples),
                "most": max(sample.seconds for sample in samples),
                "samples": [sample._asdict() for sample in samples],
            }
            for name, samples in measured.samples.items()
        },
        "goals": [
            {**outcome.goal._asdict(), **outcome._asdict(), "goal": None}
            for outcome in measured.outcomes
        ],
        "checks": [check._asdict() for check in task.checks],
        "missing": task.missing,
        "notes": task.notes,
    }
