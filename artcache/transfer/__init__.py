"""An artifact from one place to another, checked on the way, the first there wins.

This file copies one from store to store; `choose` finds what is meant, `send` moves it
between the home and stores and tells what became of it, `archive` puts it into one file.
For the faces, and `copy` for those of `cache`'s rooms that fill a nearer store.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

from .. import digest
from ..disk import emptied
from ..errors import Corrupt
from ..frames import in_order, threads
from ..manifest import Frame, Manifest, Pack
from ..pack import Progress
from ..repository import Found, Published, Repository

_PIECE = 4 << 20
"""Bytes of one read from a store; a few are in memory at once."""


def copy(
    found: Found,
    source: Repository,
    target: Repository,
    staging: Path,
    *,
    progress: Progress = lambda count: None,
) -> Published:
    """Publish an artifact of one store in another, its manifest byte for byte.

    Nothing is read from `source` if `target` has the key already, whole or with
    other content.

    Args:
        staging: A folder on a disk with room for the packs, empty or with what
            `Repository.restore` kept.
        progress: Called with the stored bytes that were read since the last call.

    Raises:
        Corrupt: a byte is not what was published, twice in a row; it was quarantined
            in `source`, and `target` got nothing.
        StoreUnavailable: one of them does not answer; `target` shows nothing half-done.
        OSError: the disk; see `disk.disk_errors`.
    """
    if there := already(found.manifest, target):
        return there

    def read(into: Path) -> None:
        for number, pack in enumerate(found.manifest.packs):
            frames = [frame for frame in found.manifest.frames if frame.pack == number]
            _read_pack(source, pack, frames, into / pack.blake3, progress)

    packs = found.manifest.packs
    if not all(_is_whole(pack, staging / pack.blake3) for pack in packs):
        fresh = source.read_twice(found, lambda: emptied(staging / "read"), read)
        for pack in set(packs):
            (fresh / pack.blake3).replace(staging / pack.blake3)
        fresh.rmdir()
    return target.publish(found.manifest, lambda pack: staging / pack.blake3, found.data)


def already(manifest: Manifest, target: Repository) -> Published | None:
    """The artifact that the target has under this key; None if one must be sent.

    One that lost its packs is sent again if it is the same.
    """
    there = target.find(manifest.key)
    if not there:
        return None
    packs = there.manifest.packs
    if packs == manifest.packs and not target.holds(packs):
        return None
    return Published(target.url, False, there.manifest, target.store.traits.durable_on_return)


def _read_pack(
    source: Repository, pack: Pack, frames: Sequence[Frame], file: Path, progress: Progress
) -> None:
    """Copy a pack to `file` in bounded memory. Raises `Corrupt`, `ObjectNotFound`."""

    def piece(at: int) -> bytes:
        return source.fetch(pack, at, min(_PIECE, pack.length - at))

    def interrupted(kind: type[BaseException] | None, *rest: object) -> None:
        if kind is KeyboardInterrupt:
            source.abort()

    hasher = digest.blake3_hasher()
    workers = max(threads(), source.store.traits.parallel)
    with ExitStack() as stack:
        out = stack.enter_context(file.open("wb"))
        pool = stack.enter_context(ThreadPoolExecutor(workers))
        stack.push(interrupted)
        for data in in_order(pool, piece, range(0, pack.length, _PIECE), workers + 1):
            hasher.update(data)
            out.write(data)
            progress(len(data))
    if hasher.hexdigest() != pack.blake3:
        raise Corrupt(f"pack {pack.blake3[:12]}: its bytes are not those that were published")
    _check_frames(pack, frames, file)


def _is_whole(pack: Pack, file: Path) -> bool:
    hasher = digest.blake3_hasher()
    try:
        with file.open("rb") as stream:
            while piece := stream.read(_PIECE):
                hasher.update(piece)
    except FileNotFoundError:
        return False
    return hasher.hexdigest() == pack.blake3


def _check_frames(pack: Pack, frames: Sequence[Frame], file: Path) -> None:
    """A manifest may describe other frames than the pack has. Raises `Corrupt`."""
    handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC)

    def sound(frame: Frame) -> bool:
        return digest.blake3(os.pread(handle, frame.stored, frame.offset)) == frame.blake3

    try:
        with ThreadPoolExecutor(threads()) as pool:
            checked = in_order(pool, sound, frames, threads() + 1)
            for frame, good in zip(frames, checked, strict=True):
                if not good:
                    raise Corrupt(
                        f"pack {pack.blake3[:12]}: the {frame.stored} bytes at {frame.offset}"
                        " are not those that its manifest says"
                    )
    finally:
        os.close(handle)
