"""`fetch`, `build`, `run` and `uninstall`: the commands that make a tree appear."""

from __future__ import annotations

import functools
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from artcache.errors import UsageError

from .options import (
    Session,
    asking,
    common,
    make_request,
    optional_recipe,
    recipe_argument,
    several_recipes,
)
from .output import Output, human_seconds

if TYPE_CHECKING:
    from artcache.api import Cache
    from artcache.builder import Built
    from artcache.cache import Fetched
    from artcache.recipe import Request
    from artcache.repository import Published

_LIBRARIES = "-libraries"
"""Behind a recipe's name: the owner of the libraries that came along with `--to`."""
_TO = click.Path(file_okay=False)


_write_policy = click.option(
    "--write-policy",
    type=click.Choice(["ignore", "first", "all"]),
    help="Which stores must take what is built: none, the first that may be written, or all.",
)


_compression = click.option(
    "--compression",
    type=click.Choice(["auto", "fast", "default", "small"]),
    help="How hard what is published is compressed; auto: by the last upload's speed.",
)


@click.command("fetch")
@several_recipes
@asking
@click.option("--to", "target", type=_TO, metavar="DIR", help="Make the tree appear in DIR.")
@click.option("--overwrite", is_flag=True, help="With --to: replace files that are in the way.")
@click.option(
    "--build",
    type=click.Choice(["missing", "never", "always"]),
    default="missing",
    show_default=True,
    help="What to do when nobody has it.",
)
@click.option(
    "--match",
    type=click.Choice(["exact", "compatible", "jit"]),
    default="compatible",
    show_default=True,
    help="Whether an artifact that provably runs here may stand in for the exact one.",
)
@click.option("--verify", is_flag=True, help="Read every byte of a hit against its digest.")
@click.option(
    "--backfill/--no-backfill",
    default=None,
    help="Copy a hit to the stores before the one that has it.",
)
@click.option(
    "--race/--no-race",
    default=None,
    help="If fetching takes longer than the build did, build too and keep what is ready first.",
)
@_write_policy
@_compression
@common
def fetch_command(
    session: Session,
    recipes: tuple[str, ...],
    request: Request,
    target: str | None,
    overwrite: bool,
    build: Any,
    match: Any,
    verify: bool,
    backfill: bool | None,
    race: bool | None,
    write_policy: Any,
    compression: Any,
) -> int:
    """Print the path of each RECIPE's tree: from the home, from a store, or built.

    Several come at once, and what has to be built is built one after the other.
    """
    settings = {"write_policy": write_policy, "compression": compression}
    how = {"build": build, "match": match, "verify": verify, "backfill": backfill}
    if len(recipes) > 1:
        from .several import fetch_several

        if race:
            raise UsageError("--race is for one RECIPE", hint="fetch that one by itself")
        return fetch_several(session, recipes, request, target, overwrite, settings, how)
    with session.cache(**settings) as cache:
        done = cache.fetch(recipes[0], request, race=race, **how)
        told = told_of_fetch(done)
        if target is not None:
            told |= put_into(cache, done, target, overwrite, session.output)
    tell_fetched(session.output, done)
    session.output.text(os.path.abspath(target) if target else done.entry.tree)
    session.output.result(told)
    return 0


@click.command("build")
@optional_recipe
@asking
@click.option(
    "--force",
    is_flag=True,
    help="Build although it is cached, as always: what is there stays and is compared.",
)
@click.option("--fat", is_flag=True, help="One artifact for all of --arch.")
@click.option("--wanted", is_flag=True, help="Build what others missed, of RECIPE or of all.")
@click.option(
    "--any-source",
    is_flag=True,
    help="With --wanted: also what names its own source or commit. Whoever may write the store"
    " then chooses what runs here.",
)
@_write_policy
@_compression
@common
def build_command(
    session: Session,
    recipe: str | None,
    request: Request,
    force: bool,
    fat: bool,
    wanted: bool,
    any_source: bool,
    write_policy: Any,
    compression: Any,
) -> None:
    """Build RECIPE, cached or not, and publish it. Several --arch make several artifacts.

    With --wanted: what other machines missed and could not build, see `artcache wanted`.
    """
    if wanted:
        from .wanted import build_wanted

        if request != make_request(None, None, None, None, None, None, ()):
            raise UsageError(
                "--wanted builds what the records ask for, and nothing else",
                hint="leave the other options out, or build a RECIPE without --wanted",
            )
        settings = {"write_policy": write_policy, "compression": compression}
        build_wanted(session, recipe, any_source=any_source, **settings)
        return
    if recipe is None:
        raise UsageError("which RECIPE?", hint="artcache build darknet, or artcache build --wanted")
    if any_source:
        raise UsageError("--any-source goes with --wanted", hint="artcache build --wanted")
    with session.cache(write_policy=write_policy, compression=compression) as cache:
        results = cache.build_all(recipe, [request] if fat else per_architecture(request))
    for built in results:
        _tell_built(session.output, built)
        session.output.text(built.fetched.entry.tree)
    session.output.result([told_of_build(built) for built in results])


@click.command("run")
@common
@asking
@click.option("--program", help="The program's path in the tree; default: the recipe's own.")
@recipe_argument
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def run_command(
    session: Session,
    recipe: str,
    request: Request,
    program: str | None,
    arguments: tuple[str, ...],
) -> None:
    """Run RECIPE's program in place, fetching it first: artcache run darknet -- ARGUMENTS.

    The working folder stays as it is. An argument that is no file here but one
    of the tree (cfg/coco.data) is taken from there.
    """
    from artcache.process import replace_process

    with session.cache() as cache:
        done = cache.fetch(recipe, request)
    tell_fetched(session.output, done)
    executable = _program(done.path, program or cache.recipe(recipe).program or recipe)
    words = [_in_tree(done.path, word) for word in arguments]
    replace_process(executable, words, {**os.environ, "ARTCACHE_TREE": str(done.path)})


@click.command("uninstall")
@recipe_argument
@click.option("--from", "target", type=_TO, metavar="DIR", help="The folder, if it is in several.")
@common
def uninstall_command(session: Session, recipe: str, target: str | None) -> None:
    """Take out of DIR exactly what `fetch RECIPE --to DIR` put there."""
    from artcache.install import installed, uninstall

    with session.cache() as cache:
        folder = Path(target) if target else _only_place(cache, recipe)
        pending, libraries = cache.home.folder("pending"), recipe + _LIBRARIES
        if libraries in installed(folder):
            uninstall(folder, owner=libraries, pending=pending)
        done = uninstall(folder, owner=recipe, pending=pending)
        cache.home.memory.forget_place(recipe, str(folder.absolute()))
    for path in done.kept:
        session.output.note(f"kept {path}: it was changed since")
    session.output.text(f"removed {done.removed} files of {recipe} from {folder}")
    session.output.result({"removed": done.removed, "kept": list(done.kept)})


def _only_place(cache: Cache, recipe: str) -> Path:
    from artcache.install import installed

    known = cache.home.memory.places(recipe)
    places = [place for place in known if recipe in installed(Path(place))]
    if len(places) == 1:
        return Path(places[0])
    where = f"is in {', '.join(places)}" if places else "was put nowhere by this home's fetches"
    raise UsageError(
        f"{recipe} {where}",
        hint=f"name the folder: artcache uninstall {recipe} --from {(places or ['DIR'])[0]}",
    )


def per_architecture(request: Request) -> list[Request]:
    """One request for each compute capability: small artifacts that fit exactly."""
    groups: dict[tuple[int, str], list[Any]] = {}
    for arch in request.archs:
        groups.setdefault((arch.capability, arch.suffix), []).append(arch)
    return [request._replace(archs=tuple(group)) for group in groups.values()] or [request]


def put_into(
    cache: Cache, done: Fetched, target: str, overwrite: bool, output: Output
) -> dict[str, Any]:
    from artcache.install import Tree, install
    from artcache.supply import as_tree

    if done.origin == "machine" and os.path.realpath(target) == os.path.realpath(done.path):
        return {"to": os.path.abspath(target), "kept": [], "materialised": {}}

    manifest = done.entry.manifest()
    tree = Tree(done.path, manifest.files, manifest.links, manifest.dirs)
    put = functools.partial(
        install,
        prefix=Path(target),
        key=done.key.hash,
        pending=cache.home.folder("pending"),
        note=output.note,
        overwrite=overwrite,
    )
    installed = put(tree, owner=done.key.recipe)
    with as_tree(cache, done.entry) as libraries:
        if libraries:
            put(libraries, owner=done.key.recipe + _LIBRARIES)
    cache.home.memory.remember_place(done.key.recipe, os.path.abspath(target))
    for path in installed.kept:
        output.note(f"kept your own {target}/{path} (--overwrite replaces it)")
    return {
        "to": os.path.abspath(target),
        "kept": list(installed.kept),
        "materialised": dict(installed.how),
    }


def _program(tree: Path, name: str) -> Path:
    path = tree / name
    if not os.access(path, os.X_OK) or not path.is_file():
        programs = [entry.name for entry in sorted(tree.iterdir()) if os.access(entry, os.X_OK)]
        raise UsageError(
            f"{tree} has no program {name!r}",
            hint="choose one with --program: " + (", ".join(programs) or "there is none"),
        )
    return path


def _in_tree(tree: Path, word: str) -> str:
    if word.startswith(("-", "/")) or os.path.exists(word):
        return word
    inside = tree / word
    return str(inside) if word and ".." not in word and inside.exists() else word


def tell_fetched(output: Output, done: Fetched) -> None:
    name = f"{done.key.recipe} {done.key.hash[:12]}"
    if done.hit:
        saved = f", saved {human_seconds(done.saved_seconds)}" if done.saved_seconds else ""
        output.note(f"{name} from {done.origin} in {human_seconds(done.seconds)}{saved}")
    else:
        output.note(f"{name} built in {human_seconds(done.seconds)}")


def told_of_fetch(done: Fetched) -> dict[str, Any]:
    return {
        "recipe": done.key.recipe,
        "key": done.key.hash,
        "fields": done.key.fields,
        "path": done.entry.tree,
        "hit": done.hit,
        "origin": done.origin,
        "seconds": round(done.seconds, 6),
        "build_seconds": done.build_seconds,
        "saved_seconds": round(done.saved_seconds, 6),
    }


def _tell_built(output: Output, built: Built) -> None:
    tell_fetched(output, built.fetched)
    name = built.fetched.key.hash[:12]
    for where, paths in built.differing.items():
        if paths:
            shown = ", ".join(paths[:5]) + (", ..." if len(paths) > 5 else "")
            output.note(f"{name} was in {where} already and stays; this build differs in {shown}")
        else:
            output.note(f"{name} was in {where} already; this build made the same bytes")
    for done in built.published:
        if done.first:
            output.note(f"{name} {_stored(done)} {done.url}")
    output.detail(f"log: {built.log}")


def _stored(done: Published) -> str:
    return "published to" if done.durable else "written, upload pending, to"


def told_of_build(built: Built) -> dict[str, Any]:
    return {
        **told_of_fetch(built.fetched),
        "log": str(built.log) if built.log else None,
        "published": [
            {"url": done.url, "first": done.first, "durable": done.durable}
            for done in built.published
        ],
        "unpublished": [{"url": url, "error": error} for url, error in built.unpublished.items()],
        "already": [
            {"where": where, "equal": not paths, "differing": paths}
            for where, paths in built.differing.items()
        ],
    }
