"""`Tier`: one configured store, opened when it is first asked. For `cache`; from any thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .recipe import Recipe
    from .repository import Repository
    from .store import Store


class Tier:
    """One configured store: how to open it, and whether it answered so far."""

    def __init__(
        self,
        store: Store | Callable[[], Store],
        *,
        url: str = "",
        reads: bool = True,
        writes: bool = True,
    ) -> None:
        self._store = store
        self.url = url or getattr(store, "url", "")
        self.reads, self.writes = reads, writes
        self.public = False
        """Anyone may read it: see `refuses`."""
        self.down = False
        """It did not answer, and is left alone for the rest of this run."""
        self.backfill: bool | None = None
        """Whether a hit in a later store is copied here; None: as for all stores."""
        self.took = False
        """It took an object in this run, so it can be written."""
        self.denied = False
        """It can be read and not be written."""
        self._repository: Repository | None = None
        self._lock = threading.Lock()

    @property
    def repository(self) -> Repository:
        """Raises `StoreUnavailable`, or `UsageError` for a URL that nobody understands."""
        found = self._repository
        if found is None:
            from .repository import Repository

            with self._lock:
                found = self._repository
                if found is None:
                    store = self._store() if callable(self._store) else self._store
                    found = self._repository = Repository(store)
        return found

    def fails(self) -> bool:
        """It does not answer. False if that was known already: it is told once."""
        with self._lock:
            first, self.down = not self.down, True
        return first

    @property
    def is_open(self) -> bool:
        return self._repository is not None

    def close(self) -> None:
        """Forget the connection: the next use opens another one."""
        self._repository = None

    def refuses(self, recipe: Recipe) -> str:
        """Why it must not get what the recipe makes; '' if it may."""
        if recipe.redistributable or not self.public:
            return ""
        return (
            f"publishing {recipe.name} to {self.url} is refused: that store is public, and"
            f" {recipe.licence or 'its licence'} does not allow {recipe.name} to be"
            " redistributed; a private store may have it"
        )
