"""The names of a store's objects: which there are, and what they say. Pure, for floor 4.

artcache.json                                    what this folder is
v1/manifests/<recipe>/<hash>.json                the commit point
v1/manifests/<recipe>/<hash>/<blake3>.json       the same, on stores without exclusive create
v1/packs/<first 2>/<blake3>.pack
v1/trash/<blake3>/<time>-<random>.pack           a pack that no manifest named, see `gc`
v1/siblings/<recipe>/<base>/<hash>.json          a hint: keys that differ only in `FLEXIBLE`
v1/recent/<recipe>/<time>-<hash>.json            a hint: what was published last, see `share`
v1/wanted/<recipe>/<hash>.json                   a miss that waits for a builder, see `wanted`
v1/probes/<random>                               written and removed by `artcache doctor`
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .key import Key, canonical_json, valid_hash, valid_recipe_name
from .manifest import FORMAT, READER

ROOT = "artcache.json"
MANIFESTS = "v1/manifests"
PACKS = "v1/packs"
TRASH = "v1/trash"
SIBLINGS = "v1/siblings"
RECENT = "v1/recent"
WANTED = "v1/wanted"
PROBES = "v1/probes"
UNIQUE = re.compile(r"([0-9a-f]{64})(?: ?\(\d+\))?\.json(?: ?\(\d+\))?")
"""A manifest's own digest; Drive adds ` (1)` when two machines make one name."""
FLEXIBLE = frozenset({"arch", "cuda", "cudnn", "libc"})
"""Fields in which two artifacts may differ and yet both run on one machine."""


class Listed(NamedTuple):
    recipe: str
    hash: str
    name: str
    size: int
    """Of the manifest, in bytes."""
    modified: float
    """Seconds since the epoch, by the store's clock."""


def root_object(created: str) -> bytes:
    """What `artcache.json` holds: for people, no reader needs it."""
    return canonical_json({"artcache": FORMAT, "reader": READER, "created": created})


def siblings_folder(key: Key) -> str:
    """Where the keys are listed that differ from `key` in `FLEXIBLE` fields only.

    One small folder, so that looking for a compatible artifact never lists a store.
    """
    base = Key({name: value for name, value in key.fields.items() if name not in FLEXIBLE})
    return f"{SIBLINGS}/{key.recipe}/{base.hash}"


def recent_folder(recipe: str) -> str:
    return f"{RECENT}/{recipe}"


def manifest_name(key: Key, unique: str = "") -> str:
    """Args:
    unique: The BLAKE3 of its bytes, on a store without exclusive create.
    """
    return f"{MANIFESTS}/{key.recipe}/{key.hash}" + (f"/{unique}.json" if unique else ".json")


def pack_name(blake3: str) -> str:
    return f"{PACKS}/{blake3[:2]}/{blake3}.pack"


def listed(name: str, size: int, modified: float) -> Listed | None:
    """What the name of an object below `MANIFESTS` says; None if it is no manifest's."""
    recipe, _, rest = name.removeprefix(f"{MANIFESTS}/").partition("/")
    text, slash, unique = rest.partition("/")
    sound = UNIQUE.fullmatch(unique) if slash else text.endswith(".json")
    text = text if slash else text.removesuffix(".json")
    if sound and valid_recipe_name(recipe) and valid_hash(text):
        return Listed(recipe, text, name, size, modified)
    return None
