"""Whether what a store lacks may still be on its way: a mounted Drive uploads in its own time.

For `repository`.
"""

from __future__ import annotations

import time

from .errors import ObjectNotFound
from .store import Store

_HOUR = 3600.0
"""Seconds after which nobody waits for an upload any more; half of it has been seen."""


def late(store: Store, manifest: str, failure: Exception) -> str:
    """Why a manifest whose pack is not there is no broken one yet; '' if it is.

    Drive uploads a small file before a large one, and shows other machines' files late.

    Args:
        manifest: The object's name.
        failure: What became of reading the pack.
    """
    if store.traits.exclusive_create or not isinstance(failure, ObjectNotFound):
        return ""
    for entry in store.list(manifest.rpartition("/")[0]):
        if entry.name == manifest and time.time() - entry.modified < _HOUR:
            return f"{failure}, though {manifest} is there: its upload may still be under way"
    return ""
