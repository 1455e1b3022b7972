"""Google Cloud Storage's JSON API over gcsfs's session.

gcsfs knows the endpoint, the proxies and how a credential is applied. Its own
verbs are not used: they retry for half a minute, lose the server's Retry-After,
read a body of any size into memory, and cut uploads at a fixed boundary that an
object's bytes may contain.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hashlib
import json
import os
import secrets
import warnings
from collections.abc import AsyncIterator, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..errors import Corrupt, ObjectNotFound, OverLimit
from ..store import StoredObject
from .faults import Limits, Moved, Party, Passing, by_status, spanned, unavailable
from .remote import MARK, Body, Page, Read, cacheable

if TYPE_CHECKING:
    from .google_login import Login

ADVICE = (
    "sign in: `gcloud auth application-default login`; in a notebook `from google.colab import"
    " auth; auth.authenticate_user()`; or set GOOGLE_APPLICATION_CREDENTIALS to a key file"
)
_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


class GcsBucket:
    def __init__(self, name: str, url: str, limits: Limits) -> None:
        self.name = name
        self.make = f"gcloud storage buckets create gs://{name}"
        self.party = Party(url, "anonymous", ADVICE)
        self._limits = limits
        self._login: Login | None = None
        self._fs: Any = None
        self._pid = 0

    def prepare(self) -> asyncio.AbstractEventLoop:
        if self._fs is None or self._pid != os.getpid():  # its loop's thread is not forked along
            self._connect()
        if self._login:
            self._login.refresh(self.party)
        loop: asyncio.AbstractEventLoop = self._fs.loop
        return loop

    def _connect(self) -> None:
        # Without this gcsfs asks over gRPC for the kind of each bucket, for up to 109 s where
        # there is no answer (an emulator, a proxy).
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Google's libraries, about older Pythons
            import fsspec.config
            import gcsfs.core

        from .google_login import Login

        configured = {**fsspec.config.conf.get("gs", {}), **fsspec.config.conf.get("gcs", {})}
        options: dict[str, Any] = {
            "access": "read_write",
            "use_listings_cache": False,
            "skip_instance_cache": True,
            "session_kwargs": {"trust_env": True, "read_bufsize": 1 << 20},
        }
        if "token" in configured:
            identity, self._login = "the token in fsspec's configuration", None
        else:
            self._login = Login.find(_SCOPE)
            identity = self._login.identity
            options["token"] = self._login.credentials or "anon"
        self.party = Party(self.party.url, identity, ADVICE)
        self._fs = gcsfs.core.GCSFileSystem(**options)
        self._base: str = self._fs._location  # it would read the environment each time
        self._pid = os.getpid()

    # -- verbs ----------------------------------------------------------------------------

    async def read(
        self, key: str, moved: Moved, *, limit: int = 0, span: tuple[int, int] | None = None
    ) -> Read:
        headers = {"Accept-Encoding": "identity"}
        if span:
            headers["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
        async with self._request(
            "GET", self._object(key), key, headers, query={"alt": "media"}
        ) as answer:
            length = answer.content_length
            if span:
                if answer.status != 206:
                    raise Passing(f"{self.party.url} ignored the range that was asked for")
                got = answer.headers.get("Content-Range", "")
                spanned(self.party, key, got, *span)
                limit = span[1]
            elif length is not None and length > limit:
                raise OverLimit(
                    f"{self.party.url}: {key} has {length} bytes; at most {limit} are read"
                )
            parts, count = [], 0
            while part := await answer.content.readany():
                parts.append(part)
                count += len(part)
                moved(len(part))
                if count > limit:
                    raise OverLimit(f"{self.party.url}: {key} has over {limit} bytes")
            data = b"".join(parts)
            if count != (span[1] if span else count if length is None else length):
                raise Passing(f"{self.party.url} broke off {key} at byte {count}")
            generation = answer.headers.get("X-Goog-Generation")
            if not generation:  # a proxy's own page, with a friendly 200
                raise Passing(f"what answers for {self.party.url} is no Cloud Storage")
            if not span:
                self._check_md5(answer.headers.getall("X-Goog-Hash", []), key, data)
            return Read(data, generation)

    async def size(self, key: str) -> int:
        return int((await self._facts(key))["size"])

    async def put(self, key: str, body: Body, moved: Moved, *, over: str) -> str:
        # One request, so that the object appears whole or not at all; with a boundary that
        # cannot be in its bytes, and the digest that the server checks before it appears.
        boundary = secrets.token_hex(16)
        md5 = base64.b64encode(body.md5).decode()
        facts = json.dumps(
            {
                "name": key,
                "md5Hash": md5,
                "cacheControl": cacheable(key),
                "metadata": {MARK: body.mark},
            }
        )
        head = (
            f"--{boundary}\r\nContent-Type: application/json; charset=UTF-8\r\n\r\n{facts}\r\n"
            f"--{boundary}\r\nContent-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()

        async def whole() -> AsyncIterator[bytes]:
            yield head
            async for piece in body.pieces(moved):
                yield piece
            yield tail

        headers = {
            "Content-Type": f'multipart/related; boundary="{boundary}"',
            "Content-Length": str(len(head) + body.size + len(tail)),
        }
        url = f"{self._base}/upload/storage/v1/b/{quote(self.name, safe='')}/o"
        async with self._request(
            "POST",
            url,
            key,
            headers,
            whole(),
            writing=True,
            query={"uploadType": "multipart", "ifGenerationMatch": over or "0"},
        ) as answer:
            stored = await self._json(answer)
        if (stored.get("size"), stored.get("md5Hash", md5)) != (str(body.size), md5):
            with contextlib.suppress(ObjectNotFound):
                await self.delete(key, str(stored.get("generation", "")))
            raise Passing(f"{self.party.url} stored other bytes of {key} than were sent")
        return str(stored["generation"])

    async def ours(self, key: str, body: Body) -> str:
        facts = await self._facts(key)
        ours = (facts.get("metadata") or {}).get(MARK) == body.mark
        return str(facts["generation"]) if ours else ""

    async def page(self, prefix: str, token: str, most: int) -> Page:
        url = f"{self._bucket()}/o"
        wanted = "items(name,size,updated),nextPageToken"
        query = {"prefix": prefix, "maxResults": str(most), "fields": wanted}
        if token:
            query["pageToken"] = token
        async with self._request("GET", url, prefix, query=query) as answer:
            body = await self._json(answer)
        found = [
            StoredObject(item["name"], int(item["size"]), _seconds(item["updated"]))
            for item in body.get("items", [])
            if not item["name"].endswith("/")  # what the console makes to show a folder
        ]
        return found, body.get("nextPageToken", "")

    async def delete(self, key: str, version: str = "") -> None:
        query = {"ifGenerationMatch": version} if version else {}
        async with self._request("DELETE", self._object(key), key, writing=True, query=query):
            return

    async def copy(self, key: str, to: str) -> None:
        url = f"{self._object(key)}/rewriteTo{self._object(to, base='')}"
        query: dict[str, str] = {}
        while True:  # a large object takes several turns
            async with self._request("POST", url, key, writing=True, query=query) as answer:
                body = await self._json(answer)
            if body.get("done", True):
                return
            query = {"rewriteToken": body["rewriteToken"]}

    # -- inside ---------------------------------------------------------------------------

    def _bucket(self, base: str | None = None) -> str:
        top = f"{self._base}/storage/v1" if base is None else base
        return f"{top}/b/{quote(self.name, safe='')}"

    def _object(self, key: str, base: str | None = None) -> str:
        return f"{self._bucket(base)}/o/{quote(key, safe='')}"

    async def _facts(self, key: str) -> dict[str, Any]:
        fields = "size,generation,metadata"
        async with self._request("GET", self._object(key), key, query={"fields": fields}) as answer:
            return await self._json(answer)

    async def _json(self, answer: Any) -> dict[str, Any]:
        try:
            body = json.loads(await answer.read())
        except ValueError:
            raise Passing(f"{self.party.url} answers with something that is no JSON") from None
        if not isinstance(body, dict):
            raise Passing(f"{self.party.url} answers with other JSON than expected")
        return body

    @contextlib.asynccontextmanager
    async def _request(
        self,
        method: str,
        url: str,
        key: str,
        headers: dict[str, str] | None = None,
        data: AsyncIterator[bytes] | None = None,
        *,
        writing: bool = False,
        query: Mapping[str, str] = MappingProxyType({}),
    ) -> AsyncIterator[Any]:
        """One attempt; its answer, if it is a good one."""
        import aiohttp
        from yarl import URL

        session = await self._fs._set_session()
        limits = self._limits
        timeout = aiohttp.ClientTimeout(
            total=None,
            connect=limits.connect,
            sock_connect=limits.connect,
            sock_read=limits.stall,
        )
        try:
            async with session.request(
                method,
                URL(url, encoded=True),
                params=self._fs._get_params(dict(query)),
                headers=self._fs._get_headers(headers),
                data=data,
                timeout=timeout,
                allow_redirects=False,
            ) as answer:
                if answer.status not in (200, 204, 206):
                    said = _said((await answer.content.read(1 << 14)).decode(errors="replace"))
                    after = answer.headers.get("Retry-After")
                    status = answer.status
                    raise by_status(self.party, key, status, said, after=after, writing=writing)
                yield answer
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as error:
            raise unavailable(self.party, error) from error

    def _check_md5(self, hashes: list[str], key: str, data: bytes) -> None:
        """A wrong byte on the way is not to be taken for a wrong object."""
        for word in ",".join(hashes).split(","):
            kind, _, value = word.strip().partition("=")
            if kind == "md5":
                found = hashlib.md5(data, usedforsecurity=False).digest()
                if base64.b64encode(found).decode() != value:
                    raise Passing(f"{self.party.url} sent other bytes of {key} than it stores")


def _said(text: str) -> str:
    """The message in an error's body, which is JSON, or text, or a page of somebody's proxy."""
    with contextlib.suppress(ValueError, TypeError, KeyError):
        return str(json.loads(text)["error"]["message"])
    return "" if text.lstrip().startswith("<") else text


def _seconds(updated: str) -> float:
    with contextlib.suppress(ValueError):
        # Python 3.10 reads neither `Z` nor every number of digits.
        return datetime.fromisoformat(updated[:19] + "+00:00").timestamp()
    raise Corrupt(f"{updated!r} is no time")
