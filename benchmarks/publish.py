"""Into a store: how long, how large, and how much of a new version is new."""

from __future__ import annotations

from pathlib import Path

from . import inputs
from .children import ROOT, Child, ChildFailed, bash, helper, timed, told, tool
from .inputs import GZIP, ZSTD
from .measure import Check, Contender, Goal, Sample, Task
from .peers import ARCHIVERS, with_words
from .race import gone, ready
from .restore import tree_or_missing


def publish(work: Path) -> Task:
    """Pack and publish to an empty folder store, beside what packs the same tree."""
    task = Task("publish", "cuDNN 9 wheel tree, packed and published to an empty folder store")
    tree = tree_or_missing(task)
    if tree is None:
        return task
    out = work / "out"

    def add(name: str, child: Child, most: int = 1000) -> None:
        contender = Contender(name, lambda: timed(child), ready(out, tree), gone(out), most=most)
        task.contenders.append(contender)

    def archive(name: str, script: str, most: int = 1000) -> None:
        add(name, bash(with_words(script, tree=tree, out=out / "archive")), most)

    for name, word in (("artcache", "default"), ("artcache, fast", "fast")):
        words = helper("publish", "cudnn", tree, out / "store", out, word)
        add(name, Child(words, cwd=ROOT))
    archive("tar -czf", GZIP)
    if tool("zstd", task.missing):
        archive("tar | zstd -3 -T2", ZSTD)
        archive("tar | zstd -3 -T2, flushed", f'{ZSTD}; sync "$out"')
    if tool("pigz", task.missing):
        archive("tar | pigz", 'tar -C "$tree" -cf - . | pigz > "$out"', 2)
    for one in ARCHIVERS if inputs.scale.others else ():
        if tool(one.program, task.missing):
            add(one.name, bash(with_words(one.put, tree=tree, repo=out / "repo")), 1)
    task.goals = [
        Goal("artcache", "within", 0.25, "tar -czf"),
        Goal("artcache, fast", "within", 1.2, "tar | zstd -3 -T2, flushed"),
    ]
    task.notes = ["artcache flushes what it publishes to the disk; tar and zstd do not"]
    return task


def sizes(work: Path) -> Task:
    """Stored bytes, by contender and input."""
    task = Task("sizes", "stored bytes", unit="B", most_rounds=0)
    trees = {
        "darknet": (inputs.darknet_tree(), "tar | zstd -3", 1.0),
        "images": (inputs.images_tree(), "tar | zstd -3", 1.0),
    }
    if tree := tree_or_missing(task):
        trees = {"cudnn": (tree, "tar -czf", 0.84), **trees}
    for name, (tree, peer, factor) in trees.items():
        found = {"artcache": inputs.stored(inputs.store_with(name, tree))}
        found["tar -czf"] = inputs.archive_of(tree, ".tar.gz", GZIP).stat().st_size
        if tool("zstd", task.missing):
            found["tar | zstd -3"] = inputs.archive_of(tree, ".tar.zst", ZSTD).stat().st_size
        found["files themselves"] = inputs.size_of(tree)
        for title, size in found.items():
            task.contenders.append(constant(f"{name}: {title}", size))
        task.goals.append(Goal(f"{name}: artcache", "within", factor, f"{name}: {peer}"))
    return task


def constant(name: str, value: float) -> Contender:
    """What is calculated or counted, and is the same in each round."""
    return Contender(name, lambda: Sample(value), most=0)


def upgrade(work: Path) -> Task:
    """A patch release of cuDNN over its predecessor: what is uploaded."""
    task = Task("upgrade", "cuDNN's patch release over the one before: bytes that are stored anew")
    task.unit, task.most_rounds = "B", 0
    try:
        older, newer = inputs.older_cudnn_tree(), inputs.cudnn_tree()
    except inputs.Unavailable as error:
        task.missing["all"] = str(error)
        return task
    store = work / "store"
    facts = told(Child(helper("upgrade", "cudnn", older, newer, store, work / "home"), cwd=ROOT))
    task.contenders = [
        constant("artcache", facts["uploaded"]),
        constant("artcache: frames that no earlier pack holds", facts["new"]),
        constant("artcache: all frames", facts["all"]),
    ]
    new = "artcache: frames that no earlier pack holds"
    task.goals = [Goal("artcache", "within", 1.01, new)]
    for one in ARCHIVERS if inputs.scale.others else ():
        if tool(one.program, task.missing):
            repo, growth = work / f"repo-{one.program}", []
            try:
                for tree in (older, newer):
                    timed(bash(with_words(one.put, tree=tree, repo=repo)))
                    growth.append(inputs.stored(_kept(repo)))
            except ChildFailed as error:
                task.checks.append(Check(f"{one.name} does its work", False, str(error)))
                continue
            task.contenders.append(constant(one.name, max(growth[1] - growth[0], 1)))
    task.notes.append("artcache's bytes include a manifest; restic's, borg's and casync's an index")
    return task


def _kept(repo: Path) -> Path:
    """Of a repository what another machine would read."""
    for part in ("remote", "cache"):
        if (repo / part).is_dir():
            return repo / part
    return repo
