"""Where Cloud Storage is and as whom we speak to it. For `gcs`.

gcsfs knows that too, and takes half a second to import: it is asked where something is
configured for it.
"""

from __future__ import annotations

import os
import ssl
import sys
import warnings
from pathlib import Path
from typing import Any

from .faults import Party
from .google_login import Login, cloud_folder

_SCOPE = "https://www.googleapis.com/auth/devstorage.read_write"


class Access:
    """Made on a calling thread, in the process that uses it."""

    def __init__(self) -> None:
        self._fs: Any = None
        self._login: Login | None = None
        self.base = _endpoint()
        self.tls: ssl.SSLContext | None = None
        """None: the machine's certificates, and none of our own."""
        if _is_configured():
            self._fs = self._connected()
            self._follow(self._fs)
        else:
            self._login = Login.find(_SCOPE)
            self.identity = self._login.identity

    def _follow(self, fs: Any) -> None:
        self.base = fs._location.rstrip("/")
        if getattr(fs, "_use_client_cert", False) and self.base.startswith("https://"):
            from gcsfs.core import _client_cert_ssl_context

            self.tls = _client_cert_ssl_context()

    def _connected(self) -> Any:
        # Without this gcsfs asks over gRPC for the kind of each bucket, for up to 109 s where
        # there is no answer (an emulator, a proxy).
        os.environ.setdefault("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of Google's libraries, about older Pythons
            import fsspec.config
            import gcsfs.core

        configured = {**fsspec.config.conf.get("gs", {}), **fsspec.config.conf.get("gcs", {})}
        options: dict[str, Any] = {
            "access": "read_write",
            "use_listings_cache": False,
            "skip_instance_cache": True,
        }
        if "token" in configured:
            self.identity = "the token in fsspec's configuration"
        else:
            self._login = Login.find(_SCOPE)
            self.identity = self._login.identity
            options["token"] = self._login.credentials or "anon"
        return gcsfs.core.GCSFileSystem(**options)

    def refresh(self, party: Party) -> None:
        """Have a token that lasts; see `Login.refresh`."""
        if self._login:
            self._login.refresh(party)

    def headers(self) -> dict[str, str]:
        """What a request bears."""
        headers = {"User-Agent": "artcache"}
        if self._login is None:
            headers.update(self._fs._get_headers(None))
        elif self._login.credentials:
            self._login.credentials.apply(headers)
        return headers

    def query(self, words: dict[str, str]) -> dict[str, str]:
        """A request's parameters: whose bill it goes to, added to these."""
        if self._fs is None:
            return words
        params: dict[str, str] = self._fs._get_params(words)
        return params


def _endpoint() -> str:
    """As gcsfs finds it."""
    emulator = os.environ.get("STORAGE_EMULATOR_HOST", "")
    if emulator not in ("", "default"):
        return (emulator if "://" in emulator else f"http://{emulator}").rstrip("/")
    return f"https://storage.{os.environ.get('GOOGLE_CLOUD_UNIVERSE_DOMAIN', 'googleapis.com')}"


def _is_configured() -> bool:
    """Whether somebody may have told fsspec something about Cloud Storage, or google-auth to
    show a certificate."""
    if any(name.startswith(("FSSPEC_G", "GOOGLE_API_")) for name in os.environ):
        return True
    told = getattr(sys.modules.get("fsspec.config"), "conf", {})
    if told.get("gs") or told.get("gcs"):
        return True
    files = Path(os.environ.get("FSSPEC_CONFIG_DIR") or Path("~/.config/fsspec").expanduser())
    return files.is_dir() or (cloud_folder() / "certificate_config.json").is_file()
