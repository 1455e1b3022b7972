"""`requests` under our limits, for the stores that speak plain HTTP (`http`, `drive_http`).

A session for each thread, and bodies that are read, or sent, under a watch.
"""

from __future__ import annotations

import io
import threading
from typing import TYPE_CHECKING

from .faults import Limits, Party, Watch, unavailable

if TYPE_CHECKING:
    import requests

_PIECE = 256 << 10


class Sessions:
    """`requests.Session` is not safe for several threads: each has its own."""

    def __init__(self) -> None:
        self._local = threading.local()

    def mine(self) -> requests.Session:
        import requests

        session: requests.Session | None = getattr(self._local, "session", None)
        if session is None:
            session = self._local.session = requests.Session()
            session.headers["Accept-Encoding"] = "identity"
        return session


class Sent(io.BytesIO):
    """A request's body that is refused to a server that hardly takes it."""

    def __init__(self, data: bytes, limits: Limits) -> None:
        super().__init__(data)
        self._watch = Watch(limits)

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        self._watch.tick(len(data))
        return data


def read_body(answer: requests.Response, most: int, limits: Limits, party: Party) -> bytes:
    """Up to `most` bytes of an answer; fewer where it ends.

    Raises:
        StoreUnavailable: the connection broke, or almost nothing came for too long.
    """
    import urllib3

    watch, parts, count = Watch(limits), [], 0
    try:
        while count < most and (
            # What has come so far: `read` would wait for all of it, however long.
            part := answer.raw.read1(min(_PIECE, most - count), decode_content=False)
        ):
            parts.append(part)
            count += len(part)
            watch.tick(len(part))
    except (urllib3.exceptions.HTTPError, OSError) as error:
        raise unavailable(party, error) from error
    return b"".join(parts)


def length_of(answer: requests.Response) -> int | None:
    """What its Content-Length says."""
    text = answer.headers.get("Content-Length", "")
    return int(text) if text.isdigit() else None
