"""The start of a notebook session: cuDNN, darknet and a dataset from a store at 100 MB/s."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Mapping
from pathlib import Path

from . import inputs, throttle
from .children import ROOT, Child, bash, environment, helper, timed, tool
from .inputs import GZIP, KEPT, archive_of, once
from .measure import Contender, Goal, Task
from .peers import with_words
from .publish import constant
from .race import HOME, aside, differing
from .restore import tree_or_missing
from .slow import made

NAME = "session"
_ARTICLE = """
mkdir -p "$out/cuda" "$out/data"
cp "$shelf/cudnn.tar.gz" "$out/"
tar -C "$out/cuda" -xzf "$out/cudnn.tar.gz"
git clone -q "$repository" "$out/darknet"
cp "$shelf/darknet" "$out/darknet/darknet"
chmod +x "$out/darknet/darknet"
cp "$shelf/images.zip" "$out/"
unzip -q "$out/images.zip" -d "$out/data"
"""
"""The article's cells, in its good case: darknet is not compiled but copied."""


def session(work: Path) -> Task:
    """Everything that a session needs, into an empty machine."""
    task = Task("session", "session start: cuDNN, darknet and the images from a throttled mount")
    cudnn = tree_or_missing(task)
    if cudnn is None:
        return task
    trees = {"cuda": cudnn, "darknet": inputs.darknet_tree(), "data": inputs.images_tree()}
    store, rate = inputs.store_with(NAME, *trees.values()), inputs.scale.rates[0]
    closing = contextlib.ExitStack()
    task.close = closing.close
    try:
        if not all(tool(name, task.missing) for name in ("git", "zip", "unzip")):
            return task
        shelf = _shelf(trees)
        kept, cells = (
            closing.enter_context(
                throttle.mounted(folder, work / name, rate=rate * 1e6, latency=0.0)
            )
            for folder, name in ((store, "store"), (shelf, "shelf"))
        )
    except OSError as error:
        task.missing["a throttled mount"] = str(error)
        return task
    out = work / "out"
    pairs = [f"{NAME}={tree}" for tree in trees.values()]
    ours = Child(helper("session", kept.at, out, *pairs), cwd=ROOT)
    repository = shelf.parent / "darknet.git"
    script = bash(with_words(_ARTICLE, out=out, shelf=cells.at, repository=repository))
    network = f"stored bytes / {rate:g} MB/s"
    put_away = aside(out)

    def contender(name: str, child: Child, check: str) -> Contender:
        look = (lambda: _restored(trees, out)) if check else (lambda: _unpacked(trees, out))
        return Contender(name, lambda: timed(child), made(out), put_away, look)

    task.contenders = [
        contender("artcache", ours, "homes"),
        constant(network, inputs.stored(store) / (rate * 1e6)),
        contender("the article's cells", script, ""),
        constant(f"their bytes / {rate:g} MB/s", inputs.stored(shelf) / (rate * 1e6)),
    ]
    task.goals = [
        Goal("artcache", "within", 1.1, network),
        Goal("artcache", "within", 0.1, "the article's cells"),
    ]
    task.notes = [
        "the article's cells: cp and tar -xzf of cuDNN, git clone and cp of a built darknet,"
        " cp and unzip of the images; the clone is local",
        "artcache's bytes alone take a good part of what the cells take: nobody's empty machine"
        " is ten times as quick as they are, only one whose home has it is",
    ]
    return task


def _shelf(trees: Mapping[str, Path]) -> Path:
    """What the article keeps on its Drive; and beside it the repository that it clones."""

    def make(folder: Path) -> None:
        shelf = folder / "shelf"
        shelf.mkdir(parents=True)
        (shelf / "cudnn.tar.gz").hardlink_to(archive_of(trees["cuda"], ".tar.gz", GZIP))
        program = trees["darknet"] / "darknet"
        program = program if program.exists() else next(trees["darknet"].rglob("darknet"))
        (shelf / "darknet").write_bytes(program.read_bytes())
        _run(["zip", "-q", "-1", "-r", str(shelf / "images.zip"), "."], trees["data"])
        repository = folder / "darknet.git"
        _run(["cp", "-r", str(trees["darknet"]), str(repository)], folder)
        for words in (["init", "-q"], ["add", "-A"], ["commit", "-q", "-m", "darknet"]):
            _run(["git", "-c", "user.name=b", "-c", "user.email=b@example.org", *words], repository)

    names = "-".join(tree.name for tree in trees.values())
    return once(KEPT / f"article-{names}", make) / "shelf"


def _run(words: list[str], folder: Path) -> None:
    subprocess.run(words, cwd=folder, env=environment({}), check=True)


def _restored(trees: Mapping[str, Path], out: Path) -> str:
    found = [path for path in out.glob(HOME) if path.is_dir()]
    for name, tree in trees.items():
        if all(differing(tree, one) for one in found):
            return f"none of the {len(found)} trees in the home is that of {name}"
    return ""


def _unpacked(trees: Mapping[str, Path], out: Path) -> str:
    return differing(trees["cuda"], out / "cuda") or differing(trees["data"], out / "data")
