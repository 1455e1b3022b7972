"""Restoring and publishing cuDNN: a gigabyte in 27 files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .children import ROOT, Child, helper, timed, tool
from .inputs import Unavailable, archive_of, cudnn_tree, store_with
from .measure import Contender, Goal, Task

NAME = "cudnn"
_ZSTD = 'tar -C "$tree" -cf - . | zstd -3 -T2 -q -o "$out"'
_GZIP = 'tar -C "$tree" -czf "$out" .'


def restore(work: Path) -> Task:
    """From a folder store into an empty home, beside what unpacks the same tree."""
    task = Task("restore", "cuDNN 9 wheel tree, from a folder store into an empty home")
    tree = _tree(task)
    if tree is None:
        return task
    store, out = store_with(NAME, tree), work / "out"

    def contender(name: str, source: Path, child: Child) -> Contender:
        return Contender(name, lambda: timed(child), _ready(out, source), _gone(out))

    def ours(name: str, job: str) -> Contender:
        return contender(name, store, Child(helper(job, NAME, tree, store, out), cwd=ROOT))

    tarball = archive_of(tree, ".tar.gz", _GZIP)
    task.contenders = [
        ours("artcache", "restore"),
        ours("its floor: the same, no checks", "floor"),
        contender("cp -r", tree, Child(["cp", "-r", f"{tree}/.", out])),
        contender("tar -xzf", tarball, Child(["tar", "-C", out, "-xzf", tarball])),
    ]
    if tool("zstd", task.missing):
        packed = archive_of(tree, ".tar.zst", _ZSTD)
        shell = f"zstd -dcq '{packed}' | tar -C '{out}' -xf -"
        task.contenders.append(contender("zstd -d | tar -x", packed, _bash(shell)))
    task.goals = [Goal("artcache", "faster than", 8.0, "tar -xzf")]
    task.notes = [f"{_bytes(tree) / 1e6:.0f} MB of files; each input is read just before its run"]
    return task


def publish(work: Path) -> Task:
    """Pack and publish to an empty folder store, beside what packs the same tree."""
    task = Task("publish", "cuDNN 9 wheel tree, packed and published to an empty folder store")
    tree = _tree(task)
    if tree is None:
        return task
    out = work / "out"

    def contender(name: str, child: Child) -> Contender:
        return Contender(name, lambda: timed(child), _ready(out, tree), _gone(out))

    archive = {"tree": str(tree), "out": str(out / "archive")}
    words = helper("publish", NAME, tree, out / "store", out)
    task.contenders = [
        contender("artcache", Child(words, cwd=ROOT)),
        contender("tar -czf", _bash(_GZIP, archive)),
    ]
    if tool("zstd", task.missing):
        task.contenders.append(contender("tar | zstd -3 -T2", _bash(_ZSTD, archive)))
        task.contenders.append(
            contender("tar | zstd -3 -T2, flushed", _bash(f'{_ZSTD}; sync "$out"', archive))
        )
        task.goals = [Goal("artcache", "within", 1.0, "tar | zstd -3 -T2, flushed")]
    task.most_rounds = 3  # gzip takes a minute
    task.notes = ["artcache flushes what it publishes to the disk; tar and zstd do not"]
    return task


def _tree(task: Task) -> Path | None:
    try:
        return cudnn_tree()
    except Unavailable as error:
        task.missing["all"] = str(error)
        return None


def _bash(script: str, env: dict[str, str] | None = None) -> Child:
    return Child(["bash", "-o", "pipefail", "-ec", script], env or {})


def _ready(folder: Path, source: Path) -> Callable[[], None]:
    """An empty folder, and the input in the page cache: kernels may take it out between runs."""

    def prepare() -> None:
        folder.mkdir()
        os.sync()  # nobody pays for the pages of the one before
        files = [path for path in source.rglob("*") if path.is_file()] or [source]
        buffer = bytearray(1 << 18)
        for file in files:
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

    return prepare


def _gone(folder: Path) -> Callable[[], None]:
    return lambda: shutil.rmtree(folder)


def _bytes(tree: Path) -> int:
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())
