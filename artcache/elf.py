"""Reads the few parts of an ELF file that say what it needs: its sections and its dynamic table.

Pure: it is handed the bytes, usually a mapped file. Names and versions are
found as the dynamic loader finds them, through the program headers, so a
stripped or patched file reads like any other.

A reader of its own, because a general one cannot be bounded from outside:
pyelftools follows some crafted files for ever, and an honest libLLVM already
costs it 230,000 reads. Every loop here has an end.

Source: System V ABI, "Object Files" and "Program Loading and Dynamic Linking";
Linux Standard Base, "Symbol Versioning".
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from typing import Literal, NamedTuple

from .errors import Corrupt

Image = bytes | mmap.mmap
Kind = Literal["executable", "shared", "object", "other"]

SIGNATURE = b"\x7fELF\x02\x01"
"""64 bits, little-endian: all that CUDA runs on."""

_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_TAG = struct.Struct("<qQ")
_NEED = struct.Struct("<HHIII")
_NEED_PART = struct.Struct("<IHHII")

_MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64", 21: "ppc64le"}
_ET_REL, _ET_EXEC, _ET_DYN = 1, 2, 3
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_SHT_NOBITS = 8
_DF_1_PIE = 0x08000000
_TAGS = {
    1: "needed",
    5: "strtab",
    10: "strsz",
    14: "soname",
    15: "rpath",
    29: "runpath",
    0x6FFFFFFB: "flags_1",
    0x6FFFFFFE: "verneed",
    0x6FFFFFFF: "verneednum",
}
_MAX_ITEMS = 100_000
"""Headers, tags or versions of one file. Linkers write some dozens."""
_MAX_NAME = 4096


class Section(NamedTuple):
    name: str
    offset: int
    size: int


class Segment(NamedTuple):
    type: int
    offset: int
    address: int
    size: int
    """Bytes in the file."""


class Elf:
    """One file, its headers read and checked.

    Raises:
        Corrupt: from here and from every method, on bytes that make no sense.
    """

    def __init__(self, image: Image) -> None:
        self._image = image
        if image[: len(SIGNATURE)] != SIGNATURE:
            raise Corrupt("no ELF file of 64 bits, little-endian")
        fields = self._unpack(_HEADER, 0, "header")
        self._type: int = fields[1]
        self.machine = _MACHINES.get(fields[2], f"em{fields[2]}")
        self.segments = tuple(self._read_segments(fields[5], fields[9], fields[10]))
        self.sections = tuple(self._read_sections(fields[6], fields[11], fields[12], fields[13]))
        self._dynamic = self._read_dynamic()

    @property
    def kind(self) -> Kind:
        """Position-independent programs look like libraries, but ask for a loader."""
        if self._type == _ET_DYN:
            pie = self._first("flags_1") & _DF_1_PIE
            interpreted = any(segment.type == _PT_INTERP for segment in self.segments)
            return "executable" if pie or (interpreted and not self.soname) else "shared"
        kinds: dict[int, Kind] = {_ET_REL: "object", _ET_EXEC: "executable"}
        return kinds.get(self._type, "other")

    @property
    def soname(self) -> str:
        return "".join(self._strings("soname")[:1])

    @property
    def needed(self) -> tuple[str, ...]:
        return self._strings("needed")

    @property
    def rpath(self) -> str:
        return ":".join(self._strings("rpath"))

    @property
    def runpath(self) -> str:
        return ":".join(self._strings("runpath"))

    def versions(self) -> Iterator[tuple[str, str]]:
        """Each symbol version needed, with its library: `("libc.so.6", "GLIBC_2.34")`."""
        if not self._first("verneed"):
            return
        position = self._file_offset(self._first("verneed"))
        left = _MAX_ITEMS
        for _ in range(min(self._first("verneednum"), _MAX_ITEMS)):
            _, count, library, part, following = self._unpack(_NEED, position, "version table")
            at = position + part
            for _ in range(count):
                left -= 1
                if left < 0:
                    raise Corrupt("an ELF file whose version table has no end")
                _, _, _, name, next_part = self._unpack(_NEED_PART, at, "version table")
                yield self._dynamic_string(library), self._dynamic_string(name)
                at += next_part
                if not next_part:
                    break
            position += following
            if not following:
                break

    # -- headers ------------------------------------------------------------------------

    def _read_segments(self, offset: int, entry: int, count: int) -> Iterator[Segment]:
        for fields in self._table(_SEGMENT, offset, entry, count, "program headers"):
            segment = Segment(fields[0], fields[2], fields[3], fields[5])
            if segment.type == _PT_LOAD and segment.offset + segment.size > len(self._image):
                raise Corrupt("an ELF file that is cut off: it holds less than it would load")
            yield segment

    def _read_sections(self, offset: int, entry: int, count: int, names: int) -> Iterator[Section]:
        if offset and not count:  # Too many for the header's field: the first section says.
            count = self._unpack(_SECTION, offset, "section headers")[5]
        rows = list(self._table(_SECTION, offset, entry, count, "section headers"))
        strings = (rows[names][4], rows[names][5]) if 0 < names < len(rows) else (0, 0)
        for fields in rows:
            name = self._section_name(*strings, fields[0])
            if fields[1] == _SHT_NOBITS:
                continue
            if fields[4] + fields[5] > len(self._image):
                raise Corrupt(f"an ELF file that is cut off: its section {name!r} is not all there")
            yield Section(name, fields[4], fields[5])

    def _section_name(self, table: int, size: int, index: int) -> str:
        """Its first 64 characters; compilers call sections what they like, so nothing is wrong."""
        start = table + index
        end = min(table + size, start + 64)
        stop = self._image.find(b"\0", start, end) if start < end else -1
        return self._image[start : stop if stop >= 0 else max(start, end)].decode("latin-1")

    def _table(
        self, layout: struct.Struct, offset: int, entry: int, count: int, what: str
    ) -> Iterator[tuple[int, ...]]:
        if not offset or not count:
            return
        end = offset + entry * count
        if entry != layout.size or count > _MAX_ITEMS or end > len(self._image):
            raise Corrupt(f"an ELF file that is cut off: its {what} are not all there")
        yield from layout.iter_unpack(self._image[offset:end])

    # -- the dynamic table --------------------------------------------------------------

    def _read_dynamic(self) -> dict[str, list[int]]:
        found: dict[str, list[int]] = {}
        for segment in self.segments:
            if segment.type != _PT_DYNAMIC:
                continue
            if segment.size > _MAX_ITEMS * _TAG.size:
                raise Corrupt("an ELF file whose dynamic table has no end")
            for position in range(segment.offset, segment.offset + segment.size, _TAG.size):
                tag, value = self._unpack(_TAG, position, "dynamic table")
                if tag == 0:
                    break
                if tag in _TAGS:
                    found.setdefault(_TAGS[tag], []).append(value)
        return found

    def _first(self, name: str) -> int:
        return self._dynamic.get(name, [0])[0]

    def _strings(self, name: str) -> tuple[str, ...]:
        return tuple(self._dynamic_string(index) for index in self._dynamic.get(name, ()))

    def _dynamic_string(self, index: int) -> str:
        text = self._string(self._file_offset(self._first("strtab")), self._first("strsz"), index)
        if not text:
            raise Corrupt("an ELF file that needs a library without a name")
        return text

    def _file_offset(self, address: int) -> int:
        for segment in self.segments:
            inside = address - segment.address
            if segment.type == _PT_LOAD and 0 <= inside < segment.size:
                return segment.offset + inside
        raise Corrupt("an ELF file whose dynamic table points outside of it")

    # -- bytes --------------------------------------------------------------------------

    def _unpack(self, layout: struct.Struct, offset: int, what: str) -> tuple[int, ...]:
        if offset + layout.size > len(self._image):
            raise Corrupt(f"an ELF file that is cut off: its {what} is not all there")
        return layout.unpack_from(self._image, offset)

    def _string(self, table: int, size: int, index: int) -> str:
        start, end = table + index, min(table + size, len(self._image))
        stop = self._image.find(b"\0", start, min(end, start + _MAX_NAME)) if start < end else -1
        if stop < 0:
            raise Corrupt("an ELF file with a name that has no end")
        try:
            text = self._image[start:stop].decode()
        except UnicodeDecodeError:
            raise Corrupt("an ELF file with a name that is no text") from None
        if not text.isprintable():
            raise Corrupt(f"an ELF file with the name {text!r}")
        return text
