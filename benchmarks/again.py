"""A large tree that is in the home already: every byte verified, and put into a folder."""

from __future__ import annotations

import shutil
from pathlib import Path

from . import inputs
from .children import ROOT, Child, helper, timed, told
from .measure import Contender, Goal, Sample, Task
from .race import differing, ready
from .restore import quoted, tree_or_missing


def verify(work: Path) -> Task:
    """A hit with `--verify`, beside reading the same bytes."""
    task = Task("verify", "warm hit on cuDNN with every byte verified, whole process")
    tree = tree_or_missing(task)
    if tree is None:
        return task
    home = _home(tree, work)
    hit = Child(helper("verified", "cudnn", tree, home), cwd=ROOT)
    read = Child(["bash", "-ec", f"find {quoted(tree)} -type f -exec cat {{}} + > /dev/null"])
    also = Child(helper("read_all", tree), cwd=ROOT)
    warm = ready(work / "unused", home)
    task.contenders = [
        Contender("artcache fetch, all bytes verified", lambda: timed(hit), warm),
        Contender("reading it: cat", lambda: timed(read), ready(work / "unused", tree)),
        Contender("reading it: Python, all cores", lambda: timed(also), ready(work / "x", tree)),
    ]
    task.goals = [Goal("artcache fetch, all bytes verified", "within", 1.3, "reading it: cat")]
    return task


def to(work: Path) -> Task:
    """`--to DIR` when the tree is in the home."""
    task = Task("to", "cuDNN from the home into a folder (`--to`), in a running process")
    tree = tree_or_missing(task)
    if tree is None:
        return task
    home, out = _home(tree, work), work / "prefix"
    child = Child(helper("materialise", "cudnn", tree, home, out), cwd=ROOT)
    gone = lambda: shutil.rmtree(out, ignore_errors=True)  # noqa: E731
    check = lambda: _installed(tree, out)  # noqa: E731
    copy = Child(["cp", "-r", tree, out])
    task.contenders = [
        Contender("artcache --to", lambda: Sample(told(child)), gone, gone, check),
        Contender("cp -r", lambda: timed(copy), gone, gone),
    ]
    task.goals = [Goal("artcache --to", "under", 0.05)]
    return task


def _home(tree: Path, work: Path) -> Path:
    store, home = inputs.store_with("cudnn", tree), work / "home"
    timed(Child(helper("restore", "cudnn", tree, store, home), cwd=ROOT))
    return home


def _installed(tree: Path, out: Path) -> str:
    for extra in out.glob(".artcache*"):
        shutil.rmtree(extra)
    return differing(tree, out)
