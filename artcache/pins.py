"""Pins: artifacts that `gc` leaves alone, recorded in the place that they protect.

    v1/pins/<recipe>/<hash>/<days>.<random>.json      days, or `forever`

Each pin is an object of its own that is never replaced, so no two machines
disturb each other, on a Drive neither. It ends so many days after it was
written, by the clock of its place. The home has the same layout as a store.
For `gc`, `survey` and the faces.
"""

from __future__ import annotations

import contextlib
import getpass
import math
import os
import re
import socket
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from .key import canonical_json, valid_hash, valid_recipe_name
from .units import DAY

if TYPE_CHECKING:
    from .home import Home
    from .key import Key
    from .store import Store

FOLDER = "v1/pins"
_NAME = re.compile(r"(forever|[0-9]{1,6})\.[0-9a-f]+(?: ?\(\d+\))?\.json(?: ?\(\d+\))?")

Pinned = dict[tuple[str, str], float]
"""By recipe and hash: until when, in seconds since the epoch; `math.inf`: forever."""


class Pin(NamedTuple):
    recipe: str
    hash: str
    made: float
    """Seconds since the epoch, by the clock of its place."""
    until: float
    """The same; `math.inf`: forever."""
    name: str
    """The object's name."""


def place(home: Home) -> Store:
    """The home as what pins are kept in."""
    from .stores.posix import OwnFolder

    return OwnFolder(home.root)


def pins(store: Store, recipe: str = "", hash_: str = "") -> Iterator[Pin]:
    """All pins in a place, or those of one artifact, also those that have ended."""
    for found in store.list(f"{FOLDER}/{recipe}/{hash_}" if recipe else FOLDER):
        recipe, _, rest = found.name.removeprefix(f"{FOLDER}/").partition("/")
        hash_, _, file = rest.partition("/")
        match = _NAME.fullmatch(file)
        if match and valid_recipe_name(recipe) and valid_hash(hash_):
            days = math.inf if match[1] == "forever" else int(match[1])
            made = found.modified
            yield Pin(recipe, hash_, made, made + days * DAY, found.name)


def pinned(store: Store, now: float | None = None) -> Pinned:
    """What is pinned at `now` (default: by this machine's clock). Of several pins the longest
    counts."""
    now = time.time() if now is None else now
    held: Pinned = {}
    for pin in pins(store):
        if pin.until > now:
            known = held.get((pin.recipe, pin.hash), pin.until)
            held[pin.recipe, pin.hash] = max(known, pin.until)
    return held


def is_pinned(store: Store, recipe: str, hash_: str, now: float) -> bool:
    """Asked once more right before an artifact is removed: one small folder."""
    return any(pin.until > now for pin in pins(store, recipe, hash_))


def pin(store: Store, key: Key, days: int | None = None) -> None:
    """Pin an artifact, for so many days or forever. Pins add up: the longest counts.

    Raises:
        StoreUnavailable: the store cannot be written.
        LocalDisk: the home cannot.
    """
    word = "forever" if days is None else str(days)
    body = {"pin": 1, "by": _who(), "made": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())}
    name = f"{FOLDER}/{key.recipe}/{key.hash}/{word}.{os.urandom(6).hex()}.json"
    store.create(name, canonical_json({**body, "fields": key.fields}))


def unpin(store: Store, key: Key | None = None) -> list[Pin]:
    """Remove every pin of an artifact, whoever made it, or all pins; returns them."""
    found = list(pins(store, key.recipe, key.hash) if key else pins(store))
    for one in found:
        store.delete(one.name)
    return found


def _who() -> str:
    user = "somebody"
    with contextlib.suppress(Exception):  # a container's user may have no name
        user = getpass.getuser()
    return f"{user}@{socket.gethostname()}"
