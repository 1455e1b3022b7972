"""A Hugging Face hub on loopback: repositories to read, with large files behind a redirect."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

from loopback import Handler, Server

TOKEN = "hf_secret"


class HfServer:
    """`files` is the repository `datasets/lab/cache` at its revisions `main` and `v1`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.private = False
        self.page = 1000
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        """Method, path, and headers by lower-case names."""
        self.public_url = ""
        self._server = Server(type("Hub", (_Handler,), {"hub": self}))
        self.close = self._server.close
        self.port = self._server.port
        self.url = self.public_url = self._server.url
        self.cdn = f"http://localhost:{self.port}/cdn"
        """Another host, which must not get the token."""

    def rows(self, folder: str, recursive: bool) -> list[dict[str, Any]] | None:
        """What a listing of the folder has; None if there is no such folder."""
        top = f"{folder}/" if folder else ""
        found: dict[str, dict[str, Any]] = {}
        for path, data in sorted(self.files.items()):
            if path.startswith(top):
                rest = path.removeprefix(top).split("/")
                for depth in range(1, len(rest)):
                    name = top + "/".join(rest[:depth])
                    found[name] = {"type": "directory", "oid": "0", "size": 0, "path": name}
                oid = hashlib.sha1(data, usedforsecurity=False).hexdigest()
                found[path] = {"type": "file", "oid": oid, "size": len(data), "path": path}
        rows = [row for row in found.values() if recursive or "/" not in row["path"][len(top) :]]
        return rows if rows or not folder else None


class _Handler(Handler):
    hub: HfServer

    def do_GET(self) -> None:
        hub, place, body = self.hub, self.place, self.body()
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.requests.append((self.command, self.path, headers))
        if place.startswith("/cdn/"):
            self._bytes(hub.files[unquote(place[5:])])
            return
        if hub.private and headers.get("authorization") != f"Bearer {TOKEN}":
            self._fail(401, "RepoNotFound", "Invalid username or password.")
            return
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", place):
            if self._is_there(match[1], match[2]):
                self._resolve(unquote(match[3]))
        elif match := re.fullmatch(
            r"/api/datasets/([^/]+/[^/]+)/(revision|tree|paths-info)/([^/]+)/?(.*)", place
        ):
            if self._is_there(match[1], match[3]):
                self._api(match[2], unquote(match[4]), body)
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)", place):
            if self._is_there(match[1], "main"):
                self._api("revision", "", body)
        else:
            self._fail(404, "", "Not Found")

    do_HEAD = do_POST = do_GET

    def _is_there(self, repository: str, revision: str) -> bool:
        if repository != "lab/cache":
            self._fail(401, "RepoNotFound", "Invalid username or password.")
            return False
        if unquote(revision) not in ("main", "v1"):
            self._fail(404, "RevisionNotFound", f"Invalid rev id: {revision}")
            return False
        return True

    def _api(self, what: str, path: str, body: bytes) -> None:
        if what == "revision":
            date = "2026-01-31T12:00:00.000Z"
            self.answer_json(
                {"id": "lab/cache", "sha": "0" * 40, "lastModified": date, "siblings": []}
            )
            return
        if what == "paths-info":
            wanted = json.loads(body)["paths"]
            self.answer_json([r for r in self.hub.rows("", True) or [] if r["path"] in wanted])
            return
        rows = self.hub.rows(path, self.query.get("recursive", "").lower() == "true")
        if rows is None:
            self._fail(404, "EntryNotFound", f"{path} does not exist")
            return
        start = int(self.query.get("cursor", "0"))
        end = start + self.hub.page
        link = {}
        if end < len(rows):
            more = re.sub(r"&cursor=\d+", "", self.path)
            link = {"Link": f'<{self.hub.public_url}{more}&cursor={end}>; rel="next"'}
        self.answer_json(rows[start:end], headers=link)

    def _resolve(self, path: str) -> None:
        if path not in self.hub.files:
            self._fail(404, "EntryNotFound", "Entry not found")
        elif path.endswith(".pack"):  # as large files are kept
            size = str(len(self.hub.files[path]))
            where = {"Location": f"{self.hub.cdn}/{path}?Signature=x", "X-Linked-Size": size}
            self.answer(302, b"", where)
        else:
            self._bytes(self.hub.files[path])

    def _bytes(self, data: bytes) -> None:
        self.answer_range(data, {"ETag": '"x"', "X-Repo-Commit": "0" * 40})

    def _fail(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self.answer_json({"error": message}, status, headers)


@contextlib.contextmanager
def hf_server() -> Iterator[HfServer]:
    server = HfServer()
    try:
        yield server
    finally:
        server.close()
