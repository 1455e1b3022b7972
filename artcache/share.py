"""Publishing what is new only: frames that earlier artifacts hold are named, and not sent again.

    v1/recent/<recipe>/<time>-<hash>.json    a hint: what was published last

Frames are equal if their stored bytes have one BLAKE3, so nothing is believed
of an earlier artifact but where it lies. For `builder` and `transfer`.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from . import digest
from .errors import ArtcacheError, Corrupt, ObjectNotFound
from .key import Key
from .layout import manifest_name, recent_folder
from .listing import each
from .manifest import Frame, Manifest, Pack
from .repository import Published, Repository

_LOOKED_AT = 8
"""Earlier artifacts."""
_PACKS = 8
"""Earlier packs that one artifact may name: each is one more that can get lost."""
_WORTH = 20
"""Packs are shared if that saves at least one stored byte in so many."""
_LEAST = 1 << 20
"""Bytes of a pack below which nobody looks: the questions would take longer."""
_HINTS = 16
"""That stay in a recipe's folder; who publishes removes older ones."""
_LISTED = 1000
_PROVED = 8
"""Frames of each earlier pack that are read to see whether it is sound, on a far store."""
_PIECE = 1 << 20


class _Place(NamedTuple):
    """Where a frame's stored bytes lie."""

    pack: Pack
    offset: int
    stored: int


class _Lean(NamedTuple):
    """An artifact of which a store holds a part."""

    manifest: Manifest
    there: frozenset[Pack]


class _Gone(Exception):
    """An earlier pack went away while an artifact that names it was published."""


def publish(repository: Repository, manifest: Manifest, pack_file: Path) -> Published:
    """Store an artifact that has one pack, or none, with as few new bytes as possible.

    Args:
        pack_file: The pack's local file. Another one is made beside it, and removed.

    Raises:
        StoreUnavailable: it could not be stored; nothing half-done is visible.
    """
    if sum(pack.length for pack in manifest.packs) < _LEAST:
        return repository.publish(manifest, lambda _: pack_file)
    new_file = pack_file.with_name(f"{pack_file.name}.new")
    try:
        done = _publish_lean(repository, manifest, pack_file, new_file)
    finally:
        with contextlib.suppress(OSError):
            new_file.unlink()
    done = done or repository.publish(manifest, lambda _: pack_file)
    if done.first:
        with contextlib.suppress(ArtcacheError):
            _remember(repository, manifest.key)
    return done


def _publish_lean(
    repository: Repository, manifest: Manifest, pack_file: Path, new_file: Path
) -> Published | None:
    """None if the store holds nothing worth naming, or not any more."""
    try:
        lean = _lean(repository, manifest, pack_file, new_file)
    except (ArtcacheError, OSError):  # no room for a second pack; or the publish will tell
        return None
    if lean is None:
        return None

    def file_of(pack: Pack) -> Path:
        if pack in lean.there:
            raise _Gone
        return new_file

    try:
        return repository.publish(lean.manifest, file_of, there=lean.there)
    except _Gone:
        data = lean.manifest.to_bytes()
        unique = "" if repository.store.traits.exclusive_create else digest.blake3(data)
        repository.store.delete(manifest_name(manifest.key, unique))
        return None


def _lean(
    repository: Repository, manifest: Manifest, pack_file: Path, new_file: Path
) -> _Lean | None:
    earlier = _places(_recent(repository, manifest.key))
    held = {
        frame.blake3: earlier[frame.blake3]
        for frame in manifest.frames
        if frame.blake3 in earlier and earlier[frame.blake3].stored == frame.stored
    }
    chosen = _chosen(repository, held)
    saved = sum(place.stored for place in held.values() if place.pack in chosen)
    if saved * _WORTH < max(1, manifest.packs[0].length):
        return None
    new = [f for f in manifest.frames if f.blake3 not in held or held[f.blake3].pack not in chosen]
    packs = [*chosen]
    offsets: dict[str, int] = {}
    if new:
        made, offsets = _copied(new, pack_file, new_file)
        packs.append(made)
    frames = []
    for frame in manifest.frames:
        if (offset := offsets.get(frame.blake3)) is not None:
            frames.append(frame._replace(pack=len(chosen), offset=offset))
        else:
            place = held[frame.blake3]
            frames.append(frame._replace(pack=chosen.index(place.pack), offset=place.offset))
    return _Lean(manifest._replace(packs=tuple(packs), frames=tuple(frames)), frozenset(chosen))


def _places(manifests: Iterable[Manifest]) -> dict[str, _Place]:
    """Where earlier artifacts say that frames lie, by their BLAKE3; the newest goes before."""
    found: dict[str, _Place] = {}
    for manifest in manifests:
        for frame in manifest.frames:
            pack = manifest.packs[frame.pack]
            found.setdefault(frame.blake3, _Place(pack, frame.offset, frame.stored))
    return found


def _chosen(repository: Repository, held: Mapping[str, _Place]) -> list[Pack]:
    """The packs that hold most, of those that are sound."""
    weights: Counter[Pack] = Counter()
    for place in held.values():
        weights[place.pack] += place.stored
    heaviest = [pack for pack, _ in weights.most_common(_PACKS)]
    return [
        pack
        for pack in heaviest
        if _is_sound(repository, pack, [one for one in held.items() if one[1].pack == pack])
    ]


def _is_sound(repository: Repository, pack: Pack, places: Sequence[tuple[str, _Place]]) -> bool:
    """Whether the pack is there, and what was found in it: all on a disk, some on a far store."""
    if not repository.holds([pack]):
        return False
    traits = repository.store.traits
    near = traits.shared_disk and traits.durable_on_return  # a mounted Drive is far
    try:
        for blake3, place in places if near else places[:: max(1, len(places) // _PROVED)]:
            if digest.blake3(repository.lend(pack, place.offset, place.stored)) != blake3:
                return False
    except (Corrupt, ObjectNotFound):
        return False
    return True


def _copied(
    frames: Iterable[Frame], pack_file: Path, new_file: Path
) -> tuple[Pack, dict[str, int]]:
    """A pack of some of a pack's frames, and where in it each BLAKE3 lies."""
    hasher, offsets, length = digest.blake3_hasher(), {}, 0
    with pack_file.open("rb") as source, new_file.open("wb") as out:
        for frame in frames:
            if frame.blake3 in offsets:
                continue
            offsets[frame.blake3] = length
            source.seek(frame.offset)
            for at in range(0, frame.stored, _PIECE):
                data = source.read(min(_PIECE, frame.stored - at))
                hasher.update(data)
                out.write(data)
            length += frame.stored
    return Pack(hasher.hexdigest(), length), offsets


# -- hints --------------------------------------------------------------------------------


def _recent(repository: Repository, key: Key) -> list[Manifest]:
    """The recipe's artifacts that were published last, the newest first."""
    folder = recent_folder(key.recipe)

    def read(name: str) -> Manifest | None:
        with contextlib.suppress(ArtcacheError, ValueError, RecursionError):
            other = Key(json.loads(repository.store.get(name, limit=1 << 16)))
            if other.recipe == key.recipe and other != key and (found := repository.find(other)):
                return found.manifest
        return None

    names = sorted(_hints(repository, folder))[:_LOOKED_AT]
    return [manifest for manifest in each(repository, read, names) if manifest]


def _hints(repository: Repository, folder: str) -> Iterator[str]:
    for found in islice(repository.store.list(folder), _LISTED):
        yield found.name


def _remember(repository: Repository, key: Key) -> None:
    folder = recent_folder(key.recipe)
    age = (1 << 40) - int(time.time())  # so that the names' order is that of the newest first
    repository.store.create(f"{folder}/{age:010x}-{key.hash}.json", key.canonical)
    for name in sorted(_hints(repository, folder))[_HINTS:]:
        repository.store.delete(name)
