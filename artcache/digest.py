"""The two digests, each for its own question.

XXH3-128 names keys and finds accidents at memory speed; it can be forged in
milliseconds. BLAKE3 says "these are the published bytes". Nothing else in the
house imports xxhash or blake3, and blake3 is imported only when first used,
since a warm hit needs none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import xxhash

if TYPE_CHECKING:
    Bytes = bytes | bytearray | memoryview


class Hasher(Protocol):
    def update(self, data: Bytes, /) -> object: ...
    def hexdigest(self) -> str: ...


def xxh3(data: Bytes) -> str:
    """32 lower-case hex digits, most significant first (xxHash's canonical form)."""
    return xxhash.xxh3_128_hexdigest(data)


def xxh3_hasher() -> Hasher:
    return xxhash.xxh3_128()


def blake3(data: Bytes) -> str:
    """64 lower-case hex digits: the default 256-bit output."""
    from blake3 import blake3 as hasher

    return hasher(data).hexdigest()


def blake3_hasher() -> Hasher:
    from blake3 import blake3 as hasher

    return hasher()
