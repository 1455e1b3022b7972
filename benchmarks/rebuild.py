"""darknet: a cache of artifacts beside caches of object files, ccache and sccache."""

from __future__ import annotations

import itertools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import artcache
from artcache.errors import ArtcacheError, BuildFailed
from artcache.recipe import BuildContext
from artcache.toolchain import GpuArch
from darknet_recipe.build import prepare
from darknet_recipe.darknet import DarknetRecipe

from .children import Child, bash, console_script, environment, timed, tool
from .inputs import KEPT, archive_of, code, once
from .measure import Contender, Goal, Sample, Task
from .throttle import free_port


class Kind(NamedTuple):
    """One way to build darknet."""

    name: str
    title: str
    request: artcache.Request
    words: tuple[str, ...]
    """The same request on the command line."""
    compilers: Mapping[str, str]
    """make's variable -> the compiler that is started through a cache."""


CPU = Kind(
    "darknet",
    "darknet for the CPU (Debian's source)",
    artcache.Request(source="debian", cuda="none"),
    ("--source", "debian", "--cuda", "none"),
    {"CC": "gcc", "CPP": "g++"},
)
GPU = Kind(
    "darknet-gpu",
    "darknet with CUDA 13 for sm_75 (Debian's source, the wheels' nvcc)",
    artcache.Request(
        source="debian", cuda="13.0", archs=GpuArch.parse("sm_75"), toolchain="wheels"
    ),
    ("--source", "debian", "--cuda", "13.0", "--arch", "sm_75", "--toolchain", "wheels"),
    {"CC": "gcc", "CPP": "g++", "NVCC": "nvcc"},
)


def rebuild(work: Path) -> Task:
    """Warm hit and restore against `make` with a cache that knows every object file."""
    return _task("rebuild", CPU, work)


def rebuild_gpu(work: Path) -> Task:
    """The same with nvcc, on a machine that needs no GPU for it."""
    return _task("rebuild-gpu", GPU, work)


def _task(name: str, kind: Kind, work: Path) -> Task:
    task = Task(name, f"{kind.title}, against make with warm ccache and sccache")
    script = console_script()
    if script is None:
        task.missing["artcache fetch"] = f"{sys.executable} has no artcache script beside it"
        return task
    store = KEPT / f"store-{kind.name}.{code()}"
    for old in KEPT.glob(f"store-{kind.name}.*"):
        if old != store:
            shutil.rmtree(old)
    try:
        build = _published(kind, store)
    except ArtcacheError as error:
        task.missing["all"] = f"{kind.title} could not be built here: {error}"
        return task
    task.contenders = _artcache(kind, script, store, work)
    for cache in ("ccache", "sccache"):
        if tool(cache, task.missing):
            env = _environment(task, cache, work)
            task.contenders += _make(kind, cache, build, env, work)
            peer = f"unpack and make, {cache} warm"
            task.goals += [
                Goal("artcache, warm hit", "faster than", 14.0, peer),
                Goal("artcache, empty home", "faster than", 8.0, peer),
            ]
    return task


class _Build(NamedTuple):
    command: Sequence[str]
    """make, with the variables that the recipe gave it."""
    tarball: Path
    beside: Path | None
    """A folder whose other entries make looks for beside the source."""


def _published(kind: Kind, store: Path) -> _Build:
    """Publish darknet once; what its build ran, and the source tarball that it used."""
    cache = artcache.Cache([store], home=KEPT / f"home-{kind.name}")
    manifest = cache.fetch("darknet", kind.request).entry.manifest()
    tarballs = _tarballs(cache)
    if not tarballs or not cache.tiers[0].repository.find(manifest.key):
        cache.build("darknet", kind.request)
        tarballs = _tarballs(cache)
    commands = [shlex.split(line) for line in manifest.provenance["commands"]]
    command = next(words for words in commands if words[0] == "make")
    if kind.request.cuda == "none":
        return _Build(command, tarballs[0], None)
    scratch = _prepared(kind)
    return _Build(command, archive_of(scratch / "source", ".tar", _PLAIN), scratch)


_PLAIN = 'tar -C "$(dirname "$tree")" -cf "$out" source'


class _OnlyPrepared(DarknetRecipe):
    """Does all that comes before make, keeps it, and breaks off."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def build(self, context: BuildContext) -> None:
        prepare(context, context.plan)
        shutil.copytree(context.scratch, self._target, symlinks=True)
        raise BuildFailed("kept")


def _prepared(kind: Kind) -> Path:
    """A folder with the patched source, and CUDA and cuDNN beside it."""

    def make(folder: Path) -> None:
        cache = artcache.Cache([], home=KEPT / f"home-{kind.name}")
        try:
            cache.build(_OnlyPrepared(folder), kind.request)
        except BuildFailed:
            if not folder.is_dir():
                raise

    return once(KEPT / f"prepared-{kind.name}", make)


def _tarballs(cache: artcache.Cache) -> list[Path]:
    return sorted(cache.home.folder("downloads").glob("darknet-*.orig.tar*"))


def _artcache(kind: Kind, script: Path, store: Path, work: Path) -> list[Contender]:
    empty = work / "empty"
    empty.mkdir()
    env = {"ARTCACHE_STORES": f"read:{store}", "XDG_CONFIG_HOME": str(empty)}
    words = ("fetch", "darknet", *kind.words, "--build", "never")

    def fetch(home: Path) -> Child:
        return Child([script, *words], {**env, "ARTCACHE_DIR": str(home)}, empty)

    cold = _numbered(work / "cold")
    return [
        Contender("artcache, warm hit", lambda: timed(fetch(work / "warm"))),
        Contender("artcache, empty home", lambda: timed(fetch(next(cold)))),
    ]


def _environment(task: Task, cache: str, work: Path) -> dict[str, str]:
    folder = str(work / cache)
    if cache == "ccache":
        return {"CCACHE_DIR": folder}
    env = {"SCCACHE_DIR": folder, "SCCACHE_SERVER_PORT": str(free_port())}
    stop = ["sccache", "--stop-server"]
    task.close = lambda: subprocess.run(stop, env=environment(env), capture_output=True)
    return env


def _make(
    kind: Kind, cache: str, build: _Build, env: dict[str, str], work: Path
) -> list[Contender]:
    places = _numbered(work / f"source-{cache}")
    given = dict(word.partition("=")[::2] for word in build.command if "=" in word)
    compilers = {name: given.get(name, own) for name, own in kind.compilers.items()}
    if build.beside:
        # By its full path, and without the option that makes its bytes the same each time:
        # so both caches know it.
        compilers["NVCC"] = f"{build.beside}/cuda/bin/nvcc"
    through = [f"{name}={cache} {words}" for name, words in compilers.items()]
    make = shlex.join([*build.command, *through])
    tarball = shlex.quote(str(build.tarball))
    unpack = f"mkdir -p source && tar -C source --strip-components=1 -xf {tarball}"
    if build.beside:
        names = [path for path in build.beside.iterdir() if not path.name.startswith("source")]
        unpack += f" && ln -sf {shlex.join(map(str, names))} ."
    compile_it = f"cd source && mkdir -p obj backup results && {make}"

    def whole() -> Sample:
        return timed(bash(f"{unpack} && {compile_it}", env, next(places)))

    def make_alone() -> Sample:
        place = next(places)
        timed(bash(unpack, env, place))
        return timed(bash(compile_it, env, place))

    return [
        Contender(f"unpack and make, {cache} warm", whole),
        Contender(f"make alone, {cache} warm", make_alone, most=1 if build.beside else 1000),
    ]


def _numbered(folder: Path) -> Iterator[Path]:
    """A new folder for each run, removed at the end of the task only.

    Creating files where others were just deleted is slow on ext4, see `disk.spread`; which
    part of the disk a folder gets follows from its name.
    """
    for number in itertools.count():
        place = folder.with_name(f"{folder.name}-{number}-{os.urandom(3).hex()}")
        place.mkdir()
        yield place
