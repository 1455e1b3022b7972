"""The bytes of a ZIP file (APPNOTE 6.3.10) without compression: headers there and back.

For `archive`. Python's zipfile believes offsets, takes compressed, doubled and overlapping
members, and reads a directory of any size; a stranger's file must not have that much to say.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Mapping
from typing import NamedTuple, NoReturn

from ..errors import BadArchive, UsageError
from ..store import checked_name

MOST_MEMBERS = 500_000
MOST_DIRECTORY = 128 << 20
"""Bytes; as many members as that with the longest names that stores have."""

_LOCAL = struct.Struct("<4s5H3L2H")
_ENTRY = struct.Struct("<4s6H3L5H2L")
_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR = struct.Struct("<4sLQL")
_IS_LOCAL, _IS_ENTRY, _IS_END = b"PK\3\4", b"PK\1\2", b"PK\5\6"
_IS_END64, _IS_LOCATOR = b"PK\6\6", b"PK\6\7"

_FULL16, _FULL32 = 0xFFFF, 0xFFFFFFFF
"""What a field says whose number stands in its 64-bit form elsewhere."""
_MOST16, _MOST32 = _FULL16, _FULL32
"""From these numbers on a writer takes that form."""
_OLD, _ZIP64 = 20, 45
"""The versions that are needed to read it."""
_UNIX, _REGULAR = 3 << 8, 0o100644 << 16
_MOMENT = 0x00210000
"""1980-01-01 00:00, the first there is: the same objects make the same bytes."""
_ENCRYPTED, _TRAILED = 0x2041, 0x8
"""Flags: encrypted, in one of three ways; CRC and sizes stand behind the bytes."""


class Member(NamedTuple):
    header: int
    """Where its own header begins."""
    size: int
    """Bytes."""
    crc: int
    limit: int
    """Where the next member begins, or the directory."""


# -- writing ------------------------------------------------------------------------------


def local_header(name: str, size: int, crc: int) -> bytes:
    big = size >= _MOST32
    extra = struct.pack("<2H2Q", 1, 16, size, size) if big else b""
    shown = _short(size)
    word = name.encode()
    fixed = _LOCAL.pack(
        *(_IS_LOCAL, _ZIP64 if big else _OLD, 0, 0, _MOMENT & 0xFFFF, _MOMENT >> 16),
        *(crc, shown, shown, len(word), len(extra)),
    )
    return fixed + word + extra


def directory(members: Mapping[str, Member], begin: int) -> bytes:
    """The end of a file: an entry for each member in their order, and what closes it."""
    entries = b"".join(_entry(name, member) for name, member in members.items())
    count, size = len(members), len(entries)
    end = b""
    if count >= _MOST16 or size >= _MOST32 or begin >= _MOST32:
        end = _END64.pack(
            *(_IS_END64, _END64.size - 12, _UNIX | _ZIP64, _ZIP64, 0, 0),
            *(count, count, size, begin),
        )
        end += _LOCATOR.pack(_IS_LOCATOR, 0, begin + size, 1)
    count = _FULL16 if count >= _MOST16 else count
    size, begin = _short(size), _short(begin)
    return entries + end + _END.pack(_IS_END, 0, 0, count, count, size, begin, 0)


def _entry(name: str, member: Member) -> bytes:
    numbers = [member.size] * 2 if member.size >= _MOST32 else []
    numbers += [member.header] if member.header >= _MOST32 else []
    extra = struct.pack(f"<2H{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""
    size, word = _short(member.size), name.encode()
    fixed = _ENTRY.pack(
        *(_IS_ENTRY, _UNIX | _ZIP64, _ZIP64 if numbers else _OLD, 0, 0),
        *(_MOMENT & 0xFFFF, _MOMENT >> 16, member.crc, size, size, len(word), len(extra)),
        *(0, 0, 0, _REGULAR, _short(member.header)),
    )
    return fixed + word + extra


def _short(number: int) -> int:
    return _FULL32 if number >= _MOST32 else number


# -- reading ------------------------------------------------------------------------------


def read_index(handle: int, url: str) -> dict[str, Member]:
    """The members of an open file by name.

    Raises:
        BadArchive: it is none, or one of its members is not as docs/format.md says.
        OSError: it cannot be read.
    """
    count, size, begin = _read_end(handle, os.fstat(handle).st_size, url)
    if count > MOST_MEMBERS or size > MOST_DIRECTORY:
        _bad(url, f"it has {count} members in {size} bytes; at most {MOST_MEMBERS} are read")
    data = _read(handle, begin, size)
    found: dict[str, Member] = {}
    at = 0
    for _ in range(count):
        at, name, member = _read_entry(data, at, url)
        if name in found:
            _bad(url, f"two members are called {name}")
        if not name.endswith("/"):
            found[name] = member
    if at != size:
        _bad(url, f"its directory has {size - at} bytes that belong to no member")
    _check_folders(found, url)
    return _bounded(found, begin, url)


def begin(handle: int, name: str, member: Member, url: str) -> int:
    """Where a member's bytes begin. Raises `BadArchive` if its own header says otherwise."""
    head = _read(handle, member.header, _LOCAL.size + len(name))
    if len(head) < _LOCAL.size + len(name):
        _bad(url, f"{name} lies behind the end of the file")
    magic, _, flags, method, _, _, crc, stored, size, length, extra = _LOCAL.unpack_from(head)
    if magic != _IS_LOCAL or head[_LOCAL.size :][:length] != name.encode():
        _bad(url, f"there is no {name} where its directory says")
    if flags & _ENCRYPTED or method:
        _bad(url, f"{name} is encrypted or compressed")
    if not flags & _TRAILED:
        shown = (member.crc, min(member.size, _FULL32))
        if size != stored or (shown != (crc, size) and size != _FULL32):
            _bad(url, f"{name} has another size or CRC than its directory says")
    at = member.header + _LOCAL.size + int(length) + int(extra)
    if at + member.size > member.limit:
        _bad(url, f"{name} and what comes after it overlap")
    return at


def _read_end(handle: int, length: int, url: str) -> tuple[int, int, int]:
    """How many members, and the directory's size and begin."""
    at = length - _END.size
    tail = _read(handle, at, _END.size) if at >= 0 else b""
    if tail[:4] != _IS_END or tail[-2:] != b"\0\0":
        _bad(url, "it does not end as one: it was cut, or it is something else")
    _, disk, first, here, count, size, begin, _ = _END.unpack(tail)
    numbers = (here, count, size, begin)
    locator = _read(handle, at - _LOCATOR.size, _LOCATOR.size) if at >= _LOCATOR.size else b""
    if locator[:4] == _IS_LOCATOR:
        _, _, where, _ = _LOCATOR.unpack(locator)
        record = _read(handle, where, _END64.size) if where < length else b""
        at -= _LOCATOR.size + _END64.size
        if record[:4] != _IS_END64 or where != at:
            _bad(url, "its 64-bit end is not where it says")
        _, _, _, _, disk, first, *long = _END64.unpack(record)
        full = (_FULL16, _FULL16, _FULL32, _FULL32)
        if any(b not in (a, most) for a, b, most in zip(long, numbers, full, strict=True)):
            _bad(url, "its two ends contradict each other")
        here, count, size, begin = long
    if disk or first or here != count:
        _bad(url, "it is one part of several")
    if begin + size != at:
        _bad(url, "its directory is not where it says: the file was cut or added to")
    return count, size, begin


def _read_entry(data: bytes, at: int, url: str) -> tuple[int, str, Member]:
    if len(data) < at + _ENTRY.size or data[at : at + 4] != _IS_ENTRY:
        _bad(url, "its directory has fewer members than it says")
    (_, _, _, flags, method, _, _, crc, stored, size, *lengths, disk, _, _, header) = (
        _ENTRY.unpack_from(data, at)
    )
    at += _ENTRY.size
    word, extra = data[at : at + lengths[0]], data[at + lengths[0] : at + lengths[0] + lengths[1]]
    name = _checked(word, url)
    if flags & _ENCRYPTED:
        _bad(url, f"{name} is encrypted")
    if method:
        _bad(url, f"{name} is compressed")
    stored, size, header = _long(name, extra, [size, stored, header], url)
    if stored != size or (name.endswith("/") and size):
        _bad(url, f"{name} has {stored} bytes for {size}")
    if disk not in (0, _FULL16):
        _bad(url, f"{name} is in another part")
    return at + sum(lengths), name, Member(header, size, crc, 0)


def _checked(word: bytes, url: str) -> str:
    """A member's name: an object's, or a folder's with a slash at its end."""
    name = word.decode("ascii", "backslashreplace")
    try:
        checked_name(name.removesuffix("/"))
    except UsageError:
        _bad(url, f"{name!r:.200} is no name of an object")
    return name


def _long(name: str, extra: bytes, shown: list[int], url: str) -> list[int]:
    """Numbers that don't fit into 32 bits stand in the extra field, in their order."""
    missing, long = shown.count(_FULL32), b""
    while missing and len(extra) >= 4 and not long:
        kind, length = struct.unpack_from("<2H", extra)
        body, extra = extra[4 : 4 + length], extra[4 + length :]
        long = body if kind == 1 else b""
    if len(long) < 8 * missing:
        _bad(url, f"{name} says that its size is elsewhere, and it is not")
    numbers = iter(struct.unpack_from(f"<{missing}Q", long))
    return [next(numbers) if number == _FULL32 else number for number in shown]


def _check_folders(found: Mapping[str, Member], url: str) -> None:
    if clash := folders(found) & found.keys():
        _bad(url, f"{min(clash)} is both an object and a folder")


def folders(names: Iterable[str]) -> set[str]:
    """The folders that objects of these names are in, and those that these are in."""
    found: set[str] = set()
    for name in names:
        while "/" in name and (name := name.rpartition("/")[0]) not in found:
            found.add(name)
    return found


def _bounded(found: dict[str, Member], end: int, url: str) -> dict[str, Member]:
    """With each member's limit. Raises `BadArchive` if two of them share bytes."""
    limit = end
    for name in sorted(found, key=lambda name: found[name].header, reverse=True):
        member = found[name]
        if member.header + _LOCAL.size + len(name) + member.size > limit:
            _bad(url, f"{name} and what comes after it overlap")
        found[name] = member._replace(limit=limit)
        limit = member.header
    return found


def _read(handle: int, at: int, length: int) -> bytes:
    """Fewer bytes where the file ends."""
    data = b""
    while len(data) < length and (more := os.pread(handle, length - len(data), at + len(data))):
        data += more
    return data


def _bad(url: str, why: str) -> NoReturn:
    raise BadArchive(
        f"{url} is no sound archive: {why}", hint="copy it anew from where it was saved"
    )
