"""Shared libraries beside a tree: found on the machine, or fetched, and never both."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

import pytest

import artcache
from artcache.install import install
from artcache.recipe import Supplier
from artcache.supply import as_tree

HOST = artcache.HostFacts(libc="glibc2.99")


class Part(artcache.Recipe):
    """A library that no loader finds by itself."""

    name = "part"
    built = 0

    def key_fields(self, host, request):  # type: ignore[no-untyped-def]
        return {"commit": "1"}

    def build(self, context: artcache.BuildContext) -> None:
        type(self).built += 1
        source = context.scratch / "part.c"
        source.write_text("int part(void) { return 42; }")
        (context.tree / "lib").mkdir()
        name = context.tree / "lib" / "libartcachepart.so.1"
        context.runner.run(
            ["cc", "-shared", "-fPIC", "-Wl,-soname,libartcachepart.so.1", "-o", name, source]
        )


class Whole(artcache.Recipe):
    """A program that needs the part, linked as artcache's recipes link."""

    name = "whole"

    def __init__(self, part: Path) -> None:
        self._part = part

    def key_fields(self, host, request):  # type: ignore[no-untyped-def]
        return {"commit": "1"}

    def build(self, context: artcache.BuildContext) -> None:
        source = context.scratch / "main.c"
        source.write_text("int part(void); int main(void) { return part(); }")
        context.runner.run(
            [
                *("cc", "-o", context.tree / "whole", source, self._part),
                "-Wl,-rpath,$ORIGIN/lib:$ORIGIN/../lib",
            ]
        )

    def supplier(self, soname: str, key: artcache.Key) -> Supplier | None:
        return Supplier("part", artcache.Request()) if "part" in soname else None


class World:
    def __init__(self, folder: Path) -> None:
        Part.built = 0
        self.folder = folder
        self.warnings: list[str] = []
        self.part = self.library(folder / "sdk")
        self.present = {"libc.so.6"}

    def library(self, folder: Path) -> Path:
        """The library that the program is linked with, as an SDK would hold it."""
        folder.mkdir()
        source = folder / "p.c"
        source.write_text("int part(void) { return 7; }")
        name = folder / "libartcachepart.so.1"
        words = ["cc", "-shared", "-fPIC", "-Wl,-soname,libartcachepart.so.1", "-o"]
        subprocess.run([*words, name, source], check=True)
        return name

    def cache(self, home: str = "home", host: artcache.HostFacts = HOST) -> artcache.Cache:
        world = self

        class Told(artcache.Observer):
            def warn(self, text: str) -> None:
                world.warnings.append(text)

        def libraries(names: Iterable[str]) -> set[str]:
            return self.present.intersection(names)

        cache = artcache.Cache([], home=self.folder / home, host=host, observer=Told())
        cache.libraries = libraries
        cache._recipes = {"part": Part(), "whole": Whole(self.part)}.__getitem__
        return cache


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def run(program: Path) -> int:
    return subprocess.run([program], env={}, check=False).returncode


def test_a_missing_library_is_fetched_and_found_with_no_environment(world: World) -> None:
    done = world.cache().fetch("whole")

    assert run(done.path / "whole") == 42
    assert Part.built == 1
    assert not world.warnings


def test_a_hit_does_not_fetch_it_again(world: World) -> None:
    world.cache().fetch("whole")
    world.cache().fetch("whole")

    assert Part.built == 1


def test_a_library_that_went_away_is_supplied_again(world: World) -> None:
    cache = world.cache()
    cache.fetch("whole")
    cache.home.remove(cache.fetch("part").key)

    assert run(world.cache().fetch("whole").path / "whole") == 42
    assert Part.built == 2


def test_what_the_loader_finds_is_not_fetched(world: World) -> None:
    world.present.add("libartcachepart.so.1")

    world.cache().fetch("whole")

    assert Part.built == 0


def test_a_toolkit_of_the_machine_goes_before_a_download(world: World) -> None:
    kit = world.folder / "kit"
    (kit / "lib64").mkdir(parents=True)
    world.part.rename(kit / "lib64" / world.part.name)
    world.part = kit / "lib64" / world.part.name
    toolkit = artcache.toolchain.Toolkit(str(kit), artcache.CudaVersion(13, 0), "13.0.88")

    done = world.cache(host=artcache.HostFacts(libc="glibc2.99", toolkits=(toolkit,))).fetch(
        "whole"
    )

    assert run(done.path / "whole") == 7
    assert Part.built == 0


def test_a_library_that_nobody_supplies_is_one_warning(world: World) -> None:
    world.present.clear()

    world.cache().fetch("whole")

    assert world.warnings == ["whole needs libc.so.6, which this machine lacks"]


def test_an_artifact_for_other_machines_gets_no_libraries(world: World) -> None:
    world.cache(host=artcache.HostFacts(libc="glibc2.0")).fetch("whole")

    assert Part.built == 0


def test_an_installed_program_has_its_libraries_beside_it(world: World) -> None:
    cache = world.cache()
    done = cache.fetch("whole")
    prefix = world.folder / "prefix"
    prefix.mkdir()
    (prefix / "whole").write_bytes((done.path / "whole").read_bytes())
    (prefix / "whole").chmod(0o755)

    with as_tree(cache, done.entry) as tree:
        assert tree
        install(tree, prefix, owner="l", key=done.key.hash, pending=cache.home.folder("pending"))

    cache.home.remove(cache.fetch("part").key)
    assert run(prefix / "whole") == 42
