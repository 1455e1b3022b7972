"""What a home remembers between commands. Losing it costs time or a question, never a result.

For `home`.
"""

from __future__ import annotations

import contextlib
import json
import time
from pathlib import Path

from .disk import replace_file
from .errors import ArtcacheError
from .key import Key

ALIAS_SECONDS = 24 * 3600.0
"""After that the stores are asked for the exact artifact again."""


class Memory:
    def __init__(self, folder: Path) -> None:
        self._folder = folder

    # -- aliases --------------------------------------------------------------------------

    def _alias(self, key: Key) -> Path:
        return self._folder / "aliases" / f"{key.recipe}.{key.hash}.json"

    def alias(self, key: Key) -> tuple[Key, str, bool] | None:
        """What was served in place of `key` less than `ALIAS_SECONDS` ago, the note for it,
        and whether it only stood in (it runs here), or was another variant of the request."""
        try:
            path = self._alias(key)
            if time.time() - path.stat().st_mtime > ALIAS_SECONDS:
                return None
            body = json.loads(path.read_bytes())
            return Key(body["fields"]), str(body["note"]), bool(body["stands_in"])
        except (OSError, ValueError, KeyError, TypeError, ArtcacheError):
            return None

    def remember_alias(self, key: Key, served: Key, note: str, *, stands_in: bool) -> None:
        """So that the next fetch needs no network. A home that cannot be written forgets."""
        path = self._alias(key)
        with contextlib.suppress(OSError):
            _write(path, {"fields": served.fields, "note": note, "stands_in": stands_in})

    # -- how quickly stores take packs ----------------------------------------------------

    def rate(self, url: str) -> float:
        """Bytes a second of the last upload to that store; 0.0 if there was none."""
        return self._rates().get(url, 0.0)

    def remember_rate(self, url: str, rate: float) -> None:
        with contextlib.suppress(OSError):
            _write(self._folder / "rates.json", {**self._rates(), url: round(rate)})

    def _rates(self) -> dict[str, float]:
        try:
            found = json.loads((self._folder / "rates.json").read_bytes())
            return {str(url): float(rate) for url, rate in found.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    # -- where trees were installed -------------------------------------------------------

    def places(self, recipe: str) -> list[str]:
        """The folders into which `--to` put a tree of this recipe, as far as is remembered."""
        try:
            found = json.loads((self._folder / "places" / f"{recipe}.json").read_bytes())
            return [str(place) for place in found]
        except (OSError, ValueError, TypeError):
            return []

    def remember_place(self, recipe: str, place: str) -> None:
        self._write_places(recipe, [*dict.fromkeys([*self.places(recipe), place])])

    def forget_place(self, recipe: str, place: str) -> None:
        self._write_places(recipe, [other for other in self.places(recipe) if other != place])

    def _write_places(self, recipe: str, places: list[str]) -> None:
        path = self._folder / "places" / f"{recipe}.json"
        with contextlib.suppress(OSError):  # then `uninstall` asks for the folder
            _write(path, places)


def _write(path: Path, body: object) -> None:
    replace_file(path, json.dumps(body).encode())
