"""What a machine has already: named where it is, in place of a tree in the home. For `cache`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from .errors import Refused
from .home import Entry

if TYPE_CHECKING:
    from .cache import Cache, Fetched
    from .key import Key
    from .recipe import Variant


class Present(Entry):
    """A folder that artcache did not make and never writes to."""

    __slots__ = ("_place",)

    def __init__(self, key: Key, place: str) -> None:
        self.key = key
        self._place = place

    @property
    def path(self) -> Path:
        return Path(self._place)

    @property
    def tree(self) -> str:
        return self._place

    @property
    def lacks_libraries(self) -> bool:
        return False

    @property
    def build_seconds(self) -> float:
        return 0.0

    def manifest(self) -> NoReturn:
        """Raises `Refused`: there is none, so there is no list of what to install."""
        raise Refused(
            f"this machine has {self.key.recipe} already, in {self._place}: nothing was fetched"
            " that could be installed elsewhere",
            hint="name the one to install: --source wheels, --source FILE or --toolchain wheels",
        )


def named(cache: Cache, variant: Variant) -> Fetched:
    """The result of a fetch that found the thing on this machine."""
    from .cache import Fetched

    cache.observer.note(variant.note)
    entry = Present(variant.key, variant.present)
    return Fetched(entry, origin="machine", seconds=0.0, note=variant.note)
