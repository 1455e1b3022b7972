"""darknet for the CPU: a cache of artifacts beside a cache of object files."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import artcache
from artcache.errors import ArtcacheError

from .children import Child, console_script, timed, tool
from .inputs import KEPT
from .measure import Contender, Goal, Task

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
            Goal("artcache, warm hit", "faster than", 10.0, "unpack and make, ccache warm"),
            Goal("artcache, empty home", "faster than", 5.0, "unpack and make, ccache warm"),
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
    warm, cold, empty = work / "warm", work / "cold", work / "empty"
    empty.mkdir()
    env = {"ARTCACHE_STORES": f"read:{store}", "XDG_CONFIG_HOME": str(empty)}

    def fetch(home: Path) -> Child:
        return Child([script, *_WORDS], {**env, "ARTCACHE_DIR": str(home)}, empty)

    return [
        Contender("artcache, warm hit", lambda: timed(fetch(warm))),
        Contender("artcache, empty home", lambda: timed(fetch(cold)), clean=_gone(cold)),
    ]


def _ccache(make: str, tarball: Path, work: Path) -> list[Contender]:
    source = work / "source"
    env = {"CCACHE_DIR": str(work / "ccache"), "CCACHE_NOSTATS": "1"}
    unpack = f"mkdir '{source}' && tar -C '{source}' --strip-components=1 -xf '{tarball}'"
    compile_it = f"cd '{source}' && mkdir -p obj && {make}"

    def contender(name: str, script: str, before: str) -> Contender:
        return Contender(
            name,
            lambda: timed(_bash(script, env)),
            prepare=(lambda: timed(_bash(before, {}))) if before else lambda: None,
            clean=_gone(source),
        )

    return [
        contender("unpack and make, ccache warm", f"{unpack} && {compile_it}", ""),
        contender("make alone, ccache warm", compile_it, unpack),
    ]


def _bash(script: str, env: dict[str, str]) -> Child:
    return Child(["bash", "-ec", script], env)


def _gone(folder: Path) -> Callable[[], None]:
    return lambda: shutil.rmtree(folder, ignore_errors=True)
