"""`Needs`: what an artifact asks of the machine it runs on, and its JSON form.

Pure. `binary` fills it in from the built files, `manifest` stores it, `compat`
decides with it. An empty string or list says "nothing needed" (or, in a
manifest of an older version, "not recorded").
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from .errors import Corrupt

_VERSION = re.compile(r"(?:[0-9]+(?:\.[0-9]+){1,3})?")
_SHAPES = {
    "sonames": re.compile(r"[^\x00-\x1f\x7f]+"),
    "glibc": _VERSION,
    "glibcxx": _VERSION,
    "cxxabi": _VERSION,
    "sass": re.compile(r"sm_[0-9]{2,3}[af]?"),
    "ptx": re.compile(r"compute_[0-9]{2,3}[af]?"),
    "driver": _VERSION,
    "machine": re.compile(r"[a-z0-9_]{0,32}"),
}


class Needs(NamedTuple):
    """What a tree of files needs at run time, as found in the files themselves."""

    sonames: tuple[str, ...] = ()
    """Shared libraries that the tree does not bring along: `libcudart.so.12`. Sorted."""
    glibc: str = ""
    """The newest symbol version needed of the C library: `2.34`."""
    glibcxx: str = ""
    """The same of libstdc++: `3.4.30`."""
    cxxabi: str = ""
    """The same of its ABI library: `1.3.13`."""
    sass: tuple[str, ...] = ()
    """Architectures there is machine code for: `sm_75`, `sm_90a`. Sorted as strings."""
    ptx: tuple[str, ...] = ()
    """Architectures there is PTX for: `compute_90`. Sorted as strings."""
    driver: str = ""
    """The oldest Linux driver that the CUDA runtime in use starts on: `525.60.13`."""
    machine: str = ""
    """`x86_64` or `aarch64`, as in `os.uname`; empty if there is no machine code."""

    def to_json(self) -> dict[str, str | list[str]]:
        """Every field by its name, tuples as lists."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in self._asdict().items()
        }

    @classmethod
    def from_json(cls, mapping: Mapping[str, object]) -> Needs:
        """Read what `to_json` wrote. A missing field is empty: an older version wrote it.

        Raises:
            Corrupt: an unknown field, a wrong type, a value that no scan would
                write, or a list that is not sorted or repeats itself.
        """
        if not isinstance(mapping, Mapping):
            raise Corrupt(f"what the artifact needs is {type(mapping).__name__}, no object")
        if unknown := sorted(str(name) for name in mapping if name not in _SHAPES):
            raise Corrupt(f"what the artifact needs has unknown fields: {', '.join(unknown)}")
        defaults = cls()
        checked = {
            name: _strings(name, value)
            if isinstance(getattr(defaults, name), tuple)
            else _string(name, value)
            for name, value in mapping.items()
        }
        return cls(**checked)  # type: ignore[arg-type]


def _string(name: str, value: object) -> str:
    if not isinstance(value, str) or not _SHAPES[name].fullmatch(value):
        raise Corrupt(f"what the artifact needs: {name} is {value!r}")
    return value


def _strings(name: str, value: object) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise Corrupt(f"what the artifact needs: {name} is {value!r}, no list")
    items = tuple(_string(name, item) for item in value)
    if list(items) != sorted(set(items)):
        raise Corrupt(f"what the artifact needs: {name} is not sorted, or repeats itself")
    return items
