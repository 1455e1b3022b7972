"""One frame of a pack: fetched, verified, decompressed. For `pack` and `repository`."""

from __future__ import annotations

import threading
from collections.abc import Callable

from . import digest
from .errors import Corrupt
from .manifest import Frame, Pack

Fetch = Callable[[Pack, int, int], "bytes | memoryview"]
"""(pack, offset, length) -> exactly that many bytes of it, good until the thread's next call."""


def open_frame(
    pack: Pack,
    frame: Frame,
    fetch: Fetch,
    local: threading.local,
    out: memoryview | None = None,
) -> memoryview:
    """Fetch, verify and decompress one frame.

    Args:
        out: Where to, just as long as the raw bytes; None: into new memory.

    Raises:
        Corrupt: it is not what was published, or not one zstd frame of its length.
    """
    stored = fetch(pack, frame.offset, frame.stored)
    if len(stored) != frame.stored or digest.blake3(stored) != frame.blake3:
        raise Corrupt(
            f"pack {pack.blake3[:12]}: the {frame.stored} bytes at {frame.offset} are not"
            " those that were published"
        )
    out = memoryview(bytearray(frame.raw)) if out is None else out
    if frame.stored == frame.raw:
        out[:] = stored
    else:
        _decompress(pack, frame, stored, local, out)
    return out


def _decompress(
    pack: Pack, frame: Frame, stored: bytes | memoryview, local: threading.local, out: memoryview
) -> None:
    import zstandard

    decompressor = getattr(local, "decompressor", None)
    if decompressor is None:
        decompressor = local.decompressor = zstandard.ZstdDecompressor(
            max_window_size=1 << 27  # what level 19 may ask for, and no more
        )
    where = f"pack {pack.blake3[:12]}: frame at {frame.offset}"
    try:
        if zstandard.frame_content_size(stored) != frame.raw:
            raise Corrupt(f"{where} lies on its length")
        if _frame_end(stored) != len(stored):
            raise Corrupt(f"{where} is not exactly one zstd frame")
        if decompressor.stream_reader(stored, read_size=len(stored)).readinto(out) != frame.raw:
            raise Corrupt(f"{where} ends too soon")
    except zstandard.ZstdError as error:
        raise Corrupt(f"{where}: {error}") from None


def _frame_end(stored: bytes | memoryview) -> int:
    """Where the first zstd frame ends, by its blocks' headers (RFC 8878, 3.1.1)."""
    import zstandard

    at = zstandard.frame_header_size(stored)
    last = False
    while not last:
        header = int.from_bytes(stored[at : at + 3], "little")
        last, kind, size = bool(header & 1), header >> 1 & 3, header >> 3
        if at + 3 > len(stored) or kind == 3:
            return -1
        at += 3 + (1 if kind == 1 else size)  # kind 1 is one byte, repeated
    return at + 4 * bool(zstandard.get_frame_parameters(stored).has_checksum)
