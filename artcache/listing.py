"""A store's manifests, all of them, read as they are asked for. For `survey` and `gc`.

A hundred thousand small reads, each waiting for a store's answer, take hours one
after the other, and all memory at once: so a bounded window of them is under way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from .errors import NewerFormat, OverLimit
from .frames import in_order
from .layout import Listed
from .manifest import Manifest
from .repository import Repository

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def each(
    repository: Repository, work: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """`map`, in order, several at once where the store answers slowly.

    Args:
        items: Taken by the calling thread, a few more than were given back.
    """
    traits = repository.store.traits
    # A disk answers at once; a mount doesn't, whatever is behind it.
    workers = traits.parallel or (1 if traits.exclusive_create else 8)
    if workers == 1:
        yield from map(work, items)
        return
    with ThreadPoolExecutor(workers) as pool:
        try:
            yield from in_order(pool, work, items, 4 * workers)
        except KeyboardInterrupt:
            repository.abort()
            raise


def read_all(
    repository: Repository, chosen: Iterable[Listed]
) -> Iterator[tuple[Listed, Manifest | NewerFormat | OverLimit | None]]:
    """`Repository.read` of each; what this version cannot read as its error."""

    def read(one: Listed) -> tuple[Listed, Manifest | NewerFormat | OverLimit | None]:
        try:
            return one, repository.read(one)
        except (NewerFormat, OverLimit) as error:
            return one, error

    return each(repository, read, chosen)
