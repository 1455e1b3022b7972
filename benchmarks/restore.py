"""From a folder store into an empty home: cuDNN, images, tiny files, one big file."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path

from . import inputs, throttle
from .children import Child, timed
from .measure import Contender, Goal, Sample, Task
from .race import Race, aside, differing, gone, ready

_LATENCY = 0.005
_PART = 20
"""cp -r from the slow mount takes one part in so many of the images."""


def restore(work: Path) -> Task:
    """A gigabyte in 27 files, beside what unpacks the same tree."""
    task = Task("restore", "cuDNN 9 wheel tree, from a folder store into an empty home")
    tree = tree_or_missing(task)
    if tree is None:
        return task
    race, store = Race(task, "cudnn", tree, work), inputs.store_with("cudnn", tree)
    race.ours(store)
    race.floor(store)
    race.copy()
    race.tarballs()
    race.archivers(most=2)
    _pip(race)
    task.goals = [
        Goal("artcache", "within", 1.15, "its floor: the same, no checks"),
        Goal("artcache", "faster than", 12.0, "tar -xzf"),
        Goal("artcache", "faster than", 2.0, "zstd -d | tar -x"),
    ]
    task.notes = [
        f"{inputs.size_of(tree) / 1e6:.0f} MB of files; each input is read just before its run"
    ]
    return task


def _pip(race: Race) -> None:
    """The wheel itself, from a folder: what a notebook does that caches nothing."""
    if inputs.scale.bulk:
        race.task.missing["pip install"] = "at this scale there is no wheel"
        return
    wheel, out = inputs.cudnn_wheel(), race.work / "wheel"
    words = ["-m", "pip", "install", "-q", "--no-deps", "--no-index", "--no-compile"]
    child = Child([sys.executable, *words, "--target", out, wheel])
    check = lambda: differing(race.tree / "nvidia", out / "nvidia")  # noqa: E731
    contender = Contender(
        "pip install of the wheel", lambda: timed(child), ready(out, wheel), gone(out), check, 2
    )
    race.task.contenders.append(contender)


def images(work: Path) -> Task:
    """Many small files that nothing compresses."""
    count = inputs.scale.images
    task = Task("images", f"{count:,} images, from a folder store into an empty home")
    tree = inputs.images_tree()
    race = Race(task, "images", tree, work, aside(work / "out"))
    race.ours(inputs.store_with("images", tree))
    race.copy()
    race.tarballs()
    slow = f"cp -r from a mount with {_LATENCY * 1000:.0f} ms a call"
    _copy_from_mount(race, slow)
    task.goals = [
        Goal("artcache", "within", 0.6, "tar -xzf"),
        Goal("artcache", "within", 0.2, slow),
    ]
    task.notes.append(f"{inputs.size_of(tree) / 1e6:.0f} MB of files")
    return task


def _copy_from_mount(race: Race, name: str) -> None:
    part = inputs.part_of_images(max(inputs.scale.images // _PART, 1))
    try:
        mount = throttle.Mount(part, race.work / "mount", latency=_LATENCY)
    except OSError as error:
        race.task.missing[name] = str(error)
        return
    race.task.close = mount.close
    child = Child(["cp", "-r", f"{mount.at}/.", race.out])

    def run() -> Sample:
        one = timed(child)
        return Sample(one.seconds * _PART, one.cpu * _PART)

    check = lambda: differing(part, race.out)  # noqa: E731
    contender = Contender(name, run, ready(race.out, part), race.clear or gone(race.out), check)
    race.task.contenders.append(contender)
    race.task.notes.append(
        f"{name}: {_PART} x the time of a {_PART}th of the images; each waits alike"
    )


def tiny(work: Path) -> Task:
    """What creating files costs."""
    count = inputs.scale.tiny
    task = Task("tiny", f"{count:,} tiny files, from a folder store into an empty home")
    task.most_rounds = 3
    tree = inputs.tiny_tree()
    race = Race(task, "tiny", tree, work, aside(work / "out"))
    race.ours(inputs.store_with("tiny", tree))
    race.copy()
    race.tarballs()
    return task


def big(work: Path) -> Task:
    """Does size alone cost anything: memory, or time for a byte?"""
    task = Task("big", f"one file of {inputs.scale.big / 1e9:.1f} GB, from a folder store")
    task.most_rounds = 3
    tree = inputs.big_tree()
    race = Race(task, "big", tree, work)
    store = inputs.store_with("big", tree)
    race.ours(store)
    race.floor(store)
    race.copy()
    race.tarballs()
    task.contenders = [
        one._replace(most=1) if one.name == "tar -xzf" else one for one in task.contenders
    ]
    return task


def tree_or_missing(task: Task) -> Path | None:
    try:
        return inputs.cudnn_tree()
    except inputs.Unavailable as error:
        task.missing["all"] = str(error)
        return None


def quoted(*words: object) -> str:
    return shlex.join(str(word) for word in words)
