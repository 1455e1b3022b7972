"""Garbage collection: what may go from the home or a store, why, and taking it away.

Here is the decision, which touches nothing; `home` and `store` look and remove.
For the faces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple, TypeVar

from ..errors import UsageError
from ..units import DAY, HOUR, human_age, human_size

STORE_GRACE = DAY
"""Seconds in which another machine may be at work with what it found."""
HOME_GRACE = HOUR
KEPT_LITTER = 30 * DAY
"""Quarantined objects, logs and unused downloads are kept so long for whoever looks for them."""


class Rules(NamedTuple):
    """What was asked for. Without any of it only litter goes."""

    max_size: int | None = None
    """Bytes that may stay."""
    older_than: float | None = None
    """Seconds since an artifact was used (in the home) or made (in a store)."""
    keep_last: int = 0
    """So many of each recipe stay whatever else is asked, the newest. Alone: all others go."""
    grace: float = STORE_GRACE
    """Seconds; younger litter may be in use."""

    def checked(self) -> Rules:
        """Raises `UsageError` for what cannot be meant."""
        if self.keep_last < 0:
            raise UsageError(f"--keep-last {self.keep_last}: a number of artifacts, from 0 up")
        return self

    @property
    def only_last(self) -> bool:
        return bool(self.keep_last) and self.max_size is None and self.older_than is None


class Item(NamedTuple):
    """An artifact, as the rules see it."""

    recipe: str
    hash: str
    size: int
    when: float
    """Last used or made, in seconds since the epoch."""
    rank: int
    """1: the newest of its recipe."""
    pinned: bool = False
    number: int = 0
    """For whoever made the item."""


class Removal(NamedTuple):
    """One thing that goes, or would go."""

    kind: str
    """`artifact`, or what else it is: docs/cli.md lists the words."""
    name: str
    why: str
    size: int = 0
    """Bytes that are free now."""
    later: int = 0
    """Bytes that the first run after the grace period will free."""
    recipe: str = ""
    hash: str = ""


_Item = TypeVar("_Item", bound=Item)


def doomed(
    items: Iterable[_Item], rules: Rules, *, now: float, total: Callable[[], int]
) -> Iterator[tuple[_Item, str]]:
    """The items that the rules remove, each with the reason.

    Args:
        items: Those to go first come first.
        total: How many bytes are there; asked again after each item was taken.
    """
    for item in items:
        if item.pinned or item.rank <= rules.keep_last:
            continue
        age = max(0.0, now - item.when)
        if rules.only_last:
            yield item, f"{rules.keep_last} newer of {item.recipe} stay"
        elif rules.older_than is not None and age >= rules.older_than:
            yield item, f"older than {human_age(rules.older_than)}"
        elif rules.max_size is not None and (present := total()) > rules.max_size:
            yield item, f"{human_size(present)} are over {human_size(rules.max_size)}"
