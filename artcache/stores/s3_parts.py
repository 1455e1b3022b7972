"""A large object to S3 in parts: those that arrived are not sent again. For `s3`."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import re
from collections.abc import Awaitable, Callable
from typing import Any, BinaryIO

from .bucket import PART, Body
from .faults import Moved

_AT_ONCE = 4
_MOST_PARTS = 10_000
_OF_PARTS = re.compile(r"[0-9a-f]{32}-[0-9]+")


async def send_parts(
    send: Callable[..., Awaitable[dict[str, Any]]], body: Body, moved: Moved
) -> None:
    """Send the parts that are not there; each that arrives is noted in the body at once.

    After a fault no further one is begun, and those under way end as they may.
    """
    size = max(PART, -(-body.size // _MOST_PARTS))
    turn = asyncio.Semaphore(_AT_ONCE)
    faults: list[Exception] = []

    async def one(number: int) -> None:
        start = (number - 1) * size
        length = min(size, body.size - start)
        async with turn:
            if faults:
                return
            with body.open() as file:
                md5 = _md5(file, start, length)
                try:
                    answer = await send(
                        PartNumber=number,
                        Body=Counted(file, moved, length, start),
                        ContentLength=length,
                        ContentMD5=base64.b64encode(md5).decode(),
                    )
                except Exception as error:
                    faults.append(error)
                    return
            body.parts[number] = str(answer["ETag"]), md5
            body.stored += length

    missing = [n for n in range(1, -(-body.size // size) + 1) if n not in body.parts]
    await asyncio.gather(*map(one, missing))
    if faults:
        raise faults[0]


def all_parts(body: Body) -> dict[str, Any]:
    """What completes an upload."""
    parts = [{"PartNumber": n, "ETag": body.parts[n][0]} for n in sorted(body.parts)]
    return {"MultipartUpload": {"Parts": parts}}


def is_of_parts(etag: str, body: Body) -> bool:
    """Whether an object's ETag is what S3 makes of these parts; also if it is none of the kind."""
    etag = etag.strip('"')
    whole = hashlib.md5(usedforsecurity=False)
    plain = True
    for number in sorted(body.parts):
        part_etag, md5 = body.parts[number]
        whole.update(md5)
        plain = plain and part_etag.strip('"') == md5.hex()  # not where keys are a customer's
    if not plain or not _OF_PARTS.fullmatch(etag):
        return True
    return etag == f"{whole.hexdigest()}-{len(body.parts)}"


def _md5(file: BinaryIO, start: int, length: int) -> bytes:
    hasher = hashlib.md5(usedforsecurity=False)
    file.seek(start)
    while length and (piece := file.read(min(length, 1 << 20))):
        hasher.update(piece)
        length -= len(piece)
    return hasher.digest()


class Counted(io.BufferedIOBase):
    """A run of a file, as a file that tells how much of it was read."""

    def __init__(self, file: BinaryIO, moved: Moved, length: int, start: int = 0) -> None:
        self._file, self._moved = file, moved
        self._start, self._length = start, length
        file.seek(start)

    def read(self, size: int | None = -1, /) -> bytes:
        left = self._length - self.tell()
        data = self._file.read(left if size is None or size < 0 else min(size, left))
        self._moved(len(data))
        return data

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0, /) -> int:
        base = (0, self.tell(), self._length)[whence]
        return self._file.seek(self._start + base + offset) - self._start

    def tell(self) -> int:
        return self._file.tell() - self._start
