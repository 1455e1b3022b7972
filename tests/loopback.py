"""What the HTTP servers that tests write have in common: threads on loopback, and their handler."""

from __future__ import annotations

import contextlib
import json
import re
import ssl
import threading
from collections.abc import Mapping
from http.client import HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit


class Server(ThreadingHTTPServer):
    """Answers from now on, each connection in its own thread, until `close`."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(
        self, handler: type[BaseHTTPRequestHandler], *, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        if tls:
            self.socket = tls.wrap_socket(self.socket, server_side=True)
        self.port = self.server_address[1]
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{self.port}"
        threading.Thread(target=self.serve_forever, args=(0.02,), daemon=True).start()

    def handle_error(self, request: object, client_address: object) -> None:
        pass  # clients hang up here: that is the point

    def close(self) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Says nothing of its own, and minds no client that is gone."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def handle_one_request(self) -> None:
        with contextlib.suppress(OSError, HTTPException):
            super().handle_one_request()
            return
        self.close_connection = True

    @property
    def place(self) -> str:
        """The path that is asked for, without its query."""
        return urlsplit(self.path).path

    @property
    def query(self) -> dict[str, str]:
        return {name: values[-1] for name, values in parse_qs(urlsplit(self.path).query).items()}

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> None:
        self.send_response_only(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def answer_json(
        self, body: object, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> None:
        kind = {"Content-Type": "application/json", **(headers or {})}
        self.answer(status, json.dumps(body).encode(), kind)

    def answer_range(self, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """The part of `data` that is asked for, or all of it."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
        if not match:
            self.answer(200, data, headers)
            return
        first, last = int(match[1]), min(int(match[2] or len(data)), len(data) - 1)
        if first >= len(data):
            self.answer(416)
            return
        span = {"Content-Range": f"bytes {first}-{last}/{len(data)}", **(headers or {})}
        self.answer(206, data[first : last + 1], span)
