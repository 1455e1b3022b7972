"""The start of a notebook session: cuDNN, darknet and a dataset from a store at 100 MB/s."""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from . import inputs, throttle
from .children import ROOT, Child, bash, console_script, environment, timed, tool
from .inputs import GZIP, KEPT, archive_of, once
from .measure import Contender, Goal, Task
from .peers import with_words
from .publish import constant
from .race import HOME, aside, differing
from .recipes import offered
from .restore import tree_or_missing
from .slow import made

NAMES = ("bench_cudnn", "bench_darknet", "bench_data")
"""Of the recipes, in the order in which they are fetched."""
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
    script = console_script()
    if script is None:
        task.missing["artcache fetch"] = f"{sys.executable} has no artcache script beside it"
        return task
    trees = dict(zip(NAMES, (cudnn, inputs.darknet_tree(), inputs.images_tree()), strict=True))
    store = inputs.store_with("session", *trees.values(), recipes=NAMES)
    rate = inputs.scale.rates[0]
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
    out = work / f"out-{os.urandom(3).hex()}"  # another part of the disk each time
    env = {"PYTHONPATH": f"{offered(work / 'site', trees)}:{ROOT}"}
    words = ["--store", f"read:{kept.at}", "--dir", out, "--build", "never"]
    ours = Child([script, "fetch", *NAMES, *words], env)
    single = " && ".join(
        " ".join(shlex.quote(str(word)) for word in [script, "fetch", name, *words])
        for name in NAMES
    )
    repository = shelf.parent / "darknet.git"
    cells_of = bash(with_words(_ARTICLE, out=out, shelf=cells.at, repository=repository))
    network = f"stored bytes / {rate:g} MB/s"
    put_away = aside(out)

    def contender(
        name: str, child: Child, look: Callable[[Mapping[str, Path], Path], str], most: int = 1000
    ) -> Contender:
        check = lambda: look(trees, out)  # noqa: E731
        return Contender(name, lambda: timed(child), made(out), put_away, check, most)

    task.contenders = [
        contender("artcache", ours, _restored),
        constant(network, inputs.stored(store) / (rate * 1e6)),
        contender("artcache, one command each", bash(single, env), _restored, 2),
        contender("the article's cells", cells_of, _unpacked),
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
        (shelf / "cudnn.tar.gz").hardlink_to(archive_of(trees[NAMES[0]], ".tar.gz", GZIP))
        program = trees[NAMES[1]] / "darknet"
        program = program if program.exists() else next(trees[NAMES[1]].rglob("darknet"))
        (shelf / "darknet").write_bytes(program.read_bytes())
        _run(["zip", "-q", "-1", "-r", str(shelf / "images.zip"), "."], trees[NAMES[2]])
        repository = folder / "darknet.git"
        _run(["cp", "-r", str(trees[NAMES[1]]), str(repository)], folder)
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
    return differing(trees[NAMES[0]], out / "cuda") or differing(trees[NAMES[2]], out / "data")
