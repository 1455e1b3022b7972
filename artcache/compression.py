"""How hard frames are compressed: zstd's parameters by name. For `pack`, and for who sets it.

Every choice makes plain zstd frames. The parameters were chosen over libraries
with and without GPU code, and text: see benchmarks/NOTES.md, section 7.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Compression = Literal["fast", "default", "small"]
"""`fast` takes a third of the time of `default` to publish; `small` twenty times of it,
for what is read often over slow links."""
Choice = Literal["auto", "fast", "default", "small"]
"""What may be asked for; `auto`: by the rate at which the store took the last pack."""

_FAST_LINK = 12e6
_SLOW_LINK = 2.5e5
"""Bytes a second for each core that compresses, above which `fast`, and below which `small`,
takes the least time for a publish and one fetch together: NOTES.md, section 7b."""

_SETTINGS: dict[Compression, dict[str, int]] = {
    "fast": {"level": 3},
    # Level 5, but longer matches are looked for (lazy2, 5 bytes and more) in a larger table.
    "default": {
        "level": 5, "strategy": 5, "hash_log": 20, "chain_log": 20, "min_match": 5, "search_log": 3
    },
    # Smaller tables than level 19 has by itself: 14 MB a thread in place of 52.
    "small": {"level": 19, "hash_log": 20, "chain_log": 21},
}  # fmt: skip
_WORTH = 128
"""A frame is stored verbatim unless zstd saves at least one part in so many."""


def for_link(rate: float, cores: int) -> Compression:
    """What suits a link.

    Args:
        rate: Of the last upload, in bytes a second; 0.0 if there was none.
        cores: That compress at once.
    """
    if not rate:
        return "default"
    if rate > _FAST_LINK * cores:
        return "fast"
    return "small" if rate < _SLOW_LINK * cores else "default"


class Compressor:
    """For one thread. The same bytes give the same frame on every machine of one zstd version."""

    def __init__(self, compression: Compression) -> None:
        self._stages = [_zstd(compression)]
        if compression == "small":  # twenty seconds for each 100 MB of what is compressed already
            self._stages.insert(0, _zstd("fast"))

    def compress(self, raw: memoryview) -> bytes | memoryview:
        """The bytes to store: one zstd frame, or `raw` itself where that is not worth it."""
        stored = b""
        for stage in self._stages:
            stored = stage(raw)
            if len(stored) >= len(raw) - len(raw) // _WORTH:
                return raw
        return stored


def _zstd(compression: Compression) -> Callable[[memoryview], bytes]:
    import zstandard

    from .frames import FRAME

    settings = dict(_SETTINGS[compression])
    parameters = zstandard.ZstdCompressionParameters.from_level(
        settings.pop("level"),
        source_size=FRAME,
        write_checksum=False,
        write_content_size=True,
        **settings,
    )
    return zstandard.ZstdCompressor(compression_params=parameters).compress
