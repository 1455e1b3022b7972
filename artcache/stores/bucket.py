"""What `remote` asks of a protocol: verbs for one bucket, and what is uploaded through them."""

from __future__ import annotations

import hashlib
import io
import secrets
from collections.abc import Coroutine, Iterator
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple, Protocol, TypeAlias, TypeVar

from ..errors import LocalDisk
from ..store import Content, StoredObject
from .faults import Moved, Party
from .room import Part

if TYPE_CHECKING:
    import asyncio

_Result = TypeVar("_Result")
_PIECE = 256 << 10
MARK = "artcache-upload"
PART = 16 << 20
"""What is longer is uploaded in parts, of which those that arrived are not sent again."""


class Read(NamedTuple):
    data: bytes
    version: str


Page = tuple[list[StoredObject], str]
"""Some objects below a prefix, and the token for the next page, or ''."""


class Body:
    """What is uploaded, readable again for each attempt."""

    def __init__(self, content: Content) -> None:
        self._content = content
        self.mark = secrets.token_hex(8)
        """Stored with the object, so that an upload whose answer was lost is known again."""
        hasher = hashlib.md5(usedforsecurity=False)
        try:
            with self.open() as file:
                self.size = 0
                while piece := file.read(1 << 20):
                    hasher.update(piece)
                    self.size += len(piece)
        except OSError as error:
            raise LocalDisk(f"{content!s} cannot be read: {error.strerror}") from error
        self.md5 = hasher.digest()
        """For the server: the one digest that both protocols check before an object appears."""
        self.session = ""
        """Of an upload in parts that was begun: the protocol's name for it."""
        self.stored = 0
        """Bytes of it that the server has."""
        self.parts: dict[int, tuple[str, bytes]] = {}
        """Those that S3 has: number -> ETag, MD5."""

    def open(self) -> BinaryIO:
        content = self._content
        return io.BytesIO(content) if isinstance(content, bytes) else content.open("rb")

    def part(self, start: int, length: int, moved: Moved) -> Iterator[bytes]:
        """Some of its bytes; each piece is asked for when the one before it is on its way."""
        with self.open() as file:
            file.seek(start)
            while length and (piece := file.read(min(_PIECE, length))):
                yield piece
                moved(len(piece))
                length -= len(piece)


Going: TypeAlias = _Result | Coroutine[Any, Any, _Result]
"""What a verb gives: its result, found on the calling thread, or how to find it on the loop."""


class Bucket(Protocol):
    """One protocol's verbs for one bucket. They make one attempt and raise our errors only:
    `Passing` for what may be tried again."""

    name: str
    make: str
    """The command that makes such a bucket, for a hint."""

    @property
    def party(self) -> Party: ...

    def prepare(self) -> None:
        """Credentials, on the calling thread, before each attempt."""
        ...

    def loop(self) -> asyncio.AbstractEventLoop:
        """Where its coroutines run; after `prepare`."""
        ...

    def abort(self) -> None:
        """End the reads that run on their callers' threads."""
        ...

    def read(
        self,
        key: str,
        moved: Moved,
        *,
        limit: int = 0,
        span: tuple[int, int] | None = None,
        out: Part | None = None,
    ) -> Going[Read]:
        """The whole object, or `span` (offset, length) of it; then perhaps into `out`, which is
        as long, and the result has no data."""
        ...

    def size(self, key: str, moved: Moved) -> Going[int]: ...

    def put(self, key: str, body: Body, moved: Moved, *, over: str) -> Going[str]:
        """Store it if its present version is `over`; returns the new version."""
        ...

    def drop(self, key: str, body: Body) -> Going[None]:
        """Forget an upload in parts that was begun."""
        ...

    def ours(self, key: str, body: Body, moved: Moved) -> Going[str]:
        """The object's version if it bears the body's mark, else ''."""
        ...

    def page(self, prefix: str, token: str, most: int, moved: Moved) -> Going[Page]:
        """The page of that token; the first for ''."""
        ...

    def delete(self, key: str) -> Going[None]: ...

    def copy(self, key: str, to: str) -> Going[None]: ...


def cacheable(key: str) -> str:
    """Cache-Control, for public buckets: a pack never changes, all else may be removed."""
    return "public, max-age=31536000, immutable" if key.endswith(".pack") else "no-cache"
