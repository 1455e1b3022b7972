"""What the tasks work on: made or fetched once, kept below ~/.cache/artcache-bench."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import artcache
from artcache.home import Home
from artcache.manifest import Manifest
from artcache.tree import digest_files, scan

from .recipes import copying

KEPT = Path("~/.cache/artcache-bench").expanduser()
CUDNN = ("nvidia-cudnn-cu12", "9.10.2.21")
SMALL_FILES = 900
BINARY_BYTES = 3_000_000


class Unavailable(Exception):
    """An input that cannot be had here; the message says why."""


@contextmanager
def work_folder() -> Iterator[Path]:
    """Beside the inputs, so on the same disk; empty at first and gone afterwards."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=KEPT, prefix="work-") as folder:
        yield Path(folder)


def once(target: Path, make: Callable[[Path], object]) -> Path:
    """`target`, made by `make(temporary)` and renamed if it is not there yet."""
    if not target.exists():
        temporary = target.with_name(f".{target.name}.{os.getpid()}")
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            make(temporary)
            temporary.rename(target)
        finally:
            if temporary.is_dir():
                shutil.rmtree(temporary)
            temporary.unlink(missing_ok=True)
    return target


# -- cuDNN --------------------------------------------------------------------------------


def cudnn_tree() -> Path:
    """The unzipped wheel: 1.05 GB in 27 files, the largest of 547 MB.

    Raises:
        Unavailable: pip could not get it.
    """
    name, version = CUDNN
    return once(KEPT / f"{name}-{version}", _unzip_cudnn)


def _unzip_cudnn(target: Path) -> None:
    name, version = CUDNN
    with tempfile.TemporaryDirectory(dir=KEPT) as folder:
        words = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", folder]
        done = subprocess.run(
            [sys.executable, *words, f"{name}=={version}"], capture_output=True, text=True
        )
        wheels = list(Path(folder).glob("*.whl"))
        if not wheels:
            raise Unavailable(f"pip could not download {name} {version}: {done.stderr[-300:]}")
        with zipfile.ZipFile(wheels[0]) as archive:
            archive.extractall(target)


def archive_of(tree: Path, suffix: str, command: str) -> Path:
    """An archive of `tree` beside it, made once by a shell command that reads `$tree`."""
    return once(
        tree.with_name(tree.name + suffix),
        lambda out: subprocess.run(
            ["bash", "-o", "pipefail", "-ec", command],
            env={**os.environ, "tree": str(tree), "out": str(out)},
            check=True,
        ),
    )


def store_with(name: str, tree: Path) -> Path:
    """A folder store that holds `tree` as `copying(name, tree)`, published once."""
    store = KEPT / f"store-{name}"
    with work_folder() as work:
        recipe = copying(name, tree)
        cache = artcache.Cache([store], home=work / "home")
        if cache.tiers[0].repository.find(cache.variants(recipe)[0].key) is None:
            cache.build(recipe)
    return store


# -- darknet ------------------------------------------------------------------------------


def darknet_like(folder: Path) -> None:
    """A tree with the shape of darknet's: many small files and one program."""
    chance = random.Random(7)
    places = ["cfg", "data", "data/labels", "data/goturn", "licences"]
    for number in range(SMALL_FILES):
        path = folder / places[number % len(places)] / f"file-{number:03}.cfg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(chance.randrange(100, 8000)))
    program = folder / "darknet"
    program.write_bytes(chance.randbytes(BINARY_BYTES))
    program.chmod(0o755)


def home_with_darknet(folder: Path, *requests: artcache.Request) -> Path:
    """A home in which `artcache fetch darknet` with each of these requests is a hit."""
    cache = artcache.Cache([], home=folder)
    home = Home(folder)
    for request in requests:
        key = cache.variants("darknet", request)[0].key
        with home.staging() as staging:
            tree = staging / "entry" / "tree"
            tree.mkdir(parents=True)
            darknet_like(tree)
            found = scan(tree)
            manifest = Manifest(key, digest_files(tree, found), found.links, found.dirs)
            home.commit(tree.parent, manifest, "built")
    return folder
