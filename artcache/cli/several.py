"""`fetch` of several recipes: all at once, one path each, and what failed at the end."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from artcache.errors import ArtcacheError, FetchesFailed, UsageError

from .fetch import put_into, tell_fetched, told_of_fetch
from .options import Session
from .output import error_members

if TYPE_CHECKING:
    from artcache.recipe import Request

_OF_ONE = {"source": "--source", "ref": "--ref", "options": "--set"}
"""What a request says that means something to one recipe only."""


def fetch_several(
    session: Session,
    names: Sequence[str],
    request: Request,
    target: str | None,
    overwrite: bool,
    settings: Mapping[str, Any],
    how: Mapping[str, Any],
) -> int:
    """Returns the exit code: that of the first failure in the order of `names`.

    Args:
        target: One folder for all trees.
        settings: Of the cache. how: Arguments of `Cache.fetch_all`.
    """
    _check(names, request)
    with session.cache(**settings) as cache:
        try:
            results: list[Any] = list(cache.fetch_all([(name, request) for name in names], **how))
        except FetchesFailed as error:
            results = error.results
        rows: list[dict[str, Any]] = []
        for number, (name, done) in enumerate(zip(names, results, strict=True)):
            row: dict[str, Any] = {"recipe": name, "error": None}
            try:
                if isinstance(done, ArtcacheError):
                    raise done
                row |= told_of_fetch(done)
                if target is not None:
                    row |= put_into(cache, done, target, overwrite, session.output)
            except ArtcacheError as error:
                results[number] = error
                row["error"] = error_members(error)
            rows.append(row)
    for done, row in zip(results, rows, strict=True):
        if not row["error"]:
            tell_fetched(session.output, done)
            session.output.text(os.path.abspath(target) if target else done.entry.tree)
    if any(row["error"] for row in rows):
        return session.output.partly(rows, FetchesFailed(names, results))
    session.output.result(rows)
    return 0


def _check(names: Sequence[str], request: Request) -> None:
    """Raises `UsageError`."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise UsageError(f"{twice[0]} is named twice", hint="name each once")
    for field, option in _OF_ONE.items():
        if getattr(request, field):
            raise UsageError(
                f"{option} is for one RECIPE, and {len(names)} are named",
                hint=f"fetch that one by itself: artcache fetch {names[0]} {option} ...",
            )
