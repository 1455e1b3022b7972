"""Artifacts into one file and out of it, for machines that no network joins."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..layout import ROOT, root_object
from ..stores.archive import ArchiveStore, ArchiveWriter
from ..tier import Tier
from .choose import Chosen
from .send import COPIED, Moved, push

if TYPE_CHECKING:
    from ..cache import Cache

_CREATED = "1980-01-01T00:00:00Z"
"""In every archive: the same artifacts make the same bytes."""


def save(
    cache: Cache,
    chosen: Sequence[Chosen],
    file: Path,
    *,
    overwrite: bool = False,
    name: str = "",
) -> Iterator[Moved]:
    """Write artifacts of the home or a store into an archive.

    The file appears when the last one is in it; without any that fits there is none.

    Args:
        name: What the file is called towards the user; default: its path.

    Raises:
        Refused: the file exists and is not to be overwritten.
        LocalDisk: its disk is full or not ours.
    """
    with ArchiveWriter(file, overwrite=overwrite) as writer:
        writer.create(ROOT, root_object(_CREATED))
        saved = 0
        ordered = sorted(chosen, key=lambda one: (one.key.recipe, one.key.hash))
        for moved in push(cache, ordered, Tier(writer, url=name or writer.url), phase="save"):
            saved += moved.state == COPIED
            yield moved
        if saved:
            writer.finish()


def open_archive(file: Path) -> Tier:
    """An archive as a store to read from, all of whose members were looked at.

    Raises:
        BadArchive: it is damaged, or made to deceive.
        StoreUnavailable: there is no such file.
    """
    store = ArchiveStore(file)
    store.check()
    return Tier(store, url=store.url, writes=False)
