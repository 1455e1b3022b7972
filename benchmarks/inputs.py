"""What the tasks work on: made or fetched once, kept below ~/.cache/artcache-bench."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import artcache
from artcache.disk import spread
from artcache.home import Home
from artcache.manifest import Manifest
from artcache.tree import digest_files, scan

from .recipes import copying

KEPT = Path(os.environ.get("ARTCACHE_BENCH_DIR") or "~/.cache/artcache-bench").expanduser()
CUDNN = ("nvidia-cudnn-cu12", "9.10.2.21")
OLDER_CUDNN = ("nvidia-cudnn-cu12", "9.10.1.4")
SMALL_FILES = 900
BINARY_BYTES = 3_000_000


class Scale(NamedTuple):
    """How large the inputs are and how often they are measured."""

    name: str
    pairs: int
    bulk: int
    """Bytes of the tree in cuDNN's place; 0: cuDNN itself."""
    images: int
    tiny: int
    """Files of the tree of tiny files."""
    big: int
    """Bytes of the one big file."""
    rates: tuple[float, ...]
    """Of the throttled stores, in MB/s. Goals are about the first."""
    others: bool = True
    """Whether borg, restic and their like take part; they start slowly."""


SCALES = {
    "full": Scale("full", 5, 0, 20_000, 100_000, 4 << 30, (100, 20)),
    "quick": Scale("quick", 2, 60 << 20, 1_000, 3_000, 128 << 20, (100,)),
    "tiny": Scale("tiny", 1, 3 << 20, 20, 60, 2 << 20, (20,), False),
}
scale = SCALES["full"]


def choose(name: str) -> Scale:
    """Make all tasks from here on work at this scale."""
    global scale
    scale = SCALES[name]
    return scale


class Unavailable(Exception):
    """An input that cannot be had here; the message says why."""


@contextmanager
def work_folder() -> Iterator[Path]:
    """Beside the inputs, so on the same disk; empty at first and gone afterwards."""
    KEPT.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        dir=KEPT, prefix="work-", ignore_cleanup_errors=True
    ) as folder:
        spread(Path(folder))
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


# -- trees --------------------------------------------------------------------------------


def cudnn_tree() -> Path:
    """The unzipped wheel: 1.05 GB in 27 files, the largest of 547 MB; small scales: its like.

    Raises:
        Unavailable: pip could not get it.
    """
    if scale.bulk:
        return once(KEPT / f"bulk-{scale.bulk}", lambda out: libraries_like(out, scale.bulk))
    return wheel_tree(*CUDNN)


def older_cudnn_tree() -> Path:
    """The release before, of which the newer one keeps some files."""
    if scale.bulk:
        return once(KEPT / f"bulk-{scale.bulk}-older", _older_bulk)
    return wheel_tree(*OLDER_CUDNN)


def wheel_tree(name: str, version: str) -> Path:
    return once(KEPT / f"{name}-{version}", lambda out: _unzip(cudnn_wheel(name, version), out))


def cudnn_wheel(name: str = CUDNN[0], version: str = CUDNN[1]) -> Path:
    """The wheel itself, as pip downloads it.

    Raises:
        Unavailable: pip could not get it.
    """
    folder = once(KEPT / "wheels" / f"{name}-{version}", lambda out: _pip(name, version, out))
    return next(folder.glob("*.whl"))


def _pip(name: str, version: str, folder: Path) -> None:
    words = ["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "-q", "-d", str(folder)]
    done = subprocess.run(
        [sys.executable, *words, f"{name}=={version}"], capture_output=True, text=True
    )
    if not list(folder.glob("*.whl")):
        raise Unavailable(f"pip could not download {name} {version}: {done.stderr[-300:]}")


def _unzip(wheel: Path, target: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)


def libraries_like(folder: Path, size: int) -> None:
    """A few large files that zstd halves, as shared libraries are."""
    chance = random.Random(3)
    folder.mkdir()
    for number, part in enumerate((50, 25, 15, 7, 3)):
        with (folder / f"liblarge{number}.so").open("wb") as out:
            write_half_random(out.write, size * part // 100, chance)


def write_half_random(write: Callable[[bytes], object], size: int, chance: random.Random) -> None:
    """Bytes of which nothing repeats from afar and half can be compressed away."""
    while size > 0:
        noise = chance.randbytes(1 << 15)
        piece = (noise + noise[:256] * 128)[:size]
        write(piece)
        size -= len(piece)


def _older_bulk(folder: Path) -> None:
    shutil.copytree(cudnn_tree(), folder)
    for name in ("liblarge1.so", "liblarge3.so"):
        with (folder / name).open("r+b") as out:
            write_half_random(out.write, (folder / name).stat().st_size, random.Random(name))


def images_tree() -> Path:
    """Small incompressible files, as photographs are: 27 kB each on average."""
    return once(KEPT / f"images-{scale.images}", _images)


def _images(folder: Path) -> None:
    chance = random.Random(5)
    for number in range(scale.images):
        path = folder / f"{number // 1000:02}" / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(chance.randbytes(int(chance.lognormvariate(10.08, 0.5))))


def part_of_images(count: int) -> Path:
    """The first so many images, for what is too slow for all."""

    def make(folder: Path) -> None:
        folder.mkdir()
        whole = images_tree()
        for path in sorted(whole.rglob("*.jpg"))[:count]:
            shutil.copyfile(path, folder / path.name)

    return once(KEPT / f"images-{count}-of-{scale.images}", make)


def tiny_tree() -> Path:
    """Source trees and label files: texts of 10 to 1,000 bytes."""
    return once(KEPT / f"tiny-{scale.tiny}", _tiny)


def _tiny(folder: Path) -> None:
    chance = random.Random(9)
    for number in range(scale.tiny):
        path = folder / f"{number // 500:03}" / f"{number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{chance.random()} {chance.random()}\n" * chance.randrange(1, 26))


def big_tree() -> Path:
    """One file."""

    def make(folder: Path) -> None:
        folder.mkdir()
        with (folder / "weights.bin").open("wb") as out:
            write_half_random(out.write, scale.big, random.Random(11))

    return once(KEPT / f"big-{scale.big}", make)


def size_of(tree: Path) -> int:
    return sum(path.stat().st_size for path in tree.rglob("*") if path.is_file())


# -- what they are kept in ----------------------------------------------------------------


GZIP = 'tar -C "$tree" -czf "$out" .'
ZSTD = 'tar -C "$tree" -cf - . | zstd -3 -T2 -q -o "$out"'


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


def store_with(name: str, *trees: Path, recipes: Sequence[str] = ()) -> Path:
    """A folder store that holds each tree as `copying(name, tree)`, published by this code.

    Args:
        recipes: A name for each tree, in place of `name`.
    """
    stem = f"store-{name}-{'-'.join(tree.name for tree in trees)}"
    store = KEPT / f"{stem}.{code()}"
    for old in KEPT.glob(f"{stem}.*"):
        if old != store:
            shutil.rmtree(old)

    def make(out: Path) -> None:
        with work_folder() as work:
            for recipe, tree in zip(recipes or [name] * len(trees), trees, strict=True):
                artcache.Cache([out], home=work / "home").build(copying(recipe, tree))

    return once(store, make)


def stored(store: Path) -> int:
    """Bytes of all objects in a folder store."""
    return size_of(store)


def code() -> str:
    """Of the code whose stored form is measured: another one makes its own."""
    whole = hashlib.sha256()
    for file in sorted(Path(artcache.__file__).parent.rglob("*.py")):
        whole.update(file.read_bytes())
    return whole.hexdigest()[:10]


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


def darknet_tree() -> Path:
    """The built one of the rebuild task if it is there, else its like."""
    built = sorted((KEPT / "home-darknet").glob("v1/entries/darknet/*/tree"))
    if built and scale.name == "full":
        return once(KEPT / "darknet-built", lambda out: shutil.copytree(built[0], out))
    return once(KEPT / "darknet-like", darknet_like)


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
