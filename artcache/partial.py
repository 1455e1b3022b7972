"""A tree that is being restored, and which of its frames are there: a cut restore goes on.

    <folder>/tree/     files, as far as they were written
    <folder>/frames    the boot in which that was, then a byte a frame: 1 once it is written

A frame is marked when its bytes were verified and written. What a mark says is
believed in the same boot only, since nothing was flushed, and proved again by
the files' digests. For `repository` and `restore`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from . import digest
from .disk import boot_id, emptied, remove_tree, spread, sweep
from .errors import Corrupt, LocalDisk
from .key import canonical_json
from .manifest import Manifest

KEPT = 7 * 24 * 3600.0
"""Seconds for which a restore that was cut can go on."""


class Partial:
    """One artifact's restore. Its caller holds the entry's lock until `close`."""

    def __init__(self, folder: Path, frames: int) -> None:
        """Take up what an earlier restore left in `folder`, which need not exist.

        Args:
            folder: Of this very tree, cut into these frames: they are counted, not compared.
            frames: How many the artifact has.
        """
        self.folder = folder
        self.tree = folder / "tree"
        self.stamps: list[int] = []
        """Of each file the modification time, in ns since the epoch, once all are there."""
        self._head = f"{boot_id()}\n".encode()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # so that nobody sweeps it
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        self._marks = os.open(folder / "frames", flags, 0o600)
        self.done = self._left(frames)
        if not any(self.done):
            self.afresh()

    def _left(self, frames: int) -> bytearray:
        left = os.pread(self._marks, len(self._head) + frames + 1, 0)
        known = len(self._head) > 1 and left.startswith(self._head) and self.tree.is_dir()
        marks = left[len(self._head) :] if known else b""
        return bytearray(marks.ljust(frames, b"\0") if len(marks) <= frames else frames)

    def mark(self, number: int) -> None:
        """The frame's bytes are written. Called from any thread."""
        os.pwrite(self._marks, b"\1", len(self._head) + number)

    def afresh(self) -> Path:
        """Forget what is there; the tree is an empty folder then."""
        os.ftruncate(self._marks, 0)
        emptied(self.tree)
        self.done = bytearray(len(self.done))
        os.pwrite(self._marks, self._head, 0)
        return self.tree

    def remove(self) -> None:
        remove_tree(self.folder)

    def close(self) -> None:
        os.close(self._marks)
        os.close(self._lock)


@contextlib.contextmanager
def resumable(top: Path, manifest: Manifest) -> Iterator[Partial]:
    """Where an artifact is restored to; what an earlier restore left there is used, also one
    from another store, where the same frames may lie in other packs.

    It stays if a store or the user cut the block. It goes if that ended well, the disk
    failed or the bytes are bad.

    Args:
        top: The home's folder of partials. What is too old there is removed.
    """
    top.mkdir(parents=True, exist_ok=True)
    spread(top)
    sweep(top, KEPT)
    key = f"{manifest.key.recipe}.{manifest.key.hash}"
    partial = Partial(top / f"{key}.{_tree_of(manifest)}", len(manifest.frames))
    try:
        yield partial
        with contextlib.suppress(OSError):
            os.unlink(partial.folder / "frames")  # its tree was moved away: now it is empty
        for name in os.listdir(top):
            if name.startswith(f"{key}."):  # also of other bytes under the same key
                remove_tree(top / name)
    except (OSError, LocalDisk, Corrupt):
        partial.remove()
        raise
    finally:
        partial.close()


def _tree_of(manifest: Manifest) -> str:
    """16 hex digits, the same for all manifests of one tree whose frames end at the same bytes."""
    files = manifest.files  # of which there may be many
    rows = ["\0".join([file.path for file in files]), "".join([file.xxh3 for file in files])]
    rows += ["".join(["x" if file.mode & 0o100 else "-" for file in files])]
    frames = [frame.raw for frame in manifest.frames]
    tree = canonical_json([manifest.links, manifest.dirs, frames])
    return digest.blake3("\n".join(rows).encode() + tree)[:16]
