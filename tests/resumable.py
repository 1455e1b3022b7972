"""Cloud Storage's resumable uploads on loopback, as documented: what emulators leave out.

Bytes count from the moment they come, also those of a request that is cut; a session
tells how many it has; the object appears with the last of them, if its MD5 is the
announced one and no object is in the way.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import re
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from loopback import Handler, Server

_UNIT = 256 << 10
"""A cut request's bytes are kept in multiples of this."""


@dataclass
class Session:
    facts: dict[str, Any]
    size: int
    over: str
    data: bytearray = field(default_factory=bytearray)


@dataclass
class Resumable:
    """`cut` some of the coming requests with a body; `received` counts all bodies' bytes."""

    objects: dict[str, dict[str, Any]] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    sessions: dict[str, Session] = field(default_factory=dict)
    cut: list[tuple[int, str]] = field(default_factory=list)
    """For each of the next uploading requests: after how many bytes, and whether the
    connection is then `reset`, `stalled`, or its answer `lost`."""
    forget: bool = False
    """Whether sessions are unknown from now on; until the next one begins."""
    spoil: bool = False
    """Whether the last byte is stored as another one, and MD5s are not checked."""
    received: int = 0
    begun: int = 0
    asked: int = 0
    """Requests for how much is there."""
    url: str = ""
    over: threading.Event = field(default_factory=threading.Event)


@contextlib.contextmanager
def resumable_server() -> Iterator[Resumable]:
    state = Resumable()

    server = Server(type("Uploads", (_Handler,), {"owner": state}))
    state.url = server.url
    try:
        yield state
    finally:
        state.over.set()
        server.close()


class _Handler(Handler):
    owner: Resumable

    def _tell(self, status: int, body: object = None, **headers: str) -> None:
        self.answer(status, json.dumps(body).encode() if body is not None else b"", headers)

    def do_GET(self) -> None:
        name = unquote(self.place.rpartition("/o/")[2])
        facts = self.owner.objects.get(name)
        if facts:
            self._tell(200, facts)
        elif self.place.endswith("/o"):
            self._tell(200, {"items": []})
        else:
            self._tell(404)

    def do_DELETE(self) -> None:
        name = unquote(self.place.rpartition("/o/")[2])
        self._tell(204 if self.owner.objects.pop(name, None) else 404)

    def do_POST(self) -> None:
        facts = json.loads(self.body())
        size = int(self.headers["X-Upload-Content-Length"])
        self.owner.begun += 1
        self.owner.forget = False
        number = f"session-{self.owner.begun}"
        self.owner.sessions[number] = Session(facts, size, self.query["ifGenerationMatch"])
        path = f"/upload/storage/v1/b/b/o?uploadType=resumable&upload_id={number}"
        self._tell(200, {}, Location=f"http://elsewhere.example{path}")

    def do_PUT(self) -> None:
        number = self.query["upload_id"]
        session = self.owner.sessions.get(number)
        span = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", self.headers["Content-Range"])
        assert span
        if session is None or self.owner.forget:
            self._tell(404)
        elif span[1] is None:
            self.owner.asked += 1
            self._progress(session)
        else:
            self._take(session, int(span[1]), int(span[2]) - int(span[1]) + 1)

    def _take(self, session: Session, start: int, length: int) -> None:
        assert length == int(self.headers["Content-Length"])
        assert start == len(session.data), "bytes that are there already, or a gap"
        last = start + length == session.size
        assert last or length % _UNIT == 0, "Google refuses other lengths"
        most, then = self.owner.cut.pop(0) if self.owner.cut else (length, "")
        while most > 0 and (piece := self.rfile.read1(min(most, 1 << 16, length))):
            session.data += piece
            self.owner.received += len(piece)
            most, length = most - len(piece), length - len(piece)
            if not length:
                break
        if then in ("reset", "stalled"):
            del session.data[len(session.data) // _UNIT * _UNIT :]
        if then == "stalled":
            self.owner.over.wait(20)
        if then:
            linger = struct.pack("ii", 1, 0)
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._store_if_whole(session)
            self.close_connection = True
            self.connection.close()
            return
        self._progress(session)

    def _progress(self, session: Session) -> None:
        if len(session.data) < session.size:
            there = {"Range": f"bytes=0-{len(session.data) - 1}"} if session.data else {}
            self._tell(308, **there)
        elif error := self._store_if_whole(session):
            self._tell(error, {"error": {"message": "refused"}})
        else:
            self._tell(200, self.owner.objects[session.facts["name"]])

    def _store_if_whole(self, session: Session) -> int:
        if len(session.data) < session.size:
            return 0
        data = bytes(session.data)
        if self.owner.spoil:
            data = data[:-1] + b"\xff"
        name, md5 = session.facts["name"], base64.b64encode(hashlib.md5(data).digest()).decode()
        there = self.owner.objects.get(name)
        if there and there.get("metadata") == session.facts["metadata"]:
            return 0
        if there and session.over == "0":
            return 412
        if md5 != session.facts["md5Hash"] and not self.owner.spoil:
            return 400
        facts = {**session.facts, "size": str(len(data)), "md5Hash": md5, "generation": "7"}
        self.owner.objects[name], self.owner.content[name] = facts, data
        return 0
