"""Google Cloud Storage's JSON API, by `wire`, on the calling thread.

gcsfs knows what is configured for it: `gcs_access`. Its own verbs are not used: they
retry for half a minute, lose the server's Retry-After, read a body of any size into
memory, and cut uploads at a fixed boundary that an object's bytes may contain.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import itertools
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NoReturn
from urllib.parse import quote, urlencode

from ..errors import ArtcacheError, Corrupt, OverLimit
from ..store import StoredObject
from .bucket import MARK, PART, Body, Page, Read, cacheable
from .faults import Limits, Moved, Party, Passing, spanned
from .gcs_access import Access
from .gcs_upload import Upload, refused
from .room import Part
from .wire import Answer, Wire

ADVICE = (
    "sign in: `gcloud auth application-default login`; in a notebook `from google.colab import"
    " auth; auth.authenticate_user()`; or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
)
_API = "/storage/v1"
_MOST_SAID = 1 << 14
_MOST_FACTS = 16 << 20
"""Bytes of an answer about objects: a page of a listing is a tenth of it."""


class GcsBucket:
    def __init__(self, name: str, url: str, limits: Limits) -> None:
        self.name = name
        self.make = f"gcloud storage buckets create gs://{name}"
        self.party = Party(url, "anonymous", ADVICE)
        self._limits = limits
        self._access: Access | None = None
        self._pid = 0

    def prepare(self) -> None:
        if self._access is None or self._pid != os.getpid():
            self._access = Access()
            self.party = Party(self.party.url, self._access.identity, ADVICE)
            self._wire = Wire(self._access.base, self._limits, self.party, self._access.tls)
            self._pid = os.getpid()
        self._access.refresh(self.party)

    def loop(self) -> NoReturn:
        raise NotImplementedError("all verbs run on the calling thread")

    def abort(self) -> None:
        if self._access:
            self._wire.abort()

    # -- verbs ----------------------------------------------------------------------------

    def read(
        self,
        key: str,
        moved: Moved,
        *,
        limit: int = 0,
        span: tuple[int, int] | None = None,
        out: Part | None = None,
    ) -> Read:
        headers = {"Range": f"bytes={span[0]}-{span[0] + span[1] - 1}"} if span else {}
        query = {"alt": "media"}
        with self._request("GET", self._object(key), key, moved, query, headers) as answer:
            length = answer.length
            if span:
                if answer.status != 206:
                    raise Passing(f"{self.party.url} ignored the range that was asked for")
                spanned(self.party, key, answer.headers.get("Content-Range", ""), *span)
                if length not in (None, span[1]):
                    raise Passing(f"{self.party.url} promises {length} bytes of {span[1]}")
                length = limit = span[1]
            if length is not None and length > limit:
                raise OverLimit(
                    f"{self.party.url}: {key} has {length} bytes; at most {limit} are read"
                )
            generation = answer.headers.get("X-Goog-Generation")
            if not generation:  # a proxy's own page, with a friendly 200
                raise Passing(f"what answers for {self.party.url} is no Cloud Storage")
            data = b"" if out else answer.read(limit + 1)
            count = answer.read_into(out.left, out.came) if out else len(data)
            if count > limit:
                raise OverLimit(f"{self.party.url}: {key} has over {limit} bytes")
            if length not in (None, count):
                raise Passing(f"{self.party.url} broke off {key} at byte {count}")
            if not span:
                self._check_md5(answer.headers.get_all("X-Goog-Hash", []), key, data)
            return Read(data, generation)

    def size(self, key: str, moved: Moved) -> int:
        return int(self._facts(key, moved)["size"])

    def ours(self, key: str, body: Body, moved: Moved) -> str:
        facts = self._facts(key, moved)
        ours = (facts.get("metadata") or {}).get(MARK) == body.mark
        return str(facts["generation"]) if ours else ""

    def page(self, prefix: str, token: str, most: int, moved: Moved) -> Page:
        wanted = "items(name,size,updated),nextPageToken"
        query = {"prefix": prefix, "maxResults": str(most), "fields": wanted}
        if token:
            query["pageToken"] = token
        body = self._asked(f"{_API}{self._bucket}/o", prefix, moved, query)
        found = [
            StoredObject(item["name"], int(item["size"]), _seconds(item["updated"]))
            for item in body.get("items", [])
            if not item["name"].endswith("/")  # what the console makes to show a folder
        ]
        return found, body.get("nextPageToken", "")

    def put(self, key: str, body: Body, moved: Moved, *, over: str) -> str:
        if body.size <= PART:
            return self._put_whole(key, body, moved, over)
        facts = json.dumps(_facts_of(key, body)).encode()
        query = self._there.query({"uploadType": "resumable", "ifGenerationMatch": over or "0"})
        path = f"/upload{_API}{self._bucket}/o?{urlencode(query)}"
        upload = Upload(self._wire, self.party, self._there.headers(), key)
        stored = self._parsed(upload.send(path, facts, body, moved))
        return self._generation(stored, key, body, moved)

    def drop(self, key: str, body: Body) -> None:
        """Nothing: a session that is not finished ends by itself, and nobody pays for it."""

    def _put_whole(self, key: str, body: Body, moved: Moved, over: str) -> str:
        # One request, so that the object appears whole or not at all; with a boundary that
        # cannot be in its bytes, and the digest that the server checks before it appears.
        boundary = secrets.token_hex(16)
        facts = json.dumps(_facts_of(key, body))
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{facts}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        headers = {
            "Content-Type": f'multipart/related; boundary="{boundary}"',
            "Content-Length": str(len(head) + body.size + len(tail)),
        }
        whole = itertools.chain([head], body.part(0, body.size, moved), [tail])
        query = {"uploadType": "multipart", "ifGenerationMatch": over or "0"}
        path = f"/upload{_API}{self._bucket}/o"
        with self._request("POST", path, key, moved, query, headers, whole) as answer:
            stored = self._parsed(answer.read(_MOST_FACTS))
        return self._generation(stored, key, body, moved)

    def _generation(self, stored: dict[str, Any], key: str, body: Body, moved: Moved) -> str:
        """Of the object that the server says it stored, if it is the right one."""
        generation = str(stored.get("generation", ""))
        md5 = base64.b64encode(body.md5).decode()
        if (stored.get("size"), stored.get("md5Hash", md5)) == (str(body.size), md5):
            return generation
        with contextlib.suppress(ArtcacheError):
            self._delete(key, moved, {"ifGenerationMatch": generation})
        raise Passing(f"{self.party.url} stored other bytes of {key} than were sent")

    def delete(self, key: str) -> None:
        self._delete(key, Moved(), {})

    def _delete(self, key: str, moved: Moved, query: dict[str, str]) -> None:
        with self._request("DELETE", self._object(key), key, moved, query) as answer:
            answer.read(_MOST_SAID)

    def copy(self, key: str, to: str) -> None:
        path = f"{self._object(key)}/rewriteTo{self._object(to, top='')}"
        query: dict[str, str] = {}
        while True:  # a large object takes several turns
            headers = {"Content-Length": "0"}
            with self._request("POST", path, key, Moved(), query, headers) as answer:
                body = self._parsed(answer.read(_MOST_FACTS))
            if body.get("done", True):
                return
            query = {"rewriteToken": body["rewriteToken"]}

    # -- inside ---------------------------------------------------------------------------

    @property
    def _bucket(self) -> str:
        return f"/b/{quote(self.name, safe='')}"

    def _object(self, key: str, top: str = _API) -> str:
        return f"{top}{self._bucket}/o/{quote(key, safe='')}"

    def _facts(self, key: str, moved: Moved) -> dict[str, Any]:
        return self._asked(self._object(key), key, moved, {"fields": "size,generation,metadata"})

    def _asked(self, path: str, key: str, moved: Moved, query: dict[str, str]) -> dict[str, Any]:
        with self._request("GET", path, key, moved, query) as answer:
            return self._parsed(answer.read(_MOST_FACTS))

    def _parsed(self, data: bytes) -> dict[str, Any]:
        try:
            body = json.loads(data)
        except ValueError:
            raise Passing(f"{self.party.url} answers with something that is no JSON") from None
        if not isinstance(body, dict):
            raise Passing(f"{self.party.url} answers with other JSON than expected")
        return body

    @property
    def _there(self) -> Access:
        assert self._access, "prepare() comes first"
        return self._access

    @contextlib.contextmanager
    def _request(
        self,
        method: str,
        path: str,
        key: str,
        moved: Moved,
        query: dict[str, str],
        headers: Mapping[str, str] = MappingProxyType({}),
        body: Iterable[bytes] = (),
    ) -> Iterator[Answer]:
        """One attempt; its answer, if it is a good one."""
        there = self._there
        path = f"{path}?{urlencode(there.query(query))}"
        headers = {**there.headers(), **headers}
        with self._wire.ask(method, path, headers, moved, body) as answer:
            if answer.status not in (200, 204, 206):
                raise refused(self.party, key, answer, writing=method != "GET")
            yield answer

    def _check_md5(self, hashes: list[str], key: str, data: bytes) -> None:
        """A wrong byte on the way is not to be taken for a wrong object."""
        for word in ",".join(hashes).split(","):
            kind, _, value = word.strip().partition("=")
            if kind == "md5":
                found = hashlib.md5(data, usedforsecurity=False).digest()
                if base64.b64encode(found).decode() != value:
                    raise Passing(f"{self.party.url} sent other bytes of {key} than it stores")


def _facts_of(key: str, body: Body) -> dict[str, Any]:
    return {
        "name": key,
        "md5Hash": base64.b64encode(body.md5).decode(),
        "cacheControl": cacheable(key),
        "metadata": {MARK: body.mark},
    }


def _seconds(updated: str) -> float:
    with contextlib.suppress(ValueError):
        # Python 3.10 reads neither `Z` nor every number of digits.
        return datetime.fromisoformat(updated[:19] + "+00:00").timestamp()
    raise Corrupt(f"{updated!r} is no time")
