"""What Drive's refusals mean: a 403 is too often, too full, or not yours. For `drive_api`."""

from __future__ import annotations

import json
from typing import Any

from ..errors import ArtcacheError, StoreDenied, StoreFull, StoreUnavailable
from .faults import Party, Passing, by_status, denied, seconds_of

_SIGN_IN = (
    "gcloud auth application-default login --client-id-file=CLIENT.json --scopes="
    "https://www.googleapis.com/auth/drive,https://www.googleapis.com/auth/cloud-platform"
)
ADVICE = (
    "sign in: in a notebook `from google.colab import auth; auth.authenticate_user()`; elsewhere"
    f" `{_SIGN_IN}`; or set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file"
)
_TOO_OFTEN = frozenset(
    "rateLimitExceeded userRateLimitExceeded sharingRateLimitExceeded backendError".split()
)
_FULL = frozenset(
    "storageQuotaExceeded teamDriveFileLimitExceeded numChildrenInNonRootLimitExceeded"
    " activeItemCreationLimitExceeded".split()
)
_USED_UP = frozenset("downloadQuotaExceeded dailyLimitExceeded quotaExceeded".split())
_NO_API = frozenset("accessNotConfigured SERVICE_DISABLED".split())
_NO_SCOPE = frozenset("insufficientPermissions ACCESS_TOKEN_SCOPE_INSUFFICIENT".split())


def answered(
    party: Party, name: str, answer: Any, content: bytes, *, writing: bool
) -> ArtcacheError:
    """The error for an answer that is none of the wanted ones.

    Args:
        answer: Its `status`, and its headers by lower-case names.
    """
    said, reasons = _said(content)
    status, after = int(answer.status), answer.get("retry-after")
    if reasons & _TOO_OFTEN:
        words = f"{party.url} asks for fewer requests ({said})"
        return Passing(words, after=seconds_of(after), busy=True)
    if reasons & _FULL:
        return StoreFull(f"{party.url} is full for {party.identity} ({said})", hint=_room(party))
    if reasons & _USED_UP:
        return StoreUnavailable(f"{party.url}: today's quota is used up ({said})")
    if "cannotDownloadAbusiveFile" in reasons:
        return StoreUnavailable(f"{party.url}: Drive takes {name} for malware ({said})")
    if reasons & _NO_API:
        hint = "switch it on: gcloud services enable drive.googleapis.com --project=PROJECT"
        words = f"{party.url}: the Drive API is off in the project of {party.identity} ({said})"
        return StoreDenied(words, hint=hint)
    if status == 403 and reasons & _NO_SCOPE:
        words = f"{party.url}: {party.identity} was not made for Drive ({said})"
        return StoreDenied(words, hint=ADVICE)
    if status == 403:
        return not_yours(party, said, writing=writing)
    if 300 <= status < 400:
        return StoreUnavailable(f"{party.url} answers {status}, which Drive does not")
    return by_status(party, name, status, said, after=after, writing=writing)


def not_yours(party: Party, said: str, *, writing: bool) -> StoreDenied:
    role = "Editor (in a Shared Drive: Content manager)" if writing else "Viewer"
    shared = f"share the folder with {party.identity} as {role}"
    return denied(Party(party.url, party.identity, shared), said, writing=writing)


def no_folder(party: Party, id: str, account: str) -> StoreUnavailable:
    return StoreUnavailable(
        f"{party.url}: there is no folder {id}, or {account} may not see it",
        hint="the id is the last part of the folder's address in the browser; share the folder"
        f" with {account}: as Viewer to read, as Editor to publish",
    )


def _room(party: Party) -> str:
    hint = "use a folder of a Shared Drive"
    if party.identity.startswith(("service account", "this machine's account")):
        return f"a service account has no space in My Drive: {hint}, or sign in as yourself"
    return f"empty the trash, buy space, or {hint}"


def _said(content: bytes) -> tuple[str, set[str]]:
    """The message and the reasons in an error's body, which may also be somebody's proxy's page."""
    try:
        error = json.loads(content)["error"]
        rows = [*error.get("errors", []), *error.get("details", [])]
        return str(error.get("message", "")), {str(row.get("reason", "")) for row in rows}
    except (ValueError, TypeError, KeyError, AttributeError):
        text = content[:300].decode(errors="replace")
        return ("" if text.lstrip().startswith("<") else text), set()
