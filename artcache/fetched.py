"""What a fetch is asked and what it gives. For `cache`, and through it for the rest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .errors import NewerFormat, OverLimit
from .home import Entry
from .recipe import Recipe, Request, Variant

if TYPE_CHECKING:
    from .key import Key
    from .match import Match

    Asked = str | Recipe | tuple[str | Recipe, Request | None]
    """A recipe or its name; with a request if it is not the default one."""

BuildPolicy = Literal["missing", "never", "always"]
Served = tuple[Entry, str, str]
"""An entry, where it came from, and a note for the user."""


class Wish:
    """One fetch: what is wanted, and what may serve."""

    __slots__ = (
        *("admit", "backfill", "build", "match", "newer", "race", "recipe", "request", "start"),
        *("variants", "verify"),
    )

    def __init__(
        self,
        recipe: Recipe,
        request: Request,
        variants: list[Variant],
        build: BuildPolicy,
        match: Match,
        verify: bool,
        backfill: bool | None,
        race: bool,
        start: float,
    ) -> None:
        self.recipe, self.request, self.variants, self.build = recipe, request, variants, build
        self.match, self.verify, self.backfill, self.race = match, verify, backfill, race
        self.start = start
        """By `time.perf_counter`."""
        self.admit: Callable[[int], object] = lambda length: None
        """See `Repository.find`."""
        self.newer: list[NewerFormat | OverLimit] = []
        """Artifacts that stores have and this version can't read."""


class Fetched:
    """A verified tree in the local home, and how it got there."""

    __slots__ = ("_entry", "build_seconds", "hit", "key", "note", "origin", "seconds")

    def __init__(self, entry: Entry, *, origin: str, seconds: float, note: str = "") -> None:
        self._entry = entry
        self.key: Key = entry.key
        self.origin = origin
        """`home`, the store's URL, or `built`."""
        self.hit = origin != "built"
        self.seconds = seconds
        self.build_seconds = entry.build_seconds
        """How long the build took, whoever ran it; 0.0 if unknown."""
        self.note = note

    @property
    def path(self) -> Path:
        return self._entry.path

    @property
    def entry(self) -> Entry:
        return self._entry

    @property
    def saved_seconds(self) -> float:
        """The build's time less this fetch's, 0.0 if it was built here."""
        return max(0.0, self.build_seconds - self.seconds) if self.hit else 0.0

    def __repr__(self) -> str:
        return f"Fetched({self.key.recipe} {self.key.hash[:12]} from {self.origin}: {self.path})"
