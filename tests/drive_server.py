"""Google Drive on loopback: as much of its API, version 3, as a store of files needs.

Names are labels here as they are there: nothing is exclusive, and any number of files may
have one name. Faults of the connection are a `FaultProxy`'s; set `public_url` to it.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from loopback import Handler, Server

FOLDER = "application/vnd.google-apps.folder"
TOKEN = "a-secret-token"
_CHUNK = 256 << 10


@dataclass
class Item:
    """A file or folder."""

    id: str
    name: str
    parents: list[str]
    mime: str = "application/octet-stream"
    content: bytes = b""
    created: float = 0.0
    trashed: bool = False
    properties: dict[str, str] = field(default_factory=dict)


class Refusal(Exception):
    def __init__(self, status: int, reason: str, message: str = "") -> None:
        super().__init__(reason)
        self.status, self.reason, self.message = status, reason, message or reason


class DriveServer:
    """The state, for tests to look at and to spoil."""

    def __init__(self) -> None:
        self.items: dict[str, Item] = {}
        self.requests: list[str] = []
        self.uploads: dict[str, tuple[dict[str, Any], int, bytearray]] = {}
        self.page = 1000
        """Entries of a listing's page, at most."""
        self.space = 1 << 40
        """Bytes that are left."""
        self.may_delete = True
        """Else files can only be put into the trash, as in many Shared Drives."""
        self.may_write = True
        """Else the account is a Viewer."""
        self.account = "me@example.org"
        self.lock = threading.RLock()
        self._ids = itertools.count(1)
        self._server = Server(type("Drive", (_Handler,), {"drive": self}))
        self.url = self.public_url = self._server.url
        self.close = self._server.close

    def add(self, name: str, parent: str = "", *, content: bytes | None = None) -> str:
        """A file, or a folder where there is no content; its id."""
        with self.lock:
            number = next(self._ids)
            mime = FOLDER if content is None else "application/octet-stream"
            item = Item(
                f"1iD_{number:04d}-x", name, [parent] if parent else [], mime, content or b""
            )
            item.created = time.time() + number / 1000
            self.items[item.id] = item
            return item.id

    def named(self, name: str) -> list[Item]:
        with self.lock:
            return [item for item in self.items.values() if item.name == name]

    def in_trash(self, item: Item) -> bool:
        return item.trashed or any(
            self.in_trash(self.items[parent]) for parent in item.parents if parent in self.items
        )

    def paths(self) -> list[str]:
        """Every file that is not in the trash, by its path."""
        with self.lock:
            files = [i for i in self.items.values() if i.mime != FOLDER and not self.in_trash(i)]
            return sorted(map(self._path, files))

    def _path(self, item: Item) -> str:
        above = [self.items[parent] for parent in item.parents if parent in self.items]
        return f"{self._path(above[0])}/{item.name}" if above and above[0].parents else item.name

    # -- what is asked of it --------------------------------------------------------------

    def find(self, id: str) -> Item:
        with self.lock:
            if id not in self.items:
                raise Refusal(404, "notFound", f"File not found: {id}.")
            return self.items[id]

    def listed(self, query: dict[str, str]) -> dict[str, Any]:
        with self.lock:
            found = [item for item in self.items.values() if self._matches(item, query["q"])]
        if "includeItemsFromAllDrives" not in query or "supportsAllDrives" not in query:
            found = []
        start = int(query.get("pageToken", "0"))
        most = min(self.page, int(query.get("pageSize", "100")))
        wanted = re.search(r"files\(([^)]*)\)", query.get("fields", ""))
        fields = wanted[1] if wanted else "id,name,mimeType"
        body: dict[str, Any] = {
            "files": [self.shown(item, fields) for item in found[start : start + most]]
        }
        if start + most < len(found) and "nextPageToken" in query.get("fields", ""):
            body["nextPageToken"] = str(start + most)
        return body

    def _matches(self, item: Item, query: str) -> bool:
        for clause in query.split(" and "):
            if match := re.fullmatch(r"'([^']+)' in parents", clause):
                self.find(match[1])
                good = match[1] in item.parents
            elif clause == "trashed = false":
                good = not self.in_trash(item)
            elif match := re.fullmatch(r"name = '([^']+)'", clause):
                good = item.name.lower() == match[1].lower()  # it is not that exact
            elif match := re.fullmatch(r"mimeType (=|!=) '([^']+)'", clause):
                good = (item.mime == match[2]) == (match[1] == "=")
            else:
                raise Refusal(400, "invalid", f"Invalid Value: {clause}")
            if not good:
                return False
        return True

    def shown(self, item: Item, fields: str) -> dict[str, Any]:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(item.created))
        stamp += f".{int(item.created * 1000) % 1000:03d}Z"
        facts: dict[str, Any] = {
            "id": item.id,
            "name": item.name,
            "mimeType": item.mime,
            "createdTime": stamp,
            "modifiedTime": stamp,
            "trashed": self.in_trash(item),
        }
        if item.properties:
            facts["appProperties"] = item.properties
        if not item.mime.startswith("application/vnd.google-apps."):
            facts["size"] = str(len(item.content))
            facts["md5Checksum"] = hashlib.md5(item.content, usedforsecurity=False).hexdigest()
        if item.mime == FOLDER:
            facts["capabilities(canAddChildren)"] = {"canAddChildren": self.may_write}
        known = fields.split(",")
        return {name.partition("(")[0]: facts[name] for name in known if name in facts}

    def create(self, facts: dict[str, Any], content: bytes) -> Item:
        with self.lock:
            for parent in facts.get("parents", []):
                self.find(parent)
            if not self.may_write:
                raise Refusal(403, "insufficientFilePermissions", "Not for you.")
            if len(content) > self.space:
                raise Refusal(403, "storageQuotaExceeded", "The user's quota has been exceeded.")
            self.space -= len(content)
            item = self.items[self.add(facts["name"], content=content)]
            item.mime = facts.get("mimeType", item.mime)
            item.parents = list(facts.get("parents", ["root"]))
            item.properties = facts.get("appProperties", {})
            return item


class _Handler(Handler):
    drive: DriveServer

    def do_GET(self) -> None:
        self._serve()

    do_POST = do_PUT = do_PATCH = do_DELETE = do_GET

    def _serve(self) -> None:
        drive, body = self.drive, self.body()
        with drive.lock:
            drive.requests.append(f"{self.command} {self.path}")
        try:
            if self.place == "/token":
                token = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
                self.answer_json(token)
                return
            if self.headers.get("Authorization") != f"Bearer {TOKEN}":
                raise Refusal(401, "authError", "Invalid Credentials")
            path = self.place.removeprefix("/upload").removeprefix("/drive/v3")
            if self.command in ("POST", "PUT") and self.place.startswith("/upload"):
                self._upload(body)
            elif path == "/about":
                self.answer_json({"user": {"emailAddress": drive.account}})
            elif path == "/files":
                self._files(body)
            else:
                self._file(path.removeprefix("/files/"), body)
        except Refusal as refusal:
            row = {"domain": "global", "reason": refusal.reason, "message": refusal.message}
            error = {"code": refusal.status, "message": refusal.message, "errors": [row]}
            self.answer_json({"error": error}, refusal.status)

    def _files(self, body: bytes) -> None:
        if self.command == "GET":
            self.answer_json(self.drive.listed(self.query))
        else:
            item = self.drive.create(json.loads(body), b"")
            self.answer_json(self.drive.shown(item, self.query["fields"]))

    def _file(self, id: str, body: bytes) -> None:
        drive, item = self.drive, self.drive.find(id)
        if self.command == "DELETE":
            if not drive.may_delete:
                raise Refusal(403, "insufficientFilePermissions", "Not for you.")
            with drive.lock:
                drive.items.pop(id, None)
            self.answer(204, b"")
        elif self.command == "PATCH":
            facts = json.loads(body or b"{}")
            with drive.lock:
                item.name = facts.get("name", item.name)
                item.trashed = facts.get("trashed", item.trashed)
                gone = self.query.get("removeParents", "").split(",")
                new = filter(None, self.query.get("addParents", "").split(","))
                item.parents = [p for p in item.parents if p not in gone] + list(new)
            self.answer_json(drive.shown(item, self.query["fields"]))
        elif self.query.get("alt") == "media":
            self.answer_range(item.content)
        else:
            self.answer_json(drive.shown(item, self.query["fields"]))

    # -- uploads --------------------------------------------------------------------------

    def _upload(self, body: bytes) -> None:
        drive, kind = self.drive, self.query.get("uploadType")
        if self.command == "PUT":
            self._chunk(body)
        elif kind == "multipart":
            facts, content = self._parts(body)
            item = drive.create(json.loads(facts), content)
            self.answer_json(drive.shown(item, self.query["fields"]))
        elif kind == "resumable":
            facts = json.loads(body)
            for parent in facts["parents"]:
                drive.find(parent)
            total = int(self.headers["X-Upload-Content-Length"])
            if total > drive.space:
                raise Refusal(403, "storageQuotaExceeded", "The user's quota has been exceeded.")
            with drive.lock:
                upload = f"upload-{len(drive.uploads)}"
                drive.uploads[upload] = (facts, total, bytearray())
            path = re.sub(r"&?upload_id=[^&]*", "", self.path)
            self.answer(200, b"", {"Location": f"{drive.public_url}{path}&upload_id={upload}"})
        else:
            raise Refusal(400, "badRequest", f"uploadType {kind}")

    def _parts(self, body: bytes) -> list[bytes]:
        """The bytes of the parts, exactly: `email` would touch line ends."""
        boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
        assert boundary
        parts = re.split(rb"(?:^|\r?\n)--" + re.escape(boundary[1].encode()), body)[1:-1]
        return [re.split(rb"\r?\n\r?\n", part, maxsplit=1)[1] for part in parts]

    def _chunk(self, body: bytes) -> None:
        drive, upload = self.drive, self.query["upload_id"]
        if upload not in drive.uploads:
            raise Refusal(404, "notFound", "no such upload")
        facts, total, have = drive.uploads[upload]
        match = re.fullmatch(r"bytes (?:(\d+)-(\d+)|\*)/(\d+)", self.headers["Content-Range"])
        assert match and int(match[3]) == total
        if match[1]:
            if int(match[1]) != len(have):
                raise Refusal(400, "badRequest", "not the next byte")
            have += body
            if len(have) < total and len(body) % _CHUNK:
                raise Refusal(400, "badRequest", "not a multiple of 256 KiB")
        if len(have) < total:
            self.answer(308, b"", {"Range": f"bytes=0-{len(have) - 1}"} if have else {})
            return
        done = drive.named(facts["name"])
        mine = [item for item in done if item.properties == facts.get("appProperties")]
        item = mine[0] if mine else drive.create(facts, bytes(have))
        self.answer_json(drive.shown(item, self.query["fields"]))


@contextlib.contextmanager
def drive_server() -> Iterator[DriveServer]:
    server = DriveServer()
    try:
        yield server
    finally:
        server.close()
