"""The import law of the house, by `ast`: which room may import which, and why not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).resolve().parent.parent
LONGEST = 400
"""Lines of a source file, at most: what one reads in one sitting."""

FLOORS = {
    1: "errors digest toolchain key manifest needs compat events units layout link",
    2: "store process recipe disk",
    3: "memory frames compression tree lay partial opening pack ahead packs seal home elf fatbin"
    " binary detect trust stores install late spelling shares",
    4: "turns restore publish repository share match supply present tier cache builder survey pins"
    " gc listing transfer wanted fulfil race doctor fetched several",
    5: "__init__ __main__ api config cli notebook progress report",
}
FLOOR = {room: floor for floor, rooms in FLOORS.items() for room in rooms.split()}

BESIDE = {
    "toolchain": "errors",
    "key": "digest errors",
    "events": "errors",
    "units": "errors",
    "layout": "key manifest",
    "manifest": "key needs errors",
    "needs": "errors",
    "compat": "needs toolchain errors",
    "recipe": "disk process",
    "tree": "frames",
    "lay": "frames",
    "packs": "ahead shares",
    "compression": "frames",
    "pack": "compression frames lay opening shares tree",
    "home": "seal tree memory",
    "binary": "elf fatbin",
    "match": "cache repository tier",
    "supply": "cache match",
    "tier": "repository",
    "present": "cache",
    "restore": "cache match race repository tier transfer",
    "race": "builder cache repository tier",
    "publish": "builder cache tier",
    "wanted": "cache match survey tier",
    "fulfil": "builder cache match repository transfer wanted",
    "cache": "fetched repository builder match present restore several supply survey tier wanted",
    "fetched": "match",
    "several": "cache fetched",
    "builder": "cache publish repository restore share tier turns",
    "turns": "cache repository tier",
    "survey": "cache repository tier match pins listing",
    "transfer": "builder cache match publish repository restore share supply survey tier",
    "gc": "cache pins repository tier listing",
    "listing": "repository",
    "share": "listing repository",
    "__init__": "api",
    "__main__": "cli",
    "api": "config",
    "cli": "api config progress report",
    "notebook": "api config progress report",
    "progress": "api",
    "report": "api",
}
"""Imports within one floor. Add one here when it is meant; nothing else is allowed."""

WORLD = frozenset("os subprocess time fsspec click socket shutil tempfile random secrets".split())
FOR_RECIPES = frozenset("errors digest fatbin key process recipe toolchain".split())


class Import(NamedTuple):
    """`room` (of `package`) imports `target`: another room, or a module from elsewhere."""

    package: str
    room: str
    target: str
    place: str


def modules(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def room_of(file: Path, package: str) -> str:
    return file.relative_to(ROOT / package).parts[0].removesuffix(".py")


def imports_of(
    source: str, package: str, room: str, place: str = "", depth: int = 1
) -> list[Import]:
    """Every import of a file, also those inside functions and for types only.

    Args:
        depth: 1 for a file in the package itself, 2 for one in a folder of it.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level > depth:
            names = [
                f"{package}.{'.'.join(filter(None, (node.module, alias.name)))}"
                for alias in node.names
            ]
            names = [f"..{name}" for name in names]  # out of the package: nobody may
        elif isinstance(node, ast.ImportFrom):
            if node.level == depth:
                base = f"{package}.{node.module}" if node.module else package
            elif node.level:
                base = f"{package}.{room}"
            else:
                base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names]
        line = getattr(node, "lineno", 0)
        found += [Import(package, room, name, f"{place or room}:{line}") for name in names]
    return found


def all_imports(*packages: str) -> Iterator[Import]:
    for package in packages:
        for file in modules(package):
            place = str(file.relative_to(ROOT))
            depth = len(file.relative_to(ROOT / package).parts)
            room = room_of(file, package)
            yield from imports_of(file.read_text(), package, room, place, depth)


def target_room(found: Import) -> str | None:
    """The room of artcache that is imported; None for modules from elsewhere."""
    parts = found.target.split(".")
    if parts[0] != "artcache":
        return None
    if len(parts) == 1 or parts[1] in FLOOR:
        return parts[1] if len(parts) > 1 else "__init__"
    return "__version__" if parts[1] == "__version__" else "__init__"


# -- the law ------------------------------------------------------------------------------


def broken_laws(found: Import) -> Iterator[str]:
    """Each law that this import breaks, with the reason."""
    top = found.target.split(".")[0]
    target = target_room(found)
    if found.package == "artcache":
        yield from _broken_in_artcache(found, top, target)
    elif target and target not in FOR_RECIPES:
        yield (
            f"a recipe imports only {', '.join(sorted(FOR_RECIPES))} of artcache: whatever it"
            " uses becomes a promise to every recipe outside this repository"
        )
    elif top == "subprocess":
        yield "a recipe runs processes through its Runner: clean environment, log, timeout"


def _broken_in_artcache(found: Import, top: str, target: str | None) -> Iterator[str]:
    room, floor = found.room, FLOOR.get(found.room, 0)
    if top == "darknet_recipe":
        yield "artcache knows no recipe by name: recipes come in by entry point"
    if floor == 1 and top in WORLD:
        yield f"a room of floor 1 is pure and never imports {top}: its tests need no world"
    if top == "subprocess" and room != "process":
        yield "only `process` starts processes: one place cleans environments and kills groups"
    if top in ("fsspec", "gcsfs", "s3fs", "obstore") and room != "stores":
        yield f"{top} stays in stores/: it costs 70 ms and more to import"
    if top == "click" and room != "cli":
        yield "only cli/ knows that there is a command line"
    if top in ("xxhash", "blake3") and room != "digest":
        yield "digests are made by `digest`, which knows what each is good for"
    if room == "stores" and target in ("key", "manifest"):
        yield "a store keeps bytes by name: what they mean is none of its business"
    if room == "cache" and target == "detect":
        yield "`cache` is given a host's facts: else no test could choose the machine"
    if target and target not in (room, "__version__"):
        theirs = FLOOR[target]
        if theirs > floor:
            yield f"floor {floor} imports floor {theirs}: imports lead downward"
        elif theirs == floor and target not in BESIDE.get(room, "").split():
            yield f"nobody drew {room} -> {target} beside each other: see BESIDE"


def test_every_room_stands_on_a_floor() -> None:
    homeless = {room_of(file, "artcache") for file in modules("artcache")} - FLOOR.keys()
    assert not homeless, f"put {homeless} into FLOORS: without a floor a room has no law"


def test_no_import_breaks_the_law_of_the_house() -> None:
    broken = [
        f"{found.place} imports {found.target}: {why}"
        for found in all_imports("artcache", "darknet_recipe")
        for why in broken_laws(found)
    ]
    assert not broken, "\n" + "\n".join(broken)


def test_only_the_command_line_prints() -> None:
    printing = [
        f"{file.relative_to(ROOT)}:{node.lineno}"
        for package in ("artcache", "darknet_recipe")
        for file in modules(package)
        if room_of(file, package) not in ("cli", "notebook")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Name) and node.id == "print"
    ]
    assert not printing, f"{printing} print: a library tells its Observer, the faces print"


@pytest.mark.parametrize("package", ["artcache", "darknet_recipe"])
def test_no_file_is_longer_than_one_reads_in_one_sitting(package: str) -> None:
    lengths = {str(f.relative_to(ROOT)): f.read_text().count("\n") for f in modules(package)}
    long = {name: lines for name, lines in lengths.items() if lines > LONGEST}
    assert not long, f"longer than {LONGEST} lines, so they have more than one job: {long}"


@pytest.mark.parametrize(
    ("room", "line", "why"),
    [
        ("manifest", "import os", "pure"),
        ("key", "def f():\n import time", "pure"),
        ("compat", "from subprocess import run", "only `process`"),
        ("key", "from .manifest import Manifest", "nobody drew"),
        ("pack", "from . import cache", "imports lead downward"),
        ("pack", "from artcache import fetch", "imports lead downward"),
        ("disk", "if TYPE_CHECKING:\n from .home import Home", "imports lead downward"),
        ("stores", "from ..key import Key", "none of its business"),
        ("stores", "from ..manifest import Manifest", "none of its business"),
        ("cache", "from .detect import host", "given a host's facts"),
        ("home", "import fsspec.spec", "stays in stores/"),
        ("api", "import click", "only cli/"),
        ("pack", "from blake3 import blake3", "made by `digest`"),
        ("api", "import darknet_recipe", "by entry point"),
    ],
)
def test_the_law_is_told_with_its_reason(room: str, line: str, why: str) -> None:
    depth = 2 if room == "stores" else 1
    told = [
        law
        for found in imports_of(line, "artcache", room, depth=depth)
        for law in broken_laws(found)
    ]
    assert any(why in law for law in told), told


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("from artcache.repository import Repository", "promise"),
        ("from artcache import fetch", "promise"),
        ("import subprocess", "Runner"),
    ],
)
def test_recipes_have_a_law_too(line: str, why: str) -> None:
    (found,) = imports_of(line, "darknet_recipe", "build")
    assert why in next(broken_laws(found))
