"""What a recipe is, and finding recipes by entry point.

A recipe turns a request and a host's facts into variants (each with its key),
and builds one of them into a tree of files. Packages offer recipes through the
entry-point group `artcache.recipes`; ten lines suffice for one of your own::

    @artcache.make_recipe("answer", fields={"commit": "42"})
    def build(context):
        (context.tree / "answer.txt").write_text("42")

    artcache.fetch(build).path
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from .disk import replace_file
from .errors import UnknownRecipe, UsageError
from .key import Key, valid_recipe_name
from .toolchain import GpuArch, HostFacts

if TYPE_CHECKING:
    from .process import Runner

GROUP = "artcache.recipes"
_REMEMBERED = 200
"""Folders of the path that a memo holds at most."""


class Request(NamedTuple):
    """What the user asked for, beyond the recipe's name. None and empty: the default."""

    source: str | None = None
    ref: str | None = None
    archs: tuple[GpuArch, ...] = ()
    cuda: str | None = None
    """`12.8`, or `none` for a CPU build."""
    cudnn: str | None = None
    """`9`, or `none`."""
    options: Mapping[str, str] = MappingProxyType({})
    toolchain: str | None = None
    """`machine`, `wheels` or a folder."""


class Variant(NamedTuple):
    """One thing a recipe can make for a request: its key, and how it means to make it."""

    key: Key
    plan: Any = None
    """The recipe's own notes for `build`."""
    note: str = ""
    """One line for the user when this variant is taken (a fallback, a resolved branch)."""
    present: str = ""
    """A folder of this machine that has it already: it is named, nothing is made of it."""
    exact: bool = False
    """The user named this very one, so nothing else stands in for it."""


class Supplier(NamedTuple):
    """A recipe, and what to ask of it, whose tree's `lib` folder holds a shared library."""

    recipe: str
    request: Request

    def __hash__(self) -> int:
        return hash((self.recipe, self.request.cuda, self.request.cudnn))


class BuildContext(NamedTuple):
    """What a build is given. It writes below `scratch` and `tree` only."""

    key: Key
    plan: Any
    host: HostFacts
    scratch: Path
    """An empty folder of its own, removed afterwards."""
    tree: Path
    """An empty folder: what is in it at the end is the artifact."""
    downloads: Path
    """A folder that outlives the build, for files checked by digest."""
    jobs: int
    runner: Runner
    phase: Callable[[str], None]
    """Tell the user what happens now: `clone`, `compile`."""
    say: Callable[[str], None]
    """One line that the user should read."""
    fetch: Callable[[str, Request], Path]
    """The tree of another recipe's artifact (a toolchain), fetched or built first."""
    provenance: MutableMapping[str, Any]
    """For the manifest: `source`, `commit`, `patches`, `compilers`, `commands`, `dirty`.
    Strings, integers, booleans, lists and mappings of them."""


class SmokeContext(NamedTuple):
    """What a smoke test is given: the built tree, where it will not be written to."""

    key: Key
    plan: Any
    host: HostFacts
    tree: Path
    scratch: Path
    runner: Runner


class Tool(NamedTuple):
    """A program that builds of a recipe call."""

    program: str
    package: str
    """Debian's, that holds it."""
    when: str = ""
    """Which builds: `--source debian`; empty: all."""


class Recipe:
    """Base class. Override `key_fields` and `build`; the rest has defaults."""

    name: str = ""
    version: str = "1"
    """Raise it when the recipe makes other bytes from the same fields."""
    summary: str = ""
    program: str = ""
    """What `artcache run` starts, relative to the tree; empty: the file of the recipe's name."""
    options: Mapping[str, str] = {}
    """Names that `Request.options` may hold, each with its meaning."""
    redistributable: bool = True
    """False: its artifacts are never published to a store that is marked public."""
    licence: str = ""
    """What forbids it, for the message: `NVIDIA's licence of cuDNN`."""
    requires: Sequence[Tool] = ()
    """For `artcache doctor`; a build that misses one says so itself."""
    pack_bytes: int = 0
    """What a usual pack of it takes, for estimates; 0: little."""
    tree_bytes: int = 0
    """What a usual tree of it takes on disk; 0: little."""

    def variants(self, host: HostFacts, request: Request, runner: Runner) -> Sequence[Variant]:
        """What could serve this request, best first.

        Called on every fetch, so it must be quick and must not need the network
        unless the request does (a branch name). When building a variant raises
        `SourceUnavailable`, the next one is tried.
        """
        return [Variant(Key(self.full_fields(self.key_fields(host, request))))]

    def key_fields(self, host: HostFacts, request: Request) -> Mapping[str, str | Sequence[str]]:
        """All that changes the bytes, but for `recipe` and `recipe_version`."""
        raise NotImplementedError

    def build(self, context: BuildContext) -> None:
        """Fill `context.tree`. Raises `BuildFailed` or one of its kinds."""
        raise NotImplementedError

    def build_group(self, contexts: Sequence[BuildContext]) -> None:
        """Build several variants of one request that differ in their architectures only.

        Worth overriding where one compilation can serve them all; each must get the
        same bytes as from `build`.
        """
        for context in contexts:
            self.build(context)

    def smoke(self, context: SmokeContext) -> None:
        """Run the result a little. Raises `SmokeFailed`."""

    def supplier(self, soname: str, key: Key) -> Supplier | None:
        """Who has a shared library that the artifact of `key` needs and this machine lacks."""
        return None

    def full_fields(
        self, fields: Mapping[str, str | Sequence[str]]
    ) -> dict[str, str | Sequence[str]]:
        return {**fields, "recipe": self.name, "recipe_version": self.version}

    def check_options(self, request: Request) -> None:
        """Raises `UsageError` for an option that this recipe does not have."""
        for name in request.options:
            if name not in self.options:
                import difflib

                near = difflib.get_close_matches(name.upper(), self.options, n=3, cutoff=0.5)
                raise UsageError(
                    f"the recipe {self.name} has no option {name!r}",
                    hint="it has " + ", ".join(near or sorted(self.options) or ["none"]),
                )


class FunctionRecipe(Recipe):
    """A callable with a name and key fields: made by `make_recipe`."""

    def __init__(
        self,
        function: Callable[[BuildContext], object],
        name: str,
        fields: Mapping[str, str | Sequence[str]],
        version: str,
        smoke: Callable[[SmokeContext], object] | None,
    ) -> None:
        if not valid_recipe_name(name):
            raise UsageError(f"{name!r} is no recipe name: a-z, 0-9, '.', '_' and '-' only")
        self.name, self.version = name, version
        self._function, self._fields, self._smoke = function, dict(fields), smoke
        self.summary = (function.__doc__ or "").strip().partition("\n")[0]

    def key_fields(self, host: HostFacts, request: Request) -> Mapping[str, str | Sequence[str]]:
        return {"platform": host.platform, "libc": host.libc, **self._fields}

    def build(self, context: BuildContext) -> None:
        self._function(context)

    def smoke(self, context: SmokeContext) -> None:
        if self._smoke:
            self._smoke(context)


def make_recipe(
    name: str,
    *,
    fields: Mapping[str, str | Sequence[str]],
    version: str = "1",
    smoke: Callable[[SmokeContext], object] | None = None,
) -> Callable[[Callable[[BuildContext], object]], FunctionRecipe]:
    """Make a recipe of a function that fills `context.tree`.

    Args:
        name: In keys and store paths.
        fields: All that changes what the function makes. `platform` and `libc`
            are this machine's unless given.
        version: Raise it when the function itself changes.
        smoke: Called with the finished tree; raises to keep it from being published.
    """

    def wrap(function: Callable[[BuildContext], object]) -> FunctionRecipe:
        return FunctionRecipe(function, name, fields, version, smoke)

    return wrap


def find(name: str, *, memo: Path | None = None) -> Recipe:
    """The installed recipe of that name.

    Args:
        memo: A file that remembers the entry points of this `sys.path`:
            reading them all costs more than a whole warm hit.

    Raises:
        UnknownRecipe: none; the hint offers the nearest names.
        UsageError: it is installed but cannot be loaded.
    """
    targets = _entry_points(memo)
    if name not in targets:
        import difflib

        near = difflib.get_close_matches(name, targets, n=3, cutoff=0.5)
        raise UnknownRecipe(
            f"no recipe is called {name!r}",
            hint=f"did you mean {', '.join(near)}?"
            if near
            else f"installed recipes: {', '.join(sorted(targets)) or 'none'}",
        )
    return _loaded(name, targets[name])


def installed(*, memo: Path | None = None) -> tuple[str, ...]:
    """The names of all installed recipes, sorted."""
    return tuple(sorted(_entry_points(memo)))


def _loaded(name: str, target: str) -> Recipe:
    import importlib
    from operator import attrgetter

    module, _, attribute = target.partition(":")
    try:
        found: Any = attrgetter(attribute)(importlib.import_module(module))
        found = found() if isinstance(found, type) else found
    except Exception as error:  # whatever a stranger's module does when it is imported
        raise UsageError(
            f"the recipe {name} is installed but does not load from {target}:"
            f" {type(error).__name__}: {error}",
            hint="reinstall the package that offers it",
        ) from error
    if not isinstance(found, Recipe) or found.name != name:
        raise UsageError(f"{target} is no recipe called {name}")
    return found


def _entry_points(memo: Path | None) -> dict[str, str]:
    """Recipes by name, with what to import; of two with one name the first on the path.

    Remembered folder by folder, with each folder's time: installing or removing a
    package changes that.
    """
    known = _remembered(memo)
    fresh: dict[str, list[Any]] = {}
    found: dict[str, str] = {}
    for folder in sys.path:
        place = os.path.abspath(folder or ".")
        try:
            modified = os.stat(place).st_mtime_ns
        except OSError:
            continue
        row = known.get(place)
        if row is None or row[0] != modified:
            row = fresh[place] = [modified, _scanned(place)]
        found = {**row[1], **found}
    if fresh and memo:
        _remember(memo, dict(list({**known, **fresh}.items())[-_REMEMBERED:]))
    return found


def _scanned(folder: str) -> dict[str, str]:
    """What the packages in one folder of the path offer."""
    try:
        names = os.listdir(folder)
    except OSError:  # a zip file, say
        from importlib.metadata import distributions

        points = [point for one in distributions(path=[folder]) for point in one.entry_points]
        return {point.name: point.value for point in points if point.group == GROUP}
    found: dict[str, str] = {}
    for name in names:
        if name.endswith((".dist-info", ".egg-info")):
            found.update(_offered(f"{folder}/{name}/entry_points.txt"))
    return found


def _offered(file: str) -> dict[str, str]:
    """The recipes in one package's list of entry points.

    Read here, since importing importlib.metadata takes as long as a warm hit.
    """
    try:
        with open(file, "rb", buffering=0) as stream:
            data = stream.read()
        text = data.decode() if GROUP.encode() in data else ""
    except (OSError, ValueError):
        return {}
    found, group = {}, ""
    for line in map(str.strip, text.splitlines()):
        name, equals, target = line.partition("=")
        if line.startswith("["):
            group = line.strip("[] ")
        elif equals and group == GROUP and not line.startswith(("#", ";")):
            found[name.strip()] = target.strip()
    return found


def _remembered(memo: Path | None) -> dict[str, list[Any]]:
    try:
        rows = dict(json.loads(memo.read_bytes())) if memo else {}
        return {place: [modified, dict(found)] for place, (modified, found) in rows.items()}
    except (OSError, ValueError, TypeError):
        return {}


def _remember(memo: Path, content: object) -> None:
    with contextlib.suppress(OSError):  # only slower next time
        replace_file(memo, json.dumps(content).encode())
