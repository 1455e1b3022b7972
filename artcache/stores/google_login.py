"""Which Google credential is used, decided from files and the environment.

The order is Google's own, with two differences: nobody waits for a metadata
server that is not there, and no credential at all means anonymous, said aloud.
"""

from __future__ import annotations

import http.client
import os
import threading
import warnings
from pathlib import Path
from typing import Any

from ..errors import StoreDenied, UsageError
from .faults import Party, Passing

_DMI = Path("/sys/class/dmi/id/product_name")
_SPARE = 600.0
"""A token with fewer seconds left is renewed. gcsfs would do it below 300, on the event
loop, where it stops every other request."""
_METADATA_SECONDS = 1.0
_TOKEN_SECONDS = 10.0


class Login:
    """A credential, or none, and how to name it."""

    def __init__(self, credentials: Any, identity: str) -> None:
        self.credentials = credentials
        self.identity = identity
        self._lock = threading.Lock()

    @classmethod
    def find(cls, scope: str) -> Login:
        """Raises `UsageError` for a credentials file that cannot be used."""
        named = os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
        if named:
            return cls._from_file(Path(named), "GOOGLE_APPLICATION_CREDENTIALS", scope)
        default = cloud_folder() / "application_default_credentials.json"
        if default.is_file():
            return cls._from_file(default, "application default credentials", scope)
        if email := _metadata_account():
            from google.auth import compute_engine

            machine: Any = compute_engine
            return cls(machine.Credentials(), f"this machine's account {email}")
        return cls(None, "anonymous")

    @classmethod
    def _from_file(cls, path: Path, what: str, scope: str) -> Login:
        import google.auth
        import google.auth.exceptions

        auth: Any = google.auth  # it is typed in part
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about files from strangers; this is the user's
                credentials, _ = auth.load_credentials_from_file(str(path), scopes=[scope])
        except (google.auth.exceptions.GoogleAuthError, OSError, ValueError) as error:
            raise UsageError(
                f"{what}: {path} is no credentials file: {error}",
                hint=f"sign in anew, or take it away: mv {path} {path}.bad",
            ) from error
        email = getattr(credentials, "service_account_email", "")
        return cls(credentials, f"service account {email}" if email else f"{what} ({path})")

    def refresh(self, party: Party) -> None:
        """Have a token that lasts. On the calling thread, since it may take seconds.

        Raises:
            StoreDenied: the credential is no longer good.
            Passing: whoever issues tokens does not answer.
        """
        if self.credentials is None or self._lasts():
            return
        import google.auth.exceptions
        from google.auth.transport.requests import Request

        request: Any = Request()

        def quick(*args: Any, **kwargs: Any) -> Any:
            return request(*args, **{**kwargs, "timeout": _TOKEN_SECONDS})  # it would wait 120

        with self._lock:
            if self._lasts():
                return
            try:
                self.credentials.refresh(quick)
            except google.auth.exceptions.TransportError as error:
                raise Passing(
                    f"{party.url}: no new token for {self.identity}: {error}", hint=party.advice
                ) from error
            except google.auth.exceptions.GoogleAuthError as error:
                raise StoreDenied(
                    f"{party.url}: {self.identity} is no longer good: {error}", hint=party.advice
                ) from error

    def _lasts(self) -> bool:
        from datetime import datetime, timezone

        if not self.credentials.valid:
            return False
        expiry = self.credentials.expiry
        if expiry is None:
            return True
        left = expiry.replace(tzinfo=timezone.utc) - datetime.now(timezone.utc)
        return bool(left.total_seconds() > _SPARE)


def cloud_folder() -> Path:
    """Where gcloud keeps what it knows of this user."""
    return Path(os.environ.get("CLOUDSDK_CONFIG") or Path("~/.config/gcloud").expanduser())


def _metadata_account() -> str:
    """The account that a Google machine or notebook hands out, or ''.

    Asked only where there is reason to expect an answer, once, for a second.
    """
    host = os.environ.get("GCE_METADATA_HOST", "")
    if (
        os.environ.get("NO_GCE_CHECK", "").lower() == "true"
        and "COLAB_RELEASE_TAG" not in os.environ
    ):
        return ""
    if not host and "COLAB_RELEASE_TAG" not in os.environ:
        try:
            if not _DMI.read_text().startswith("Google"):
                return ""
        except OSError:
            return ""
    connection = http.client.HTTPConnection(host or "169.254.169.254", timeout=_METADATA_SECONDS)
    try:
        path = "/computeMetadata/v1/instance/service-accounts/default/email"
        connection.request("GET", path, headers={"Metadata-Flavor": "Google"})
        answer = connection.getresponse()
        if answer.status != 200 or answer.getheader("Metadata-Flavor") != "Google":
            return ""
        return answer.read(500).decode(errors="replace").strip()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()
