"""`push`, `pull`, `save` and `restore`: artifacts from one place to another."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click

from artcache.errors import UsageError

from .options import Session, asking, common, recipe_names, with_options
from .output import error_members, human_size

if TYPE_CHECKING:
    from artcache.api import Cache
    from artcache.recipe import Request
    from artcache.tier import Tier
    from artcache.transfer.choose import Chosen
    from artcache.transfer.send import Moved

_F = TypeVar("_F", bound=Callable[..., Any])
_DONE = {"push": "pushed to", "pull": "pulled from", "save": "saved in", "restore": "restored from"}


class _Choice(NamedTuple):
    """Which artifacts the user means."""

    targets: tuple[str, ...]
    request: Request
    everything: bool
    recipe: str | None
    libraries: bool

    @property
    def empty(self) -> bool:
        return not (self.targets or self.everything or self.recipe)

    def check(self) -> None:
        """Raises `UsageError`."""
        if self.empty:
            raise UsageError(
                "which artifacts?",
                hint="name recipes or the first digits of hashes, or say --all or --recipe NAME",
            )
        if self.targets and (self.everything or self.recipe):
            raise UsageError("name artifacts, or say --all or --recipe NAME, not both")

    def among(
        self, cache: Cache, places: Sequence[Tier | None], *, here: bool = False
    ) -> list[Chosen]:
        """Those of `places` (None: the home).

        Args:
            here: They are for this machine, which may have some libraries by itself.
        """
        from artcache.transfer.choose import choose, with_libraries

        try:
            chosen = choose(cache, places, self.targets, self.request, recipe=self.recipe)
        except UsageError:
            from .fetch import per_architecture

            requests = per_architecture(self.request)  # as `build` makes them unless --fat
            if len(requests) == 1:
                raise
            chosen = [
                one for request in requests for one in choose(cache, places, self.targets, request)
            ]
        if self.libraries and (self.targets or self.recipe):
            return with_libraries(cache, chosen, here=here)
        return chosen


def _choosing(function: _F) -> _F:
    """Which artifacts: the arguments and options of all four commands, as one `choice`."""

    def wrapper(
        targets: tuple[str, ...],
        request: Request,
        everything: bool,
        recipe: str | None,
        libraries: bool,
        **rest: Any,
    ) -> Any:
        return function(choice=_Choice(targets, request, everything, recipe, libraries), **rest)

    options = (
        click.argument("targets", nargs=-1, metavar="[TARGET]...", shell_complete=recipe_names),
        click.option("--all", "everything", is_flag=True, help="All artifacts."),
        click.option("--recipe", metavar="NAME", help="All artifacts of this recipe."),
        click.option(
            "--libraries/--no-libraries",
            default=True,
            help="Also the artifacts whose shared libraries they need (default: yes).",
        ),
        asking,
    )
    return with_options(function, wrapper, options)


def _one(ctx: click.Context, param: click.Parameter, given: Sequence[str]) -> str | None:
    """What an option says that click would else take the last of, in silence."""
    if len(given) > 1:
        raise UsageError(f"{param.opts[0]} names one store", hint="run it once for each")
    return given[0] if given else None


def _store_option(name: str, variable: str, help: str) -> Callable[[_F], _F]:
    return click.option(name, variable, metavar="URL", multiple=True, callback=_one, help=help)


_dry_run = click.option("--dry-run", is_flag=True, help="Only say what would be copied.")
_from = _store_option("--from", "origin", "Copy from this store instead of from the home.")


@click.command("push")
@_choosing
@_store_option("--to", "target", "The store; default: the first configured.")
@_from
@_dry_run
@common
def push_command(
    session: Session, choice: _Choice, target: str | None, origin: str | None, dry_run: bool
) -> int:
    """Copy artifacts from the home to a store. TARGET is a recipe or the first digits of a hash."""
    from artcache.transfer.send import push

    choice.check()
    with session.cache() as cache:
        to = cache.tier(target) if target else _first(_writable(cache), "--to URL")
        if not to.writes:
            raise UsageError(f"{to.url} is configured as read-only", hint="name another with --to")
        chosen = choice.among(cache, [cache.tier(origin) if origin else None])
        moves = push(cache, chosen, to, dry_run=dry_run)
        return _tell(session, moves, len(chosen), origin or "the home")


@click.command("pull")
@_choosing
@_store_option("--from", "origin", "The store; default: the configured ones.")
@_dry_run
@common
def pull_command(session: Session, choice: _Choice, origin: str | None, dry_run: bool) -> int:
    """Copy artifacts from a store into the home. TARGET is a recipe or a hash's first digits."""
    from artcache.transfer.send import pull

    choice.check()
    with session.cache() as cache:
        places = [cache.tier(origin)] if origin else cache.readers()
        _first(places, "--from URL")
        chosen = choice.among(cache, places, here=True)
        where = ", ".join(place.url for place in places)
        return _tell(session, pull(cache, chosen, dry_run=dry_run), len(chosen), where)


@click.command("save")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@_choosing
@_from
@click.option("--force", is_flag=True, help="Replace FILE if it exists.")
@common
def save_command(
    session: Session, file: str, choice: _Choice, origin: str | None, force: bool
) -> int:
    """Write artifacts into FILE (name it *.artcache; `-`: stdout), for `artcache restore`.

    With them go the artifacts whose shared libraries they need. FILE is itself a store
    to read from: --store FILE.
    """
    from artcache.transfer.archive import save

    choice.check()
    if file == "-" and (session.output.as_json or sys.stdout.isatty()):
        raise UsageError("an archive on stdout needs a pipe or file, and leaves no room for JSON")
    with session.cache() as cache, _written(cache, file) as path:
        chosen = choice.among(cache, [cache.tier(origin) if origin else None])
        if not chosen:
            raise UsageError(f"there is nothing to save in {origin or 'the home'}")
        moves = save(cache, chosen, path, overwrite=force, name="stdout" if file == "-" else "")
        say = session.output.note if file == "-" else None
        code = _tell(session, moves, len(chosen), say=say)
    if file != "-" and not file.endswith(".artcache"):
        session.output.note(f"named *.artcache it could be used in place: --store {file}.artcache")
    return code


@click.command("restore")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@_choosing
@_dry_run
@common
def restore_command(session: Session, file: str, choice: _Choice, dry_run: bool) -> int:
    """Bring what `artcache save` wrote into FILE (`-`: stdin) into the home: TARGETs, or all."""
    from artcache.transfer.archive import open_archive
    from artcache.transfer.send import pull

    if not choice.empty:
        choice.check()
    with session.cache() as cache, _readable(cache, file) as path:
        chosen = choice.among(cache, [open_archive(path)], here=True)
        return _tell(session, pull(cache, chosen, dry_run=dry_run), len(chosen), file)


def _writable(cache: Cache) -> list[Tier]:
    """Not those that can only be read by their nature (https, an archive)."""
    return [tier for tier in cache.writers() if tier.repository.store.traits.writable]


def _first(tiers: Sequence[Tier], option: str) -> Tier:
    if not tiers:
        raise UsageError("no store is configured for that", hint=f"say which with {option}")
    return tiers[0]


# -- files that are pipes -----------------------------------------------------------------


@contextlib.contextmanager
def _on_disk(cache: Cache, file: str) -> Iterator[Path]:
    """FILE; for `-` a file that is there as long, since an archive is not read or made in order."""
    if file != "-":
        yield Path(file)
        return
    with cache.home.staging() as staging:
        yield staging / "pipe.artcache"


@contextlib.contextmanager
def _written(cache: Cache, file: str) -> Iterator[Path]:
    """Where to write the archive; for `-` it is copied to stdout at the end."""
    with _on_disk(cache, file) as path:
        yield path
        if file == "-" and path.exists():
            import shutil

            with path.open("rb") as saved:
                shutil.copyfileobj(saved, sys.stdout.buffer, 1 << 20)
            sys.stdout.buffer.flush()


@contextlib.contextmanager
def _readable(cache: Cache, file: str) -> Iterator[Path]:
    """The archive as a file that can be read anywhere; stdin is copied first."""
    with _on_disk(cache, file) as path:
        if file == "-":
            import shutil

            from artcache.disk import disk_errors

            with disk_errors(path.parent, doing="copy the archive"), path.open("wb") as copy:
                shutil.copyfileobj(sys.stdin.buffer, copy, 1 << 20)
        yield path


# -- what became of it --------------------------------------------------------------------


def _tell(
    session: Session,
    moves: Iterable[Moved],
    count: int,
    where: str = "",
    *,
    say: Callable[[str], None] | None = None,
) -> int:
    """Say what became of each, and of all. Returns the exit code.

    Args:
        count: How many were chosen.
        where: Where they were looked for.
    """
    output = session.output
    say = say or output.text
    done = []
    for moved in moves:
        done.append(moved)
        name = f"{moved.key.hash[:12]} {moved.key.recipe}"
        if not moved.error:
            say(f"{name}: {_words(moved, output.command)}")
        elif count > 1:  # else it is the command's
            output.warn(f"{name}: {moved.error}")
    if len(done) != 1:
        output.note(_summary(done, output.command) + (f" from {where}" if not done else ""))
    rows = [_row(moved) for moved in done]
    failed = [moved.error for moved in done if moved.error]
    if not failed:
        output.result(rows)
        return 0
    error = failed[0]
    if len(done) > 1:
        error = type(error)(f"{len(failed)} of {len(done)} artifacts failed", hint=error.hint)
    return output.partly(rows, error)


def _words(moved: Moved, command: str) -> str:
    size = human_size(moved.size)
    if moved.state == "copied":
        pending = "" if moved.durable else ", upload pending"
        where = moved.source if command in ("pull", "restore") else moved.target
        return f"{_DONE[command]} {where} ({size}{pending})"
    if moved.state == "planned":
        return f"would be {_DONE[command].partition(' ')[0]} ({size})"
    if moved.state == "refused":
        return "not copied: its licence forbids it"
    where = "the home" if moved.target == "home" else moved.target
    if moved.state == "present":
        return f"in {where} already"
    shown = ", ".join(moved.differing[:5]) + (", ..." if len(moved.differing) > 5 else "")
    return f"in {where} already with other content, which stays; it differs in {shown}"


def _summary(done: Sequence[Moved], command: str) -> str:
    """`3 pushed (1.2 MB), 1 there already`."""
    counts: dict[str, list[int]] = {}
    for moved in done:
        state = "failed" if moved.error else moved.state
        counts.setdefault(state, []).append(moved.size)
    verb = _DONE[command].partition(" ")[0]
    words = {"copied": verb, "planned": f"would be {verb}", "present": "there already"}
    words |= {"differs": "there with other content", "refused": "refused"}
    told = [
        f"{len(sizes)} {words.get(state, state)}"
        + (f" ({human_size(sum(sizes))})" if state in ("copied", "planned") else "")
        for state, sizes in counts.items()
    ]
    return ", ".join(told) or f"nothing to be {verb}"


def _row(moved: Moved) -> dict[str, Any]:
    return {
        "recipe": moved.key.recipe,
        "key": moved.key.hash,
        "from": moved.source,
        "to": moved.target,
        "state": moved.state,
        "size": moved.size,
        "seconds": round(moved.seconds, 6),
        "differing": list(moved.differing),
        "durable": moved.durable,
        "error": error_members(moved.error) if moved.error else None,
    }
