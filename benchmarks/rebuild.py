"""darknet: a cache of artifacts beside caches of object files, ccache and sccache."""

from __future__ import annotations

import functools
import itertools
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import artcache
from artcache.errors import ArtcacheError, BuildFailed
from artcache.recipe import BuildContext
from artcache.toolchain import GpuArch
from darknet_recipe.build import prepare
from darknet_recipe.darknet import DarknetRecipe
from darknet_recipe.flavours import ALEXEYAB

from .children import Child, bash, console_script, timed, tool
from .inputs import KEPT, archive_of, code, once
from .measure import Contender, Goal, Sample, Task
from .objects import ObjectCache


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
UPSTREAM = "ARTCACHE_BENCH_ALEXEYAB"
"""The variable that names a clone of the default source, where its own address is out of reach."""


def _upstream() -> Kind:
    clone = os.environ.get(UPSTREAM, "")
    ref = ALEXEYAB.commit if clone else None
    request = GPU.request._replace(source=clone or "alexeyab", ref=ref)
    words = ("--source", clone or "alexeyab", *(("--ref", ALEXEYAB.commit) if clone else ()))
    return GPU._replace(
        name="darknet-gpu-alexeyab",
        title="darknet with CUDA 13 for sm_75 (the default source, the wheels' nvcc)",
        request=request,
        words=(*words, *GPU.words[2:]),
    )


def rebuild(work: Path) -> Task:
    """Warm hit and restore against `make` with a cache that knows every object file."""
    return _task("rebuild", CPU, work)


def rebuild_gpu(work: Path) -> Task:
    """The same with nvcc, on a machine that needs no GPU for it."""
    return _task("rebuild-gpu", GPU, work)


def rebuild_upstream(work: Path) -> Task:
    """The same of AlexeyAB's tree, which is what users get who name no source."""
    return _task("rebuild-upstream", _upstream(), work)


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
    caches = [
        ObjectCache(name, work / name) for name in ("ccache", "sccache") if tool(name, task.missing)
    ]
    for cache in caches:
        task.contenders += _make(kind, cache, build, work)
        task.verdicts.append(cache.verdict)
        peer = f"unpack and make, {cache.name} warm"
        task.goals += [
            Goal("artcache, warm hit", "faster than", 14.0, peer),
            Goal("artcache, empty home", "faster than", 8.0, peer),
        ]
    task.close = lambda: [cache.stop() for cache in caches]
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
    for_cpu = kind.request.cuda == "none"
    tarballs = _tarballs(cache)
    if (for_cpu and not tarballs) or not cache.tiers[0].repository.find(manifest.key):
        cache.build("darknet", kind.request)
        tarballs = _tarballs(cache)
    commands = [shlex.split(line) for line in manifest.provenance["commands"]]
    command = next(words for words in commands if words[0] == "make")
    if for_cpu:
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


def _make(kind: Kind, cache: ObjectCache, build: _Build, work: Path) -> list[Contender]:
    unpack, compile_it = _commands(kind, cache, build)
    place = _Place(next(_numbered(work / f"source-{cache.name}")) / "here")

    def whole() -> Sample:
        return timed(bash(f"{unpack} && {compile_it}", cache.env, place.anew()))

    def make_alone() -> Sample:
        timed(bash(unpack, cache.env, place.anew()))
        return timed(bash(compile_it, cache.env, place.folder))

    def warm(run: Callable[[], Sample]) -> Sample:
        cache.forget()
        sample = run()
        cache.require_hits(sum(1 for _ in place.folder.glob("source/obj/*.o")))
        # What a server does is nobody's child, so its processor time is not in the sample.
        return sample._replace(cpu=0.0, rss=0) if cache.has_server else sample

    fill = functools.cache(whole)
    return [
        Contender(f"unpack and make, {cache.name} warm", lambda: warm(whole), fill),
        Contender(f"make alone, {cache.name} warm", lambda: warm(make_alone), fill),
    ]


def _commands(kind: Kind, cache: ObjectCache, build: _Build) -> tuple[str, str]:
    """In the shell: to unpack the source, and then to build it through the cache."""
    given = dict(word.partition("=")[::2] for word in build.command if "=" in word)
    compilers = {name: given.get(name, own) for name, own in kind.compilers.items()}
    if "NVCC" in compilers:
        compilers["NVCC"] = cache.nvcc(compilers["NVCC"])
    through = [f"{name}={cache.name} {words}" for name, words in compilers.items()]
    tarball = shlex.quote(str(build.tarball))
    unpack = f"mkdir -p source && tar -C source --strip-components=1 -xf {tarball}"
    if build.beside:
        names = [path for path in build.beside.iterdir() if not path.name.startswith("source")]
        unpack += f" && ln -sf {shlex.join(map(str, names))} ."
    make = shlex.join([*build.command, *through])
    return unpack, f"cd source && mkdir -p obj backup results && {make}"


class _Place:
    """Where each round builds: one path, and nothing there before.

    ccache (unless told otherwise) and sccache hash the folder that nvcc is started in: in
    another folder neither knows what it has. What was built is moved aside, for the
    reason that `_numbered` has.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._aside = _numbered(folder)

    def anew(self) -> Path:
        if self.folder.exists():
            self.folder.rename(next(self._aside) / "built")
        self.folder.mkdir()
        return self.folder


def _numbered(folder: Path) -> Iterator[Path]:
    """A new folder for each run, removed at the end of the task only.

    Creating files where others were just deleted is slow on ext4, see `disk.spread`; which
    part of the disk a folder gets follows from its name.
    """
    for number in itertools.count():
        place = folder.with_name(f"{folder.name}-{number}-{os.urandom(3).hex()}")
        place.mkdir()
        yield place
