"""Writes a shared library that only has names, to link against where the real one is missing.

`libcuda.so.1` comes with a GPU's driver. What calls it can be linked on a
machine without one if something has that SONAME and those symbols. Written
byte by byte, so that it takes no compiler and is the same everywhere.

Source: System V ABI, "Object Files" and "Program Loading and Dynamic Linking".
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

MACHINES = {"linux-x86_64": 62, "linux-aarch64": 183}
"""`e_machine` by platform."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_TAG = struct.Struct("<qQ")
_LOAD, _DYNAMIC = 1, 2
_STRTAB, _HASH, _DYN, _DYNSYM = 3, 5, 6, 11
_NAMES = b"\0.dynstr\0.dynsym\0.hash\0.dynamic\0.shstrtab\0"


def shared_library(soname: str, symbols: Iterable[str], machine: int) -> bytes:
    """An ELF file of 64 bits with this SONAME that defines these functions, all at address 0."""
    names = sorted(set(symbols))
    text = b"\0" + b"".join(name.encode() + b"\0" for name in (soname, *names))
    table = [_SYMBOL.pack(0, 0, 0, 0, 0, 0)]
    position = 1 + len(soname) + 1
    for name in names:
        table.append(_SYMBOL.pack(position, 0x12, 0, 0xFFF1, 0, 0))  # global function, absolute
        position += len(name) + 1
    # One bucket is slow for a loader, which never sees this file, and right for a linker.
    chain = [index + 1 for index in range(1, len(table) - 1)] + [0]
    hashes = [1, len(table), int(len(table) > 1), 0, *chain[: len(table) - 1]]
    return _file(soname, text, b"".join(table), struct.pack(f"<{len(hashes)}I", *hashes), machine)


def _file(soname: str, strings: bytes, symbols: bytes, hashes: bytes, machine: int) -> bytes:
    start = _HEADER.size + 2 * _SEGMENT.size
    parts = [_padded(strings), symbols, _padded(hashes)]
    at = [start, start + len(parts[0]), start + len(parts[0]) + len(symbols)]
    dynamic_at = at[2] + len(parts[2])
    # SONAME, HASH, STRTAB, SYMTAB, STRSZ, SYMENT, NULL
    tags = ((14, 1), (4, at[2]), (5, at[0]), (6, at[1]), (10, len(strings)), (11, 24), (0, 0))
    dynamic = b"".join(_TAG.pack(*tag) for tag in tags)
    body = b"".join(parts) + dynamic + _padded(_NAMES)
    names_at = dynamic_at + len(dynamic)
    sections_at = start + len(body)
    sections = [
        _SECTION.pack(0, 0, 0, 0, 0, 0, 0, 0, 0, 0),
        _section(b".dynstr", _STRTAB, at[0], len(strings)),
        _section(b".dynsym", _DYNSYM, at[1], len(symbols), link=1, info=1, entry=24),
        _section(b".hash", _HASH, at[2], len(hashes), link=2, entry=4),
        _section(b".dynamic", _DYN, dynamic_at, len(dynamic), link=1, entry=16),
        _section(b".shstrtab", _STRTAB, names_at, len(_NAMES), loaded=False),
    ]
    whole = sections_at + _SECTION.size * len(sections)
    magic = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header = _HEADER.pack(
        *(magic, 3, machine, 1, 0, _HEADER.size, sections_at, 0),
        *(_HEADER.size, _SEGMENT.size, 2, _SECTION.size, len(sections), len(sections) - 1),
    )
    segments = _SEGMENT.pack(_LOAD, 6, 0, 0, 0, whole, whole, 0x10000)
    segments += _SEGMENT.pack(
        *(_DYNAMIC, 6, dynamic_at, dynamic_at, dynamic_at, len(dynamic), len(dynamic), 8)
    )
    return header + segments + body + b"".join(sections)


def _section(
    name: bytes, kind: int, at: int, size: int, *, link: int = 0, info: int = 0, entry: int = 0,
    loaded: bool = True,
) -> bytes:  # fmt: skip
    index = _NAMES.index(b"\0" + name + b"\0") + 1
    flags, address = (2, at) if loaded else (0, 0)
    return _SECTION.pack(index, kind, flags, address, at, size, link, info, 8, entry)


def _padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % 8)
