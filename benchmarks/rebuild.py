"""darknet for the CPU: a cache of artifacts beside a cache of object files."""

from __future__ import annotations

import itertools
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import artcache
from artcache.errors import ArtcacheError

from .children import Child, console_script, timed, tool
from .inputs import KEPT
from .measure import Contender, Goal, Sample, Task

REQUEST = artcache.Request(source="debian", cuda="none")
_WORDS = ("fetch", "darknet", "--source", "debian", "--cuda", "none", "--build", "never")


def rebuild(work: Path) -> Task:
    """Warm hit and restore against `make` with a ccache that knows every object file."""
    task = Task("rebuild", "darknet for the CPU (Debian's source), against make and ccache")
    script = console_script()
    if script is None:
        task.missing["artcache fetch"] = f"{sys.executable} has no artcache script beside it"
        return task
    store = KEPT / "store-darknet"
    try:
        commands, tarball = _published(store)
    except ArtcacheError as error:
        task.missing["all"] = f"darknet could not be built here: {error}"
        return task
    task.contenders = _artcache(script, store, work)
    if tool("ccache", task.missing):
        make = shlex.join([*shlex.split(commands[0]), "CC=ccache gcc", "CPP=ccache g++"])
        task.contenders += _ccache(make, tarball, work)
        task.goals = [
            Goal("artcache, warm hit", "faster than", 14.0, "unpack and make, ccache warm"),
            Goal("artcache, empty home", "faster than", 8.0, "unpack and make, ccache warm"),
        ]
    return task


def _published(store: Path) -> tuple[list[str], Path]:
    """Publish darknet once; what its build ran, and the source tarball that it used."""
    home = KEPT / "home-darknet"
    cache = artcache.Cache([store], home=home)
    manifest = cache.fetch("darknet", REQUEST).entry.manifest()
    key = manifest.key
    tarballs = sorted(cache.home.folder("downloads").glob("darknet-*.orig.tar*"))
    if not tarballs or not cache.tiers[0].repository.find(key):
        cache.build("darknet", REQUEST)
        tarballs = sorted(cache.home.folder("downloads").glob("darknet-*.orig.tar*"))
    return list(manifest.provenance["commands"]), tarballs[0]


def _artcache(script: Path, store: Path, work: Path) -> list[Contender]:
    empty = work / "empty"
    empty.mkdir()
    env = {"ARTCACHE_STORES": f"read:{store}", "XDG_CONFIG_HOME": str(empty)}

    def fetch(home: Path) -> Child:
        return Child([script, *_WORDS], {**env, "ARTCACHE_DIR": str(home)}, empty)

    cold = _numbered(work / "cold")
    return [
        Contender("artcache, warm hit", lambda: timed(fetch(work / "warm"))),
        Contender("artcache, empty home", lambda: timed(fetch(next(cold)))),
    ]


def _ccache(make: str, tarball: Path, work: Path) -> list[Contender]:
    places = _numbered(work / "source")
    env = {"CCACHE_DIR": str(work / "ccache")}
    unpack = f"mkdir source && tar -C source --strip-components=1 -xf {shlex.quote(str(tarball))}"
    compile_it = f"cd source && mkdir -p obj && {make}"

    def whole() -> Sample:
        return timed(_bash(f"{unpack} && {compile_it}", next(places), env))

    def make_alone() -> Sample:
        place = next(places)
        timed(_bash(unpack, place, env))
        return timed(_bash(compile_it, place, env))

    return [
        Contender("unpack and make, ccache warm", whole),
        Contender("make alone, ccache warm", make_alone),
    ]


def _numbered(folder: Path) -> Iterator[Path]:
    """A new folder for each run, removed at the end of the task only.

    Creating files where others were just deleted is slow on ext4: it passes over
    inodes that are younger than some minutes, and a user's first fetch meets none.
    """
    for number in itertools.count():
        place = folder.with_name(f"{folder.name}-{number}")
        place.mkdir()
        yield place


def _bash(script: str, folder: Path, env: dict[str, str]) -> Child:
    return Child(["bash", "-ec", script], env, folder)
