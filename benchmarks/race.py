"""Contenders that make one tree appear in an empty folder, and the proof that they did."""

from __future__ import annotations

import filecmp
import itertools
import os
import shutil
import stat
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from . import inputs
from .children import ROOT, Child, bash, helper, timed, tool
from .inputs import GZIP, ZSTD, archive_of
from .measure import Check, Contender, Measured, Task
from .peers import ARCHIVERS, Archiver, with_words

HOME = "v1/entries/*/*/tree"
"""Where in a home the one tree is."""
MEMORY = 150_000_000
"""Bytes that a restore or a publish may take, whatever the size."""


class Race(NamedTuple):
    task: Task
    name: str
    """Of the recipe that the store holds."""
    tree: Path
    work: Path
    clear: Callable[[], None] | None = None
    """Takes a run's files away; None: removes them."""

    @property
    def out(self) -> Path:
        return self.work / "out"

    def add(
        self, name: str, source: Path, child: Child, *, root: str = "", most: int = 1000
    ) -> None:
        """Args:
        source: What it reads; brought into the page cache before each run.
        root: Where in the output folder the tree is then; a glob.
        """
        check = lambda: differing(self.tree, self.out, root)  # noqa: E731
        prepare, clear = ready(self.out, source), self.clear or gone(self.out)
        contender = Contender(name, lambda: timed(child), prepare, clear, check, most)
        self.task.contenders.append(contender)

    def ours(self, store: Path) -> None:
        words = helper("restore", self.name, self.tree, store, self.out)
        self.add("artcache", store, Child(words, cwd=ROOT), root=HOME)

    def floor(self, store: Path) -> None:
        words = helper("floor", self.name, self.tree, store, self.out)
        self.add("its floor: the same, no checks", store, Child(words, cwd=ROOT))

    def copy(self) -> None:
        self.add("cp -r", self.tree, Child(["cp", "-r", f"{self.tree}/.", self.out]))

    def tarballs(self) -> None:
        tarball = archive_of(self.tree, ".tar.gz", GZIP)
        self.add("tar -xzf", tarball, Child(["tar", "-C", self.out, "-xzf", tarball]))
        if tool("zstd", self.task.missing):
            packed = archive_of(self.tree, ".tar.zst", ZSTD)
            script = with_words(
                'zstd -dcq "$packed" | tar -C "$out" -xf -', packed=packed, out=self.out
            )
            self.add("zstd -d | tar -x", packed, bash(script))

    def archivers(self, *, most: int) -> None:
        """Those with a repository of their own, in a folder."""
        for archiver in ARCHIVERS if inputs.scale.others else ():
            if tool(archiver.program, self.task.missing):
                repo = self.work / f"repo-{archiver.program}"
                if self._put(archiver, repo):
                    script = with_words(archiver.get, repo=repo, out=self.out)
                    self.add(archiver.name, repo, bash(script), root=archiver.root, most=most)

    def _put(self, archiver: Archiver, repo: Path) -> bool:
        from .children import ChildFailed

        try:
            timed(bash(with_words(archiver.put, tree=self.tree, repo=repo)))
        except ChildFailed as error:
            self.task.missing[archiver.name] = f"it cannot store the tree: {error}"
            return False
        return True


def differing(tree: Path, out: Path, root: str = "") -> str:
    """The first difference between a tree and what should be its copy, or ''."""
    found = [path for path in out.glob(root) if path.is_dir()] if root else [out]
    if len(found) != 1:
        return f"{len(found)} trees at {root}"
    ours, theirs = _files(tree), _files(found[0])
    if ours != theirs:
        odd = sorted(ours.symmetric_difference(theirs))
        return f"{len(odd)} files are on one side only, such as {odd[0]}"
    for path in sorted(ours):
        one, other = tree / path, found[0] / path
        if os.access(one, os.X_OK) != os.access(other, os.X_OK):
            return f"{path}: another mode"
        if not filecmp.cmp(one, other, shallow=False):
            return f"{path}: other bytes"
    return ""


def _files(tree: Path) -> set[str]:
    found = set()
    for folder, _, names in os.walk(tree):
        found |= {os.path.relpath(os.path.join(folder, name), tree) for name in names}
    return found


def ready(folder: Path, source: Path) -> Callable[[], None]:
    """An empty folder, and the input in the page cache: kernels may take it out between runs."""

    def prepare() -> None:
        gone(folder)()
        folder.mkdir()
        if inputs.scale.name != "tiny":
            os.sync()  # nobody pays for the pages of the one before
        buffer = bytearray(1 << 18)
        for file in [path for path in source.rglob("*") if path.is_file()] or [source]:
            with file.open("rb", buffering=0) as stream:
                while stream.readinto(buffer):
                    pass

    return prepare


def gone(folder: Path) -> Callable[[], None]:
    def remove() -> None:
        for path in [folder, *folder.rglob("*")] if (folder / "nix").exists() else []:
            if path.is_dir() and not path.is_symlink():
                path.chmod(0o755)  # nix takes the right to write away
        shutil.rmtree(folder, ignore_errors=True)

    return remove


def aside(folder: Path) -> Callable[[], None]:
    """Takes a run's many files out of the way without removing them, and gives back their bytes.

    ext4 passes over each file that was removed in the last minutes when it makes a new one:
    after 20,000 of them a restore takes three times as much processor time, which no user's
    empty machine has to pay. They go with the task's folder.
    """
    numbers = itertools.count()

    def move() -> None:
        if not folder.exists():
            return
        places = (folder.with_name(f"{folder.name}-{number}") for number in numbers)
        place = next(one for one in places if not one.exists())
        folder.rename(place)
        for below, _, names in os.walk(place):
            for path in [os.path.join(below, name) for name in names]:
                facts = os.lstat(path)
                # A second name is that of an input: `git clone` links to what is on its disk.
                if stat.S_ISREG(facts.st_mode) and facts.st_nlink == 1:
                    os.chmod(path, 0o644)
                    os.truncate(path, 0)

    return move


def memory_check(measured: Measured) -> None:
    """artcache's peak resident bytes over all runs of a task, in its checks."""
    peaks = [
        sample.rss
        for name, samples in measured.samples.items()
        if name.startswith("artcache")
        for sample in samples
    ]
    if peak := max(peaks, default=0):
        what = f"artcache takes at most {MEMORY / 1e6:.0f} MB of memory"
        measured.task.checks.append(Check(what, peak <= MEMORY, f"{peak / 1e6:.0f} MB"))
