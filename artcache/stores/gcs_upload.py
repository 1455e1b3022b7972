"""A large object to Cloud Storage by a resumable session: what got lost is sent again, no more.

For `gcs`. The object appears with its last byte, if its digest is the announced one.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from ..errors import ArtcacheError, StoreUnavailable
from .bucket import Body
from .faults import Moved, Party, Passing, by_status
from .wire import Answer, Wire

_PUT = 32 << 20
"""Bytes of one request, a multiple of 256 KiB. Google keeps what came of one that was cut;
others keep whole ones only."""
_MORE = 308
_GONE = (404, 410)


class Upload:
    """One object's. The session is kept with the body, for the next attempt."""

    def __init__(self, wire: Wire, party: Party, headers: Mapping[str, str], key: str) -> None:
        self._wire, self._party, self._key = wire, party, key
        self._headers = dict(headers)

    def send(self, path: str, facts: bytes, body: Body, moved: Moved) -> bytes:
        """One attempt; goes on where the one before it was cut.

        Args:
            path: Where a session is begun.
            facts: The object's metadata, its digest among them.

        Returns:
            What the server says of the object.
        """
        stored = None
        if body.session:
            stored = self._put(body, moved, 0, 0)  # asks how much of it is there
        else:
            self._begin(path, facts, body, moved)
        while stored is None:
            length = min(_PUT, body.size - body.stored)
            stored = self._put(body, moved, body.stored, length)
        body.session = ""
        return stored

    def _begin(self, path: str, facts: bytes, body: Body, moved: Moved) -> None:
        body.stored = 0
        headers = {
            **self._headers,
            "Content-Type": "application/json; charset=UTF-8",
            "Content-Length": str(len(facts)),
            "X-Upload-Content-Type": "application/octet-stream",
            "X-Upload-Content-Length": str(body.size),
        }
        with self._wire.ask("POST", path, headers, moved, [facts]) as answer:
            if answer.status not in (200, 201):
                raise refused(self._party, self._key, answer, writing=True)
            answer.read(1 << 14)
            parts = urlsplit(answer.headers.get("Location", ""))
        if not parts.path:
            raise StoreUnavailable(f"{self._party.url} begins no upload")
        # By the way that we came, whatever the server calls itself.
        body.session = f"{parts.path}?{parts.query}"

    def _put(self, body: Body, moved: Moved, start: int, length: int) -> bytes | None:
        """Send some bytes, or none to ask how many are there; the object's facts if it is done."""
        span = f"{start}-{start + length - 1}" if length else "*"
        headers = {
            **self._headers,
            "Content-Length": str(length),
            "Content-Range": f"bytes {span}/{body.size}",
        }
        pieces = body.part(start, length, moved)
        with self._wire.ask("PUT", body.session, headers, moved, pieces) as answer:
            if answer.status in (200, 201):
                body.stored = body.size
                return answer.read(1 << 20)
            if answer.status == _MORE:
                answer.read(1 << 14)
                self._note(answer.headers.get("Range", ""), body, start + length)
                return None
            if answer.status in _GONE:
                body.session = ""
                raise Passing(f"{self._party.url} knows nothing of the upload of {self._key}")
            raise refused(self._party, self._key, answer, writing=True)

    def _note(self, there: str, body: Body, sent: int) -> None:
        match = re.fullmatch(r"bytes=0-(\d+)", there.strip())
        stored = int(match[1]) + 1 if match else 0
        if stored > body.size or (sent and stored <= body.stored):
            body.session = ""  # else it would be sent for ever
            raise Passing(f"{self._party.url} does not take what is sent of {self._key}")
        body.stored = stored


def refused(party: Party, key: str, answer: Answer, *, writing: bool = False) -> ArtcacheError:
    """The error for an answer that is none of the wanted ones."""
    said = _said(answer.read(1 << 14).decode(errors="replace"))
    after = answer.headers.get("Retry-After")
    return by_status(party, key, answer.status, said, after=after, writing=writing)


def _said(text: str) -> str:
    """The message in an error's body, which is JSON, or text, or a page of somebody's proxy."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(text)["error"]["message"])
    return "" if text.lstrip().startswith("<") else text
