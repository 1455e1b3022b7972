"""A repository of the Hugging Face hub to read from: `hf://datasets/OWNER/NAME@REVISION/folder`.

A file is one request to its `resolve` address, as over any https; a folder is listed by the hub's
API. huggingface_hub's own file system lists before each first read, keeps what it listed, reads
megabytes for a range of a thousand bytes, and does not look which bytes it got.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, unquote

from ..errors import ArtcacheError, ObjectNotFound, StoreDenied, StoreUnavailable, UsageError
from ..store import StoredObject, StoreTraits, checked_name
from .faults import Limits, Party, Passing, by_status
from .http import HttpStore
from .web import Sessions

if TYPE_CHECKING:
    import requests

_URL = re.compile(
    r"(?:(datasets|spaces|models)/)?((?!(?:datasets|spaces|models)/)[A-Za-z0-9][\w.-]*/[\w.-]+)(?:@([^/]+))?(?:/(.*))?",
    re.ASCII,
)
_LISTING = 64 << 20
"""Bytes of one page of a listing, at most."""


class HfStore(HttpStore):
    def __init__(self, url: str, *, limits: Limits | None = None) -> None:
        """Raises `UsageError` for a URL that names no repository."""
        match = _URL.fullmatch(url.partition("://")[2].rstrip("/"))
        folder = match[4] or "" if match else ""
        if not match or not _is_folder(folder):
            raise UsageError(
                f"{url!r} names no repository of the Hugging Face hub",
                hint="write it like hf://datasets/owner/name/folder or hf://datasets/owner/name@v1",
            )
        self._kind, self._repository = match[1] or "models", match[2]
        self._revision = unquote(match[3] or "main")
        self._folder = f"{folder}/" if folder else ""
        self._hub = os.environ.get("HF_ENDPOINT", "https://huggingface.co").rstrip("/")
        kind = "" if self._kind == "models" else f"{self._kind}/"
        revision = quote(self._revision, safe="")
        path = f"{kind}{self._repository}/resolve/{revision}/{quote(self._folder)}"
        super().__init__(f"{self._hub}/{path}", limits=limits)
        self._api = f"{self._hub}/api/{self._kind}/{self._repository}"
        self._url, self._sessions = url, Sessions(url)
        token = _token()
        self._auth = _Bearer(token) if token else None
        self._party = Party(url, "the token in use" if token else "anonymous", _advice(token))
        self._changed = 0.0

    @property
    def traits(self) -> StoreTraits:
        return super().traits._replace(lists=True)

    @property
    def identity(self) -> str:
        return self._party.identity

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """Each with the time of the repository's last commit: the hub keeps no other cheaply."""
        path = self._folder + checked_name(prefix)
        revision = quote(self._revision, safe="")
        page: str | None = f"{self._api}/tree/{revision}/{quote(path, safe='')}?recursive=true"
        while page:
            try:
                rows, page = self._page(page, prefix)
            except ObjectNotFound:
                return
            for row in rows:
                if row.get("type") == "file" and row["path"].startswith(f"{path}/"):
                    name = row["path"].removeprefix(self._folder)
                    yield StoredObject(name, int(row["size"]), self._last_commit())

    # -- inside ---------------------------------------------------------------------------

    def _refuse(self, name: str) -> None:
        checked_name(name)
        kind = "" if self._kind == "models" else f" --repo-type {self._kind.removesuffix('s')}"
        raise StoreDenied(
            f"{self._url} can only be read",
            hint=f"configure it as read-only: read:{self._url}; fill it with a store's folder:"
            f" hf upload {self._repository} FOLDER {self._folder or '.'}{kind}",
        )

    def _page(self, url: str, name: str) -> tuple[Any, str | None]:
        """The rows of a listing's page, and the next page's address."""

        def attempt(number: int) -> tuple[Any, str | None]:
            with self._send("GET", url, name) as answer:
                rows = _parsed(self._body(answer, name, _LISTING), self._url)
                following = answer.links.get("next", {}).get("url")
            if following and not following.startswith(f"{self._hub}/"):
                raise StoreUnavailable(f"{self._url} continues its listing on another server")
            return rows, following

        return self._persistently(attempt)

    def _last_commit(self) -> float:
        if not self._changed:
            facts, _ = self._page(f"{self._api}/revision/{quote(self._revision, safe='')}", "/")
            with contextlib.suppress(ValueError, TypeError, KeyError):
                # Python 3.10 reads neither `Z` nor every number of digits.
                date = f"{facts['lastModified'][:19]}+00:00"
                self._changed = datetime.fromisoformat(date).timestamp()
        return self._changed

    def _failed(
        self, answer: requests.Response, name: str, status: int, said: str
    ) -> ArtcacheError:
        code = answer.headers.get("X-Error-Code", "")
        who, repository = self._party.identity, f"{self._kind}/{self._repository}"
        if status == 401 or code == "RepoNotFound":
            words = f"{self._url}: there is no {repository}, or {who} may not see it"
            return StoreDenied(words, hint=self._party.advice)
        if code == "GatedRepo":
            page = self._base.partition("/resolve/")[0]
            words = f"{self._url}: {repository} is only for those who accepted its terms"
            return StoreDenied(words, hint=f"do so at {page}; {self._party.advice}")
        if code == "RevisionNotFound":
            return StoreUnavailable(
                f"{self._url}: {repository} has no revision {self._revision}",
                hint="a branch, a tag or a commit; with / in it written as %2F",
            )
        after = answer.headers.get("Retry-After")
        return by_status(self._party, name, status, said, after=after)


class _Bearer:
    """For `requests`, which drops it where it is sent on to another host."""

    def __init__(self, token: str) -> None:
        self._token = token

    def __call__(self, request: Any) -> Any:
        request.headers["Authorization"] = f"Bearer {self._token}"
        return request


def _advice(token: str) -> str:
    if token:
        return "check the repository's name, and whom the token (HF_TOKEN) belongs to"
    return "check the repository's name; a private one needs `hf auth login` or HF_TOKEN"


def _token() -> str:
    """Where huggingface_hub would find it; a public repository needs none."""
    if token := os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return token.strip()
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    file = Path(os.environ.get("HF_TOKEN_PATH") or f"{home}/token").expanduser()
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return file.read_text().strip()
    return ""


def _is_folder(path: str) -> bool:
    try:
        return not path or bool(checked_name(path))
    except UsageError:
        return False


def _parsed(data: bytes, url: str) -> Any:
    try:
        return json.loads(data)
    except ValueError:
        raise Passing(f"{url} answers with something that is no JSON") from None
