"""How `drive_api` sends what google-api-python-client made: with `requests`, under our limits.

The library's own httplib2 serves one thread, and cannot tell a slow answer from a stalled one.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import OverLimit
from .faults import Limits, Party, Passing, unavailable
from .web import Sent, length_of, read_body

if TYPE_CHECKING:
    import requests

_SECRET = re.compile(r"(upload_id=)[^&\s'\")]+")


class Transport:
    """What the library calls its `http`, for one request of one thread."""

    def __init__(
        self,
        session: requests.Session,
        credentials: Any,
        party: Party,
        limits: Limits,
        limit: int,
        name: str,
    ) -> None:
        """Args:
        limit: Bytes that an answer may have.
        name: Of the object, for messages.
        """
        self._session, self._credentials = session, credentials
        self._party, self._limits, self._limit, self._name = party, limits, limit, name

    def request(
        self,
        uri: str,
        method: str = "GET",
        body: Any = None,
        headers: dict[str, str] | None = None,
        **_: Any,
    ) -> tuple[Any, bytes]:
        import httplib2
        import requests

        data = body.encode() if isinstance(body, str) else body
        try:
            with self._session.request(
                method,
                uri,
                data=Sent(data, self._limits) if data else None,
                headers={**(headers or {}), "accept-encoding": "identity"},
                auth=self._signed,
                timeout=(self._limits.connect, self._limits.silence),
                stream=True,
                allow_redirects=False,
            ) as answer:
                found = {name.lower(): value for name, value in answer.headers.items()}
                content = self._content(answer)
                return httplib2.Response({**found, "status": str(answer.status_code)}), content
        except (requests.exceptions.RequestException, OSError) as error:
            fault = unavailable(self._party, error)
            fault.args = (_SECRET.sub(r"\1...", str(fault)),)
            raise fault from None  # its own words name a URL that lets anyone go on uploading

    def _signed(self, request: Any) -> Any:
        """Put the token into a request; as `auth`, for else `requests` looks into ~/.netrc."""
        headers: dict[str, str] = {}
        self._credentials.apply(headers)
        request.headers.update(headers)
        return request

    def _content(self, answer: requests.Response) -> bytes:
        url, good = self._party.url, answer.status_code < 300
        limit = self._limit if good else 1 << 16
        length = length_of(answer)
        content = read_body(answer, limit + 1, self._limits, self._party)
        if good and len(content) > limit:
            raise OverLimit(f"{url}: {self._name} has over {limit} bytes")
        if good and length is not None and len(content) != length:
            raise Passing(f"{url} broke off {self._name} at byte {len(content)}")
        return content


def chunks(file: BinaryIO, size: int) -> Any:
    """A file that is sent in pieces, each of them in memory, so that it can be watched."""
    from googleapiclient.http import MediaIoBaseUpload

    class Chunks(MediaIoBaseUpload):  # type: ignore[misc]
        def has_stream(self) -> bool:
            return False

    return Chunks(file, "application/octet-stream", chunksize=size, resumable=True)
