"""Stores by URL. The adapters are imported when one of theirs is opened."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

from ..errors import UsageError
from ..store import Store

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


def open_store(url: str) -> Store:
    """The store at `url`: a folder's path, or `file://` and one.

    Opening contacts nothing.

    Raises:
        UsageError: no adapter reads such URLs.
    """
    from .posix import PosixStore

    match = _SCHEME.fullmatch(url)
    if not match:
        return PosixStore(Path(url))
    scheme, rest = match[1].lower(), match[2]
    if scheme == "file":
        return PosixStore(Path("/" + unquote(rest).lstrip("/")))
    raise UsageError(
        f"{url!r}: no store is reached by {scheme}://",
        hint="a store is a folder: /content/drive/MyDrive/artcache or file:///mnt/cache",
    )
