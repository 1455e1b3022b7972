"""Stores by URL. The adapters are imported when one of theirs is opened."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote

from ..errors import UsageError
from ..store import ARCHIVE, Store

if TYPE_CHECKING:
    from .faults import Limits

GDRIVE_ENDPOINT = "ARTCACHE_GDRIVE_ENDPOINT"
"""Whatever speaks Drive's API, in place of Google's: Google itself has no such variable."""
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def open_store(url: str, *, limits: Limits | None = None) -> Store:
    """The store at `url`: a folder's path or `file://`, `gs://`, `s3://`, `gdrive://`, or to be
    read only `https://`, `hf://` and an archive (a path that ends in `.artcache`).

    Opening contacts nothing.

    Args:
        limits: How long a server may keep us waiting, where there is one.

    Raises:
        UsageError: no adapter reads such URLs.
    """
    match = _SCHEME.fullmatch(url)
    if not match:
        return _folder(url)
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return _folder("/" + unquote(rest).lstrip("/"))
    if scheme in ("gs", "gcs"):
        return _gcs(rest, url, limits)
    if scheme == "s3":
        return _s3(rest, url, limits)
    if scheme == "gdrive":
        return _gdrive(rest, url, limits)
    if scheme == "hf":
        from .hf import HfStore

        return HfStore(url, limits=limits)
    if scheme in ("https", "http"):
        from .http import HttpStore

        return HttpStore(url, limits=limits)
    raise UsageError(
        f"{url!r}: no store is reached by {scheme}://",
        hint="a store is a folder (/content/drive/MyDrive/artcache), gs://bucket/folder,"
        " s3://bucket/folder, gdrive://FOLDER-ID/folder, or read-only https://host/folder,"
        " hf://datasets/owner/name and FILE.artcache",
    )


def _folder(path: str) -> Store:
    if path.endswith(ARCHIVE) and not os.path.isdir(path):
        from .archive import ArchiveStore

        return ArchiveStore(Path(path))
    from .posix import PosixStore

    return PosixStore(Path(path))


def _gcs(rest: str, url: str, limits: Limits | None) -> Store:
    _need("gcsfs", "gcs", url)
    from .faults import Limits
    from .gcs import GcsBucket
    from .remote import RemoteStore, split

    bucket, prefix = split("gs", rest, url)
    limits = limits or Limits()
    return RemoteStore(url, GcsBucket(bucket, url, limits), prefix, limits=limits)


def _s3(rest: str, url: str, limits: Limits | None) -> Store:
    _need("s3fs", "s3", url)
    from .faults import Limits
    from .remote import RemoteStore, split
    from .s3 import Place, S3Bucket

    rest, _, query = rest.partition("?")
    bucket, prefix = split("s3", rest, url)
    limits, place = limits or Limits(), Place.parse(query, url)
    return RemoteStore(url, S3Bucket(bucket, url, limits, place), prefix, limits=limits)


def _gdrive(rest: str, url: str, limits: Limits | None) -> Store:
    _need("googleapiclient", "gdrive", url)
    from .gdrive import GDriveStore, split

    folder, prefix = split(rest, url)
    endpoint = os.environ.get(GDRIVE_ENDPOINT, "")
    return GDriveStore(url, folder, prefix, limits=limits, endpoint=endpoint)


def _need(module: str, extra: str, url: str) -> None:
    """Say what to install before anything is asked of the store."""
    from importlib.util import find_spec

    if find_spec(module) is None:
        raise UsageError(
            f"{url} is reached through {module}, which is not installed",
            hint=f"pip install 'artcache[{extra}]'",
        )
