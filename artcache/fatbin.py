"""Reads NVIDIA's fat binaries: which GPU architectures they hold code for.

Pure: it is handed the bytes (usually a mapped file) and reads headers only, so
a library of half a gigabyte takes milliseconds.

NVIDIA documents no layout. This one was found by comparing nvcc's output with
cuobjdump's, on files of CUDA 11 to 13. All numbers are little-endian::

    container: u32 magic 0xBA55ED50, u16 version, u16 header size, u64 size of entries
    entry:  +0 u16 kind (1 PTX, 2 cubin)    +4 u32 header size   +8 u64 stored size
           +16 u32 compressed size         +26 u16 code version's major (of PTX: its ISA)
           +28 u32 architecture            +40 u64 flags         +56 u64 uncompressed size

Containers follow each other in the section, padded to eight bytes.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Collection
from dataclasses import dataclass, field

from .errors import Corrupt

Image = bytes | mmap.mmap

_MAGIC = b"\x50\xed\x55\xba"
_CONTAINER = struct.Struct("<IHHQ")
_ENTRY = struct.Struct("<HHIQIIHHIIIQQQ")
_PTX, _CUBIN = 1, 2
_ARCH_SPECIFIC, _FAMILY_SPECIFIC = 0x100000, 0x200000
_LZ4, _ZSTD = 0x2000, 0x8000

_MAX_ENTRIES = 200_000
"""The most seen is 6,000, in libcublasLt of CUDA 12.9."""
_MAX_INSPECTED = 64 * 1024
"""Bytes. Larger entries hold code for certain and are not opened."""
_MAX_INSPECTIONS = 2_000

# A cubin with none of these section names, and PTX with none of these words, is the
# empty stub that nvcc links in for its default architecture: not code for that GPU.
_SIGNS_OF_CODE = {
    _CUBIN: (b".text.", b".nv.global", b".nv.constant"),
    _PTX: (b".entry", b".func", b".global", b".const"),
}
_CUDA_OF_PTX = {7: 11, 8: 12, 9: 13}
"""The toolkit's major by the PTX ISA's: PTX 8.7 came with CUDA 12.8."""


@dataclass(slots=True)
class Targets:
    """What a fat binary holds code for. Collected, hence not frozen."""

    sass: set[str] = field(default_factory=set)
    ptx: set[str] = field(default_factory=set)
    cuda_major: int = 0
    """Of the newest toolkit that made a part of it, as far as that shows; else 0."""


def read(image: Image, start: int, end: int, into: Targets) -> None:
    """Collect the targets of all containers in `image[start:end]`.

    Raises:
        Corrupt: sizes that leave the section, or more entries than any compiler makes.
    """
    end = min(end, len(image))
    budget = _Budget()
    position = start
    while (position := image.find(_MAGIC, position, end)) >= 0:
        if (position - start) % 8 or position + _CONTAINER.size > end:
            position += 4
            continue
        _, version, header, size = _CONTAINER.unpack_from(image, position)
        if version != 1 or header < _CONTAINER.size:
            raise Corrupt(f"a fat binary of an unknown version ({version}) at {position}")
        first, after = position + header, position + header + size
        if after > end:
            raise Corrupt(f"a fat binary at {position} is cut off: {after - end} bytes short")
        _read_entries(image, first, after, budget, into)
        position = max(after, position + _CONTAINER.size)


def select(blob: bytes, targets: Collection[str]) -> bytes:
    """One fat binary with only the parts for `targets` (`sm_75`, `compute_90`).

    To the byte what nvcc writes when it is asked for these alone.

    Args:
        blob: A section that holds exactly one container, as in an object file.

    Raises:
        Corrupt: it does not, or a target is not in it.
    """
    if len(blob) < _CONTAINER.size:
        raise Corrupt("no fat binary")
    magic, version, header, size = _CONTAINER.unpack_from(blob)
    if blob[:4] != _MAGIC or version != 1 or header + size != len(blob):
        raise Corrupt("not exactly one fat binary")
    kept, found, position = b"", set(), header
    while position < len(blob):
        if position + _ENTRY.size > len(blob):
            raise Corrupt(f"a part of a fat binary at {position} is cut off")
        fields = _ENTRY.unpack_from(blob, position)
        kind, after = fields[0], position + fields[2] + fields[3]
        if fields[2] < _ENTRY.size or after > len(blob):
            raise Corrupt(f"a part of a fat binary at {position} is larger than the whole")
        arch = f"{_number(fields[8], position)}{_suffix(fields[11])}"
        name = f"sm_{arch}" if kind == _CUBIN else f"compute_{arch}"
        if name in targets:
            kept += blob[position:after]
            found.add(name)
        position = after
    if missing := sorted(set(targets) - found):
        raise Corrupt(f"the fat binary has no {', '.join(missing)}")
    return (
        _CONTAINER.pack(magic, version, header, len(kept)) + blob[_CONTAINER.size : header] + kept
    )


@dataclass(slots=True)
class _Budget:
    entries: int = _MAX_ENTRIES
    inspections: int = _MAX_INSPECTIONS


def _read_entries(image: Image, position: int, end: int, budget: _Budget, into: Targets) -> None:
    while position + _ENTRY.size <= end:
        budget.entries -= 1
        if budget.entries < 0:
            raise Corrupt(f"a fat binary of more than {_MAX_ENTRIES} parts")
        fields = _ENTRY.unpack_from(image, position)
        kind, header, size, flags = fields[0], fields[2], fields[3], fields[11]
        if header < _ENTRY.size or position + header + size > end:
            raise Corrupt(f"a part of a fat binary at {position} is larger than the whole")
        if kind in _SIGNS_OF_CODE:
            arch = f"{_number(fields[8], position)}{_suffix(flags)}"
            name = f"sm_{arch}" if kind == _CUBIN else f"compute_{arch}"
            known = into.sass if kind == _CUBIN else into.ptx
            if kind == _PTX:
                into.cuda_major = max(into.cuda_major, _CUDA_OF_PTX.get(fields[7], 0))
            if name not in known:
                body = slice(position + header, position + header + (fields[4] or size))
                content = _content(image, body, flags, fields[13], budget)
                if kind == _CUBIN:
                    into.cuda_major = max(into.cuda_major, _cubin_cuda(content))
                if not content or any(sign in content for sign in _SIGNS_OF_CODE[kind]):
                    known.add(name)
        position += header + size


def _number(arch: int, position: int) -> int:
    if not 10 <= arch <= 999:
        raise Corrupt(f"a part of a fat binary at {position} is for the architecture {arch}")
    return arch


def _suffix(flags: int) -> str:
    if flags & _ARCH_SPECIFIC:
        return "a"
    return "f" if flags & _FAMILY_SPECIFIC else ""


def _content(image: Image, body: slice, flags: int, raw_size: int, budget: _Budget) -> bytes:
    """The uncompressed bytes of a small part; empty if it is large or cannot be opened."""
    stored_size = body.stop - body.start
    if max(stored_size, raw_size) > _MAX_INSPECTED or budget.inspections <= 0:
        return b""
    budget.inspections -= 1
    stored = image[body]
    if flags & _ZSTD:
        return _unzstd(stored)
    if flags & _LZ4:
        return _unlz4(stored, raw_size)
    return stored


def _unzstd(stored: bytes) -> bytes:
    import zstandard

    try:
        # Streaming, because decompress() trusts the size that the frame claims.
        with zstandard.ZstdDecompressor().stream_reader(stored) as reader:
            return reader.read(_MAX_INSPECTED)
    except zstandard.ZstdError:
        return b""


def _unlz4(stored: bytes, raw_size: int) -> bytes:
    """Decode one LZ4 block (the format's specification: lz4_Block_format.md)."""
    out = bytearray()
    position = 0
    try:
        while len(out) < raw_size:
            token = stored[position]
            literals, position = _lz4_length(stored, position + 1, token >> 4)
            out += stored[position : position + literals]
            position += literals
            if position >= len(stored):
                break
            distance = stored[position] | stored[position + 1] << 8
            count, position = _lz4_length(stored, position + 2, token & 15)
            if not 0 < distance <= len(out) or len(out) + count > raw_size + 4:
                return b""
            for _ in range(count + 4):
                out.append(out[-distance])
    except IndexError:
        return b""
    return bytes(out)


def _lz4_length(stored: bytes, position: int, length: int) -> tuple[int, int]:
    if length == 15:
        while True:
            more = stored[position]
            position += 1
            length += more
            if more != 255:
                break
    return length, position


def _cubin_cuda(cubin: bytes) -> int:
    """The major of the toolkit that made this cubin, or 0.

    Up to ABI 7 (CUDA 12) the ELF version holds it times ten, from ABI 8 on a
    note of type 1000 (version, virtual architecture, toolkit times ten).
    """
    if cubin[:4] != b"\x7fELF" or len(cubin) < 64:
        return 0
    if cubin[8] <= 7:
        times_ten: int = struct.unpack_from("<I", cubin, 20)[0]
    else:
        note = struct.pack("<III", 12, 8, 1000) + b"NVIDIA Corp\0"
        found = cubin.find(note)
        if found < 0 or found + len(note) + 6 > len(cubin):
            return 0
        times_ten = struct.unpack_from("<H", cubin, found + len(note) + 4)[0]
    return times_ten // 10 if 90 <= times_ten < 200 else 0
