"""A Hugging Face hub on loopback: repositories to read, with large files behind a redirect."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

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
        handler = type("Handler", (_Handler,), {"hub": self})

        class Server(ThreadingHTTPServer):
            daemon_threads = True
            block_on_close = False
            request_queue_size = 64

        self._server = Server(("127.0.0.1", 0), handler)
        self.port = self._server.server_address[1]
        self.url = self.public_url = f"http://127.0.0.1:{self.port}"
        self.cdn = f"http://localhost:{self.port}/cdn"
        """Another host, which must not get the token."""
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

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


class _Handler(BaseHTTPRequestHandler):
    hub: HfServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError):
            super().handle_one_request()
            return
        self.close_connection = True

    def do_GET(self) -> None:
        hub, parts = self.hub, urlsplit(self.path)
        self.query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        headers = {name.lower(): value for name, value in self.headers.items()}
        hub.requests.append((self.command, self.path, headers))
        if parts.path.startswith("/cdn/"):
            self._bytes(hub.files[unquote(parts.path[5:])])
            return
        if hub.private and headers.get("authorization") != f"Bearer {TOKEN}":
            self._fail(401, "RepoNotFound", "Invalid username or password.")
            return
        if match := re.fullmatch(r"/datasets/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", parts.path):
            if self._is_there(match[1], match[2]):
                self._resolve(unquote(match[3]))
        elif match := re.fullmatch(
            r"/api/datasets/([^/]+/[^/]+)/(revision|tree|paths-info)/([^/]+)/?(.*)", parts.path
        ):
            if self._is_there(match[1], match[3]):
                self._api(match[2], unquote(match[4]), body)
        elif match := re.fullmatch(r"/api/datasets/([^/]+/[^/]+)", parts.path):
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
            self._json({"id": "lab/cache", "sha": "0" * 40, "lastModified": date, "siblings": []})
            return
        if what == "paths-info":
            wanted = json.loads(body)["paths"]
            self._json([r for r in self.hub.rows("", True) or [] if r["path"] in wanted])
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
        self._json(rows[start:end], headers=link)

    def _resolve(self, path: str) -> None:
        if path not in self.hub.files:
            self._fail(404, "EntryNotFound", "Entry not found")
        elif path.endswith(".pack"):  # as large files are kept
            size = str(len(self.hub.files[path]))
            where = {"Location": f"{self.hub.cdn}/{path}?Signature=x", "X-Linked-Size": size}
            self._answer(302, b"", where)
        else:
            self._bytes(self.hub.files[path])

    def _bytes(self, data: bytes) -> None:
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            self._answer(200, data, {"ETag": '"x"', "X-Repo-Commit": "0" * 40})
            return
        first = int(match[1])
        last = min(int(match[2] or len(data)), len(data) - 1)
        if first >= len(data):
            self._answer(416, b"")
            return
        span = {"Content-Range": f"bytes {first}-{last}/{len(data)}", "ETag": '"x"'}
        self._answer(206, data[first : last + 1], span)

    def _fail(self, status: int, code: str, message: str) -> None:
        headers = {"X-Error-Code": code, "X-Error-Message": message}
        self._json({"error": message}, status, headers)

    def _json(self, body: object, status: int = 200, headers: dict[str, str] | None = None) -> None:
        kind = {"Content-Type": "application/json", **(headers or {})}
        self._answer(status, json.dumps(body).encode(), kind)

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@contextlib.contextmanager
def hf_server() -> Iterator[HfServer]:
    server = HfServer()
    try:
        yield server
    finally:
        server.close()
