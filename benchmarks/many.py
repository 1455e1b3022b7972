"""Stores of 1, 1,000 and 100,000 artifacts: what a fetch, a listing and a dry run of gc cost."""

from __future__ import annotations

import math
import os
import shutil
from pathlib import Path

from artcache.digest import blake3
from artcache.key import Key
from artcache.layout import MANIFESTS, pack_name, siblings_folder

from .children import ROOT, Child, console_script, helper, timed, told
from .inputs import KEPT, once
from .measure import Check, Contender, Goal, Sample, Task

NAME = "many"
COUNTS = (1, 1_000, 100_000)
_LINKS = 50_000
"""Hard links to one file; ext4 has a limit of 65,000."""


def many(work: Path) -> Task:
    """Every run fetches the same small artifact into an empty home."""
    task = Task("many", "a small artifact from folder stores of 1, 1,000 and 100,000")
    task.repeat = 4
    script = console_script()
    if script is None:
        task.missing["artcache"] = "no artcache script beside this Python"
        return task
    stores = {count: store_of(count) for count in COUNTS}
    for count, store in stores.items():
        for job in ("hit", "miss"):
            task.contenders.append(_fetch(job, count, store, work / "home"))
    most = COUNTS[-1]
    task.goals = [
        Goal(f"hit, {most:,}", "within", 1.1, "hit, 1"),
        Goal(f"miss, {most:,}", "within", 1.1, "miss, 1"),
    ]
    for words in (["ls"], ["ls", "--json"], ["gc", "--keep-last", "10"]):
        _look(task, [script, *words], stores, work)
    task.notes.append("a miss builds a tree of one file and publishes nothing")
    return task


def _fetch(job: str, count: int, store: Path, home: Path) -> Contender:
    child = Child(helper(f"many_{job}", tree(), store, home), cwd=ROOT)
    gone = lambda: shutil.rmtree(home, ignore_errors=True)  # noqa: E731
    return Contender(f"{job}, {count:,}", lambda: Sample(told(child)), gone, gone)


def _look(task: Task, argv: list[str | Path], stores: dict[int, Path], work: Path) -> None:
    """Run a command once on each store: how its time and memory grow."""
    name = " ".join(str(word) for word in argv[1:])
    cost = {}
    for count, store in stores.items():
        words = [*argv, "--store", f"read:{store}", "--dir", work / "nowhere"]
        cost[count] = timed(Child(words, cwd=work))
        one = cost[count]
        rss = f"{one.rss >> 20} MiB" if one.rss else "less memory than an empty Python"
        task.notes.append(f"{name} of {count:,}: {one.seconds:.2f} s, {one.cpu:.2f} s CPU, {rss}")
    small, large = cost[COUNTS[1]], cost[COUNTS[2]]
    grown = (large.cpu - cost[1].cpu) / max(small.cpu - cost[1].cpu, 0.001)
    exponent = math.log(grown) / math.log(COUNTS[2] / COUNTS[1])
    told_ = f"exponent {exponent:.2f}"
    task.checks.append(Check(f"{name}: time grows no faster than the store", exponent < 1.2, told_))
    extra = (large.rss - max(small.rss, cost[1].rss)) / (1 << 20)
    task.checks.append(
        Check(f"{name}: 100 x the store in at most 64 MiB more", extra < 64, f"{extra:.0f} MiB")
    )


# -- the stores ---------------------------------------------------------------------------


def tree() -> Path:
    """What is fetched: one small file."""

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "program").write_bytes(b"#!/bin/sh\n" + bytes(range(256)) * 80)

    return once(KEPT / "many-tree", make)


def store_of(count: int) -> Path:
    """A folder store of so many artifacts, one of them real, made once."""
    return once(KEPT / f"many-{count}", lambda store: _fill(store, count))


def _fill(store: Path, count: int) -> None:
    told(Child(helper("many_publish", tree(), store, store / "home"), cwd=ROOT))
    shutil.rmtree(store / "home")
    (manifest,) = (store / MANIFESTS / NAME).iterdir()
    (pack,) = store.glob("v1/packs/*/*.pack")
    like, source = manifest.read_text(), pack
    key, old = Key(told(Child(helper("many_fields", tree()), cwd=ROOT))), pack.stem
    for number in range(1, count):
        if number % _LINKS == 0:  # so many links to one file
            source = Path(shutil.copyfile(pack, store / f"source-{number}"))
        other = Key({**key.fields, "commit": f"{number:040x}"})
        digest = blake3(b"%d" % number)
        body = like.replace(key.hash, other.hash).replace(old, digest)
        body = body.replace(f'"commit":"{key.get("commit")}"', f'"commit":"{number:040x}"')
        (manifest.parent / f"{other.hash}.json").write_text(body)
        link = store / pack_name(digest)
        link.parent.mkdir(exist_ok=True)
        os.link(source, link)
        hint = store / siblings_folder(other) / f"{other.hash}.json"
        hint.parent.mkdir(exist_ok=True)
        hint.write_bytes(other.canonical)
    for left in store.glob("source-*"):
        left.unlink()
