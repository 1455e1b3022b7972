"""Google Drive's API, version 3: verbs by id, each with its retries. For `gdrive`.

google-api-python-client makes the requests and resumes uploads; `drive_http` sends them.
"""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

from ..errors import ArtcacheError, StoreDenied, StoreUnavailable
from .bucket import MARK, Body
from .drive_faults import ADVICE, answered, no_folder, not_yours
from .drive_http import Transport, chunks
from .faults import Limits, Party, Passing, spanned
from .web import Sessions

if TYPE_CHECKING:
    from .google_login import Login

_Result = TypeVar("_Result")
FOLDER = "application/vnd.google-apps.folder"
_NATIVE = "application/vnd.google-apps."
"""Folders, shortcuts and documents that have no bytes."""
_SCOPE = "https://www.googleapis.com/auth/drive"
_FACTS = "id,name,mimeType,size,md5Checksum,createdTime,modifiedTime,appProperties,trashed"
_JSON_LIMIT = 32 << 20
_CHUNK = 8 << 20
"""Of a resumable upload; Drive wants multiples of 256 KiB."""
_ONE_REQUEST = 1 << 20
"""Up to this size an object is sent together with its name."""


class File(NamedTuple):
    """What Drive says of one file or folder."""

    id: str
    name: str
    created: str
    folder: bool
    size: int
    md5: str
    modified: float
    mark: str
    """Of the upload that made it: see `Body.mark`."""
    trashed: bool
    fillable: bool = True
    """A folder that takes new files from this credential."""

    @property
    def age(self) -> tuple[str, str]:
        """Sorts the oldest first, and for all readers alike."""
        return self.created, self.id

    @classmethod
    def of(cls, facts: dict[str, Any]) -> File:
        return cls(
            facts["id"],
            facts.get("name", ""),
            facts.get("createdTime", ""),
            facts.get("mimeType") == FOLDER,
            int(facts.get("size", 0)),
            facts.get("md5Checksum", ""),
            _seconds(facts.get("modifiedTime", "")),
            (facts.get("appProperties") or {}).get(MARK, ""),
            bool(facts.get("trashed")),
            (facts.get("capabilities") or {}).get("canAddChildren", True),
        )


class DriveApi:
    """Every method is tried again while its fault may pass, and raises our errors only."""

    def __init__(self, url: str, limits: Limits, endpoint: str = "") -> None:
        """Args:
        endpoint: In place of Google's own, for tests.
        """
        self.party = Party(url, "nobody", ADVICE)
        self._limits, self._endpoint = limits, endpoint
        self._sessions = Sessions(url)
        self._preparing = threading.Lock()
        self._login: Login | None = None
        self._service: Any = None
        self._pid = 0

    # -- verbs ----------------------------------------------------------------------------

    def children(self, parent: str, *, name: str = "", folders: bool | None = None) -> list[File]:
        """What lies in the folder `parent`, the oldest first; what is in the trash does not.

        Raises:
            ObjectNotFound: there is no such folder.
        """
        wanted = [f"'{parent}' in parents", "trashed = false"]
        if name:
            wanted.append(f"name = '{name}'")
        if folders is not None:
            wanted.append(f"mimeType {'=' if folders else '!='} '{FOLDER}'")
        words: dict[str, Any] = {
            "q": " and ".join(wanted),
            "spaces": "drive",
            "fields": f"nextPageToken,files({_FACTS})",
            "pageSize": 1000,
            "supportsAllDrives": True,
            "includeItemsFromAllDrives": True,
        }
        found: list[File] = []
        while True:
            page = self._persist(lambda service: service.files().list(**words), name or parent)
            found += [File.of(facts) for facts in page["files"] if _usable(facts, name)]
            words["pageToken"] = page.get("nextPageToken")
            if not words["pageToken"]:
                return sorted(found, key=lambda file: file.age)

    def facts(self, id: str) -> File:
        """Raises `ObjectNotFound`."""
        fields = f"{_FACTS},capabilities(canAddChildren)"
        words = {"fileId": id, "fields": fields, "supportsAllDrives": True}
        return File.of(self._persist(lambda service: service.files().get(**words), id))

    def read(
        self, file: File, name: str, *, limit: int = 0, span: tuple[int, int] | None = None
    ) -> bytes:
        """The whole file, checked against its MD5, or `span` (offset, length) of it."""

        def attempt(number: int) -> bytes:
            seen: dict[str, str] = {}
            request = self._prepared().files().get_media(fileId=file.id, supportsAllDrives=True)
            if span:
                request.headers["Range"] = f"bytes={span[0]}-{span[0] + span[1] - 1}"
            request.add_response_callback(lambda answer: seen.update(answer, status=answer.status))
            data: bytes = self._execute(request, name, limit=span[1] if span else limit)
            if not span:
                if len(data) != file.size or (file.md5 and Body(data).md5.hex() != file.md5):
                    raise Passing(f"{self.party.url} sent other bytes of {name} than it stores")
                return data
            if str(seen["status"]) != "206":
                raise Passing(f"{self.party.url} ignored the range that was asked for")
            spanned(self.party, name, seen.get("content-range", ""), *span)
            if len(data) != span[1]:
                raise Passing(f"{self.party.url} broke off {name} at byte {len(data)}")
            return data

        return self._sessions.persist(self._limits, attempt)

    def make_folder(self, name: str, parent: str) -> str:
        """Its id. A lost answer makes a second one, which readers take for the same."""
        body = {"name": name, "mimeType": FOLDER, "parents": [parent]}
        made = self._persist(
            lambda service: service.files().create(body=body, fields="id", supportsAllDrives=True),
            name,
            writing=True,
        )
        return str(made["id"])

    def upload(self, name: str, parent: str, body: Body) -> File:
        """Store a new file, also where another one has its name.

        Raises:
            ObjectNotFound: the folder is gone.
        """
        send = self._send_whole if body.size <= _ONE_REQUEST else self._send_chunks
        stored = send(name, parent, body)
        if (stored.size, stored.md5 or body.md5.hex()) != (body.size, body.md5.hex()):
            self.delete(stored.id, name)
            raise StoreUnavailable(f"{self.party.url} stored other bytes of {name} than were sent")
        return stored

    def move(self, id: str, name: str, old: str, new: str) -> None:
        """Give a file the name `name` in the folder `new`."""
        words = {"addParents": new, "removeParents": old, "supportsAllDrives": True}
        self._persist(
            lambda service: service.files().update(
                fileId=id, body={"name": name}, fields="id", **words
            ),
            name,
            writing=True,
        )

    def delete(self, id: str, name: str) -> None:
        """For good, or into the trash where only that is allowed. Raises `ObjectNotFound`."""
        words = {"fileId": id, "supportsAllDrives": True}
        try:
            self._persist(
                lambda service: service.files().delete(**words), name, writing=True, empty=True
            )
        except StoreDenied:
            self._persist(
                lambda service: service.files().update(
                    body={"trashed": True}, fields="id", **words
                ),
                name,
                writing=True,
            )

    def no_folder(self, id: str) -> StoreUnavailable:
        """There is none of that id for this credential; names the account to share it with."""
        return no_folder(self.party, id, self._account() or self.party.identity)

    def read_only(self) -> StoreDenied:
        return not_yours(self.party, "the folder takes no new files from it", writing=True)

    # -- uploads --------------------------------------------------------------------------

    def _send_whole(self, name: str, parent: str, body: Body) -> File:
        from googleapiclient.http import MediaInMemoryUpload

        with body.open() as file:
            media = MediaInMemoryUpload(file.read(), mimetype="application/octet-stream")

        def attempt(number: int) -> File:
            if number > 1:  # the answer to an earlier attempt may have been lost
                for file in self.children(parent, name=name, folders=False):
                    if file.mark == body.mark:
                        return file
            request = self._creation(name, parent, body, media)
            return File.of(self._object(self._execute(request, name, True)))

        return self._sessions.persist(self._limits, attempt, patience=float("inf"))

    def _send_chunks(self, name: str, parent: str, body: Body) -> File:
        with body.open() as file:
            media = chunks(file, _CHUNK)
            request = self._creation(name, parent, body, media)

            def next_chunk(number: int) -> dict[str, Any] | None:
                nonlocal request
                began = request.resumable_uri is not None
                try:
                    self._prepared()
                    done = self._answer(lambda http: request.next_chunk(http=http)[1], name, True)
                    return done if done is None else self._object(done)
                except ArtcacheError as error:
                    if began and _status(error) in (404, 410):
                        request = self._creation(name, parent, body, media)
                        raise Passing(f"{self.party.url} forgot an upload that it began") from error
                    raise

            # What was sent stays sent: each chunk has its own attempts. Drive may take less of one.
            for _ in range(20 + 4 * (body.size // _CHUNK)):
                done = self._sessions.persist(self._limits, next_chunk, patience=float("inf"))
                if done:
                    return File.of(done)
            raise StoreUnavailable(f"{self.party.url} takes no more of {name}")

    def _creation(self, name: str, parent: str, body: Body, media: Any) -> Any:
        facts = {"name": name, "parents": [parent], "appProperties": {MARK: body.mark}}
        return (
            self._prepared()
            .files()
            .create(body=facts, media_body=media, fields=_FACTS, supportsAllDrives=True)
        )

    # -- requests -------------------------------------------------------------------------

    def _persist(
        self,
        make: Callable[[Any], Any],
        name: str,
        *,
        writing: bool = False,
        empty: bool = False,
    ) -> dict[str, Any]:
        def attempt(number: int) -> dict[str, Any]:
            answer = self._execute(make(self._prepared()), name, writing)
            return {} if empty and not answer else self._object(answer)

        return self._sessions.persist(self._limits, attempt)

    def _object(self, answer: Any) -> dict[str, Any]:
        """What is no JSON comes as text from the library, be it cut or a hotel's welcome."""
        if not isinstance(answer, dict) or not {"id", "files", "user"} & answer.keys():
            raise Passing(f"{self.party.url} answers with something that is not Drive's")
        return answer

    def _execute(self, request: Any, name: str, writing: bool = False, *, limit: int = -1) -> Any:
        return self._answer(lambda http: request.execute(http=http), name, writing, limit=limit)

    def _answer(
        self,
        work: Callable[[Transport], _Result],
        name: str,
        writing: bool,
        *,
        limit: int = -1,
    ) -> _Result:
        """One attempt, with our errors only."""
        from googleapiclient.errors import Error, HttpError

        transport = self._transport(_JSON_LIMIT if limit < 0 else limit, name)
        try:
            return work(transport)
        except HttpError as error:
            ours = answered(self.party, name, error.resp, error.content, writing=writing)
            raise ours from error
        except (Error, ValueError, KeyError) as error:
            raise Passing(f"{self.party.url} answers as Drive does not: {error}") from error

    def _prepared(self) -> Any:
        """The service, with a credential that lasts. On the calling thread."""
        with self._preparing:
            if self._service is None or self._pid != os.getpid():
                self._connect()
            assert self._login
            self._login.refresh(self.party)
            return self._service

    def _connect(self) -> None:
        from .google_login import Login

        self._login = Login.find(_SCOPE)
        self.party = Party(self.party.url, self._login.identity, ADVICE)
        if self._login.credentials is None:
            raise StoreDenied(
                f"{self.party.url}: no Google credential was found, and Drive answers nobody"
                " without one",
                hint=ADVICE,
            )
        from googleapiclient import discovery, discovery_cache

        document = json.loads(discovery_cache.get_static_doc("drive", "v3"))
        if self._endpoint:
            document["rootUrl"] = self._endpoint.rstrip("/") + "/"
            document["baseUrl"] = document["rootUrl"] + document["servicePath"]
        if self._pid:  # the connections of the process that this one was forked from
            self._sessions = Sessions(self.party.url)
        self._service = discovery.build_from_document(document, http=self._transport(0, ""))
        self._pid = os.getpid()

    def _transport(self, limit: int, name: str) -> Transport:
        assert self._login
        session, credentials = self._sessions.mine(), self._login.credentials
        return Transport(session, credentials, self.party, self._limits, limit, name)

    def as_one(self) -> contextlib.AbstractContextManager[None]:
        """See `Sessions.as_one`."""
        return self._sessions.as_one()

    def abort(self) -> None:
        self._sessions.abort()

    def identify(self) -> str:
        self._prepared()
        return self.party.identity

    def _account(self) -> str:
        """The e-mail address behind the credential, as Drive knows it; '' if it does not say."""
        try:
            answer = self._execute(
                self._prepared().about().get(fields="user(emailAddress)"), "about"
            )
            return str(answer["user"]["emailAddress"])
        except (ArtcacheError, KeyError, TypeError):
            return ""


def _status(error: ArtcacheError) -> int:
    return int(getattr(getattr(error.__cause__, "resp", None), "status", 0))


def _usable(facts: dict[str, Any], name: str) -> bool:
    """Drive compares names more loosely than we; shortcuts and documents have no bytes."""
    kind = str(facts.get("mimeType", ""))
    return (not name or facts.get("name") == name) and (
        kind == FOLDER or not kind.startswith(_NATIVE)
    )


def _seconds(time: str) -> float:
    try:
        # Python 3.10 reads neither `Z` nor every number of digits.
        return datetime.fromisoformat(time[:19] + "+00:00").timestamp()
    except ValueError:
        return 0.0
