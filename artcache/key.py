"""`Key`: named fields, their canonical bytes, and the XXH3-128 hash that names an artifact.

The hash is a name and not a proof: it can be forged, so the manifest repeats
every field and readers compare fields. docs/format.md has the test vectors.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from typing import NamedTuple

from .digest import xxh3
from .errors import InvalidKey

FieldValue = str | tuple[str, ...]
"""A string, or a sorted list of strings without repeats."""

FIELDS = (
    *("recipe", "recipe_version", "source", "commit", "patches", "cuda", "arch", "cudnn"),
    *("options", "platform", "libc"),
)
"""The names that artcache's own recipes use, in the order in which people read them."""

_NAME = re.compile(r"[a-z][a-z0-9_]{0,63}")
_RECIPE = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?")
_HASH = re.compile(r"[0-9a-f]{32}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class Difference(NamedTuple):
    """One field in which two keys differ; None where a key lacks the field."""

    field: str
    ours: FieldValue | None
    theirs: FieldValue | None

    def __str__(self) -> str:
        return f"{self.field}: {shown(self.theirs)}, wanted {shown(self.ours)}"


class Key:
    """What an artifact is made from. Immutable, hashable, equal by its fields."""

    __slots__ = ("_fields", "_hash")
    _fields: dict[str, FieldValue]
    _hash: str

    def __init__(self, fields: Mapping[str, str | Sequence[str]]) -> None:
        """Check and freeze `fields`.

        Lists are sorted here, so that no caller can make two keys of one set.

        Raises:
            InvalidKey: a name or value that has no canonical form, or no `recipe`.
        """
        if not isinstance(fields, Mapping):
            raise InvalidKey(f"a key's fields are names with values, not {fields!r:.80}")
        frozen = {name: _checked(name, fields[name]) for name in sorted(fields)}
        if not valid_recipe_name(str(frozen.get("recipe", ""))):
            raise InvalidKey(
                f"{fields.get('recipe')!r} is no recipe name: a-z, 0-9, '.', '_' and '-' only"
            )
        self._fields = frozen
        self._hash = xxh3(canonical_json(frozen))

    @property
    def hash(self) -> str:
        """32 lower-case hex digits: XXH3-128 of `canonical`."""
        return self._hash

    @property
    def recipe(self) -> str:
        return str(self._fields["recipe"])

    @property
    def fields(self) -> dict[str, FieldValue]:
        return dict(self._fields)

    @property
    def canonical(self) -> bytes:
        return canonical_json(self._fields)

    def get(self, name: str) -> FieldValue | None:
        return self._fields.get(name)

    def differences(self, other: Key) -> tuple[Difference, ...]:
        """The fields in which `other` differs, in reading order."""
        names = self._fields.keys() | other._fields.keys()
        return tuple(
            Difference(name, self.get(name), other.get(name))
            for name in in_reading_order(names)
            if self.get(name) != other.get(name)
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Key) and self._fields == other._fields

    def __hash__(self) -> int:
        return hash(self._hash)

    def __repr__(self) -> str:
        return f"Key({self.recipe} {self._hash})"


def canonical_json(value: object) -> bytes:
    """UTF-8, names sorted by code point, no spaces, non-ASCII as itself. No floats go in."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


def valid_recipe_name(name: str) -> bool:
    """True for 1 to 64 of `a-z 0-9 . _ -`, the ends alphanumeric, without `..`."""
    return bool(_RECIPE.fullmatch(name)) and ".." not in name


def valid_hash(text: str) -> bool:
    return bool(_HASH.fullmatch(text))


def in_reading_order(names: Iterable[str]) -> Iterator[str]:
    """Known field names in the order of `FIELDS`, then the others sorted."""
    present = set(names)
    yield from (name for name in FIELDS if name in present)
    yield from sorted(present.difference(FIELDS))


def shown(value: FieldValue | None) -> str:
    """A field's value as people read it."""
    if value is None:
        return "absent"
    return value if isinstance(value, str) else (", ".join(value) or "none")


def _checked(name: str, value: str | Sequence[str]) -> FieldValue:
    if not _NAME.fullmatch(name):
        raise InvalidKey(f"{name!r} is no field name: a-z, 0-9 and _ only, at most 64 of them")
    if isinstance(value, str):
        return _checked_text(name, value)
    if not isinstance(value, (Sequence, Set)):
        raise InvalidKey(f"the key's field {name} is no string or list of strings: {value!r}")
    items = [_checked_text(name, item) for item in value]
    if len(set(items)) != len(items):
        raise InvalidKey(f"the key's field {name} repeats a value: {items}")
    return tuple(sorted(items))


def _checked_text(name: str, text: str) -> str:
    if not isinstance(text, str):
        raise InvalidKey(f"the key's field {name} holds {text!r}, which is no string")
    if _CONTROL.search(text):
        raise InvalidKey(f"the key's field {name} holds a control character: {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidKey(f"the key's field {name} is no valid Unicode: {text!r}") from None
    return text
