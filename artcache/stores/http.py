"""A store behind plain https: read-only, for a public bucket that needs no account.

It speaks through `requests`, which comes with gcsfs: it follows redirects and
proxies, keeps connections, and shows the status and the Content-Range. fsspec's
own HTTP file system shows neither, and takes a whole object for a range.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from ..errors import ArtcacheError, OverLimit, StoreDenied, StoreUnavailable, UsageError
from ..store import Content, StoredObject, StoreTraits, checked_name
from .faults import (
    Limits,
    Party,
    Passing,
    by_status,
    only_ours,
    spanned,
    unavailable,
)
from .room import PROGRESS, Part, Room, while_it_moves
from .web import Sessions, length_of, pieces, read_body

if TYPE_CHECKING:
    import requests

_Result = TypeVar("_Result")
_QUERY = re.compile(r"\?[^\s'\")]+")
"""Of an address that we were sent on to: it may be a signature that lets anyone read."""
_WHOLE = 32 << 20
"""From a server without ranges an object up to this size is read whole for each."""


class HttpStore:
    def __init__(self, url: str, *, limits: Limits | None = None) -> None:
        """Raises `UsageError` for a URL that is none, or that shows a password."""
        try:
            parts = urlsplit(url)
            _ = parts.port
        except ValueError as error:
            raise UsageError(f"{url!r} is no URL: {error}") from None
        if not parts.hostname:
            raise UsageError(f"{url!r} names no host", hint="write it like https://host/folder")
        if parts.username is not None:
            raise UsageError(
                f"a store's URL is shown in messages, so it must not hold a password"
                f" ({parts.scheme}://...@{parts.hostname})",
                hint=f"put it into ~/.netrc: machine {parts.hostname} login NAME password ...",
            )
        if parts.query or parts.fragment:
            raise UsageError(f"{url!r}: a store's URL ends with a folder, not with ? or #")
        self._url = url
        self._base = url.rstrip("/")
        self._limits = limits or Limits()
        self._sessions = Sessions(url)
        self._party = Party(url, "an anonymous reader", "ask its owner whether it is public")
        self._auth: Callable[[Any], Any] | None = None

    @property
    def url(self) -> str:
        return self._url

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(
            exclusive_create=True,
            durable_on_return=True,
            writable=False,
            parallel=8,
            lists=False,
        )

    @property
    def identity(self) -> str:
        return "anonymous"

    def get(self, name: str, *, limit: int) -> bytes:
        def attempt(number: int) -> bytes:
            with self._request("GET", name) as answer:
                length = length_of(answer)
                if length is not None and length > limit:
                    raise OverLimit(
                        f"{self._url}: {name} has {length} bytes; at most {limit} are read"
                    )
                data = self._body(answer, name, limit)
                if length is not None and len(data) != length:
                    raise Passing(f"{self._url} broke off {name} at byte {len(data)}")
                return data

        return self._persistently(attempt)

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        out = bytearray(length)
        self.fill(name, offset, memoryview(out))
        return bytes(out)

    def fill(self, name: str, offset: int, out: memoryview) -> None:
        self.stream(name, offset, out, lambda count: None)

    def stream(
        self, name: str, offset: int, out: memoryview, came: Callable[[int], object]
    ) -> None:
        room = Room(out, came)

        def attempt(number: int) -> None:
            part = room.rest()
            at, length = offset + room.done, len(part.left)
            wanted = {"Range": f"bytes={at}-{at + length - 1}"}
            if out and not length:  # it broke after the last byte
                return
            with self._request("GET", name, wanted) as answer:
                if answer.status_code == 206:
                    got = answer.headers.get("Content-Range", "")
                    spanned(self._party, name, got, at, length)
                    self._into(part, answer, name, length)
                else:
                    part.put(self._sliced(answer, name, at, length))

        while_it_moves(lambda: room.done, lambda: self._persistently(attempt), PROGRESS)

    def size(self, name: str) -> int:
        def attempt(number: int) -> int:
            with self._request("HEAD", name) as answer:
                length = length_of(answer)
            if length is None:
                raise StoreUnavailable(f"{self._url} does not tell the size of {name}")
            return length

        return self._persistently(attempt)

    def create(self, name: str, content: Content) -> None:
        self._refuse(name)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Nothing: plain https has no listing."""
        checked_name(prefix)
        return iter(())

    def delete(self, name: str) -> None:
        self._refuse(name)

    def move(self, name: str, to: str) -> None:
        self._refuse(name)

    def quarantine(self, name: str) -> str:
        self._refuse(name)
        return ""

    def abort(self) -> None:
        self._sessions.abort()

    # -- inside ---------------------------------------------------------------------------

    def _refuse(self, name: str) -> None:
        checked_name(name)
        raise StoreDenied(
            f"{self._url} can only be read: it is reached by plain http",
            hint=f"configure it as read-only: read:{self._url}; publish by its gs:// or s3:// URL",
        )

    def _persistently(self, attempt: Callable[[int], _Result]) -> _Result:
        with only_ours(self._party):
            return self._sessions.persist(self._limits, attempt)

    def _request(
        self, method: str, name: str, headers: dict[str, str] | None = None
    ) -> requests.Response:
        return self._send(method, f"{self._base}/{quote(checked_name(name))}", name, headers)

    def _send(
        self, method: str, url: str, name: str, headers: dict[str, str] | None = None
    ) -> requests.Response:
        """One attempt; its answer, if it is a good one. The caller closes it."""
        import requests

        timeout = (self._limits.connect, self._limits.silence)
        try:
            answer: requests.Response = self._sessions.mine().request(
                method,
                url,
                headers=headers,
                auth=self._auth,
                timeout=timeout,
                stream=True,
                allow_redirects=True,
            )
        except requests.exceptions.InvalidURL as error:
            raise UsageError(f"{self._url}: {error}") from error
        except requests.exceptions.TooManyRedirects as error:
            raise StoreUnavailable(f"{self._url}: {error}") from error
        except (requests.exceptions.RequestException, OSError) as error:
            fault = unavailable(self._party, error)
            fault.args = (_QUERY.sub("?...", str(fault)),)
            raise fault from None
        if answer.status_code in (200, 206):
            if answer.headers.get("Content-Encoding", "identity") != "identity":
                answer.close()
                raise StoreUnavailable(
                    f"{self._url} compresses {name} on its way",
                    hint="turn that off for this folder: ranges of it mean nothing",
                )
            return answer
        with answer:
            said = "" if method == "HEAD" else self._said(answer)
            status = 404 if answer.status_code == 410 else answer.status_code
            raise self._failed(answer, name, status, said)

    def _failed(
        self, answer: requests.Response, name: str, status: int, said: str
    ) -> ArtcacheError:
        after = answer.headers.get("Retry-After")
        return by_status(self._party, name, status, said, after=after)

    def _said(self, answer: requests.Response) -> str:
        try:
            text = self._read(answer, 1 << 14).decode(errors="replace")
        except StoreUnavailable:
            return ""
        return "" if text.lstrip().startswith("<") else text

    def _body(self, answer: requests.Response, name: str, limit: int) -> bytes:
        data = self._read(answer, limit + 1)
        if len(data) > limit:
            raise OverLimit(f"{self._url}: {name} has over {limit} bytes")
        return data

    def _into(self, part: Part, answer: requests.Response, name: str, length: int) -> None:
        count = 0
        for data in pieces(answer, length + 1, self._limits, self._party):
            count += len(data)
            if count > length:
                raise OverLimit(f"{self._url}: {name} has over {length} bytes")
            part.put(data)
        if count != length:
            raise Passing(f"{self._url} broke off {name} at byte {count}")

    def _read(self, answer: requests.Response, most: int) -> bytes:
        return read_body(answer, most, self._limits, self._party)

    def _sliced(self, answer: requests.Response, name: str, offset: int, length: int) -> bytes:
        """The range out of a whole object, from a server that knows no ranges."""
        total = length_of(answer)
        if total is None or total > _WHOLE:
            raise StoreUnavailable(
                f"{self._url} serves no ranges, so a large object cannot be read from it",
                hint="serve it from a bucket, or from a server that knows Range requests",
            )
        data = self._body(answer, name, total)
        if len(data) != total:
            raise Passing(f"{self._url} broke off {name} at byte {len(data)}")
        spanned(self._party, name, f"bytes {offset}-{min(total, offset + length) - 1}/{total}",
                offset, length)  # fmt: skip
        return data[offset : offset + length]
