"""`Manifest`: what an artifact is, as canonical JSON. Exact bytes in, exact bytes out.

docs/format.md specifies the bytes for readers in other languages. Everything
that comes from a store passes `Manifest.from_bytes`, which believes nothing:
limits, canonical form, the key's hash, safe paths and a gapless cover of the
files by frames are all checked before any caller sees a field.
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn

from .errors import ArtcacheError, Corrupt, InvalidKey, NewerFormat, OverLimit
from .key import Key, canonical_json
from .needs import Needs

FORMAT = 1
READER = "0.1"
"""The oldest artcache that reads `FORMAT`; stands in every manifest for those that don't."""

MAX_BYTES = 256 << 20
MAX_FILES = 2_000_000
MAX_FRAME = 64 << 20
"""Bytes; writers stay at `pack.FRAME`, readers take no more than this into memory at once."""
MAX_TOTAL = 1 << 44
MAX_PATH = 4095
"""Bytes of a path or a link's target: what Linux takes."""
MAX_PART = 255
"""Bytes of a name."""
MAX_DEPTH = 64
"""Objects and arrays in each other in `provenance`, itself counted."""

MODES = {"0644": 0o644, "0755": 0o755}
_MODE_NAMES = {mode: name for name, mode in MODES.items()}
_XXH3 = re.compile(r"[0-9a-f]{32}")
_HEX = re.compile(r"[0-9a-f]*")
_BLAKE3 = re.compile(r"[0-9a-f]{64}")
_VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){0,3}")
_MEMBERS = frozenset(
    "artcache reader key hash files links dirs packs frames needs provenance".split()
)


class File(NamedTuple):
    path: str
    """Relative, `/`-separated."""
    mode: int
    """0o644 or 0o755."""
    size: int
    """Bytes."""
    xxh3: str


class Link(NamedTuple):
    path: str
    target: str
    """Relative to the link's own folder, and inside the tree."""


class Pack(NamedTuple):
    blake3: str
    length: int


class Frame(NamedTuple):
    """A run of the files' concatenated bytes. `stored == raw`: verbatim, else one zstd frame."""

    pack: int
    """Index into `Manifest.packs`."""
    offset: int
    stored: int
    raw: int
    blake3: str
    """Of the stored bytes."""


class Manifest(NamedTuple):
    """Rows are sorted by path. Without packs it describes a tree that was never packed."""

    key: Key
    files: tuple[File, ...]
    links: tuple[Link, ...] = ()
    dirs: tuple[str, ...] = ()
    """Folders that hold nothing; all others follow from the paths."""
    packs: tuple[Pack, ...] = ()
    frames: tuple[Frame, ...] = ()
    needs: Needs = Needs()
    provenance: Mapping[str, Any] = MappingProxyType({})

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(file.size for file in self.files)

    @property
    def packed(self) -> bool:
        return bool(self.frames) or self.size == 0

    @property
    def build_seconds(self) -> float:
        """How long the build took, 0.0 if nobody recorded it."""
        recorded = self.provenance.get("milliseconds", 0)
        return recorded / 1000 if isinstance(recorded, int) else 0.0

    def to_bytes(self) -> bytes:
        return canonical_json(
            {
                "artcache": FORMAT,
                "reader": READER,
                "key": self.key.fields,
                "hash": self.key.hash,
                "files": [[f.path, _MODE_NAMES[f.mode], f.size, f.xxh3] for f in self.files],
                "links": self.links,
                "dirs": self.dirs,
                "packs": self.packs,
                "frames": self.frames,
                "needs": self.needs.to_json(),
                "provenance": dict(self.provenance),
            }
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Manifest:
        """Parse and check.

        Raises:
            NewerFormat: written by a newer artcache.
            OverLimit: larger than this version handles.
            Corrupt: anything else that is not as docs/format.md says.
        """
        if len(data) > MAX_BYTES:
            raise OverLimit(f"a manifest of {len(data)} bytes; at most {MAX_BYTES} are read")
        body = _parsed(data)
        try:
            manifest = cls(
                key=_key(body),
                files=_files(body),
                links=tuple(map(Link, *_columns(body, "links", str, str))),
                dirs=tuple(_typed(_rows(body, "dirs"), *[str] * len(body["dirs"]))),
                packs=tuple(map(Pack, *_columns(body, "packs", str, int))),
                frames=tuple(map(Frame, *_columns(body, "frames", int, int, int, int, str))),
                needs=Needs.from_json(_mapping(body, "needs")),
                provenance=_mapping(body, "provenance"),
            )
        except ArtcacheError:
            raise
        except (KeyError, TypeError, ValueError) as error:
            _bad(f"a field is missing or of the wrong kind ({error})")
        manifest.check()
        return manifest

    def check(self) -> None:
        """Raises `Corrupt` or `OverLimit` unless paths are safe and frames cover the files."""
        if len(self.files) + len(self.links) + len(self.dirs) > MAX_FILES:
            raise OverLimit(f"more than {MAX_FILES} files")
        if self.size > MAX_TOTAL:
            raise OverLimit(f"{self.size} bytes of files; at most {MAX_TOTAL} are handled")
        if _too_deep(self.provenance, MAX_DEPTH):
            raise OverLimit(f"provenance that nests deeper than {MAX_DEPTH}")
        check_paths(
            [file.path for file in self.files],
            [(link.path, link.target) for link in self.links],
            self.dirs,
        )
        sizes, digests = [file.size for file in self.files], [file.xxh3 for file in self.files]
        lengths = set(map(len, digests)) <= {32}
        if not (lengths and _HEX.fullmatch("".join(digests)) and min(sizes, default=0) >= 0):
            named = next(f for f in self.files if f.size < 0 or not _XXH3.fullmatch(f.xxh3))
            _bad(f"the size or digest of {named.path!r} is none")
        if self.frames or self.packs:
            _check_frames(self.packs, self.frames, self.size)


def check_paths(
    files: Sequence[str], links: Sequence[tuple[str, str]], dirs: Sequence[str]
) -> None:
    """Raises `Corrupt` unless every path stays in the tree and no two entries collide.

    Each list must be sorted by code point and free of repeats; no entry may lie
    below a file or a link, so nothing is ever written through a link.
    """
    link_paths = [path for path, _ in links]
    for name, paths in (("files", files), ("links", link_paths), ("dirs", dirs)):
        if any(map(operator.ge, paths, paths[1:])):
            _bad(f"{name} are not sorted or repeat a path")
    leaves = {*files, *link_paths}
    if len(leaves) != len(files) + len(links) or leaves.intersection(dirs):
        _bad("two entries have one path")
    every = [*files, *link_paths, *dirs]
    if not _plainly_sound(every):
        for path in every:
            _check_path(path)
    parents: set[str] = set()
    for folder in {path.rpartition("/")[0] for path in every} - {""}:
        parents.add(folder)
        parents.update(_parents_of(folder, parents))
    if clash := parents & leaves:
        _bad(f"{min(clash)!r} is both a file and a folder")
    if clash := parents.intersection(dirs):
        _bad(f"{min(clash)!r} is listed as empty and is not")
    for path, target in links:
        _check_target(path, target, leaves)


def _plainly_sound(paths: Sequence[str]) -> bool:
    """True if `_check_path` passes each of these, found out for all at once; else who knows."""
    together = "\0".join(paths)
    parts = f"/{together}/".replace("\0", "/")
    return (
        together.isascii()
        and together.count("\0") == max(len(paths) - 1, 0)
        and max(map(len, paths), default=0) <= MAX_PART
        and not any(bad in parts for bad in ("//", "/./", "/../"))
    )


def _check_path(path: str) -> None:
    parts = path.split("/")
    if (
        not path
        or len(path.encode()) > MAX_PATH
        or "\0" in path
        or any(part in ("", ".", "..") or len(part.encode()) > MAX_PART for part in parts)
    ):
        _bad(f"{path!r} is no path inside a tree")


def _check_target(path: str, target: str, leaves: Collection[str]) -> None:
    """The target, followed from the link's folder, stays inside.

    No `..` may come after another link: it would lead on from where that one leads.
    """
    sound = bool(target) and target[0] != "/" and "\0" not in target
    place, through = path.split("/")[:-1], False
    for part in target.split("/"):
        if part == "..":
            sound = sound and bool(place) and not through
            place = place[:-1]
        elif part not in ("", "."):
            place.append(part)
            through = through or "/".join(place) in leaves
    if not sound or len(target.encode()) > MAX_PATH:
        _bad(f"the link {path!r} leaves the tree: {target!r}")


def _parents_of(path: str, known: set[str]) -> Iterable[str]:
    while "/" in path:
        path = path.rpartition("/")[0]
        if path in known:
            return
        yield path


def _check_frames(packs: Sequence[Pack], frames: Sequence[Frame], size: int) -> None:
    for pack in packs:
        if not _BLAKE3.fullmatch(pack.blake3) or not 0 <= pack.length <= MAX_TOTAL:
            _bad(f"a pack is called {pack.blake3!r} and has {pack.length} bytes")
    for number, frame in enumerate(frames):
        if not 0 <= frame.pack < len(packs) or not _BLAKE3.fullmatch(frame.blake3):
            _bad(f"frame {number} names no pack or has no digest")
        if not 0 < frame.stored <= frame.raw:
            _bad(f"frame {number} has {frame.stored} bytes for {frame.raw}")
        if frame.raw > MAX_FRAME:
            raise OverLimit(f"a frame of {frame.raw} bytes; at most {MAX_FRAME} are read")
        if not 0 <= frame.offset <= packs[frame.pack].length - frame.stored:
            _bad(f"frame {number} lies outside its pack")
    if sum(frame.raw for frame in frames) != size:
        _bad("the frames do not add up to the files")


def _too_deep(value: object, left: int) -> bool:
    if not isinstance(value, (Mapping, list)):
        return False
    inner = value.values() if isinstance(value, Mapping) else value
    return left == 0 or any(_too_deep(item, left - 1) for item in inner)


def _parsed(data: bytes) -> dict[str, Any]:
    try:
        body = json.loads(data, parse_float=_no_float, parse_constant=_no_float)
    except (ValueError, RecursionError) as error:
        _bad(str(error))
    if not isinstance(body, dict) or type(body.get("artcache")) is not int:
        _bad("no format number")
    # From a stranger's file into a line that the user may type: nothing but digits and dots.
    reader = body.get("reader")
    sound = isinstance(reader, str) and _VERSION.fullmatch(reader)
    if body["artcache"] > FORMAT:
        raise NewerFormat(
            f"a manifest of format {body['artcache']}; this artcache reads up to {FORMAT}",
            hint="pip install -U " + (f"'artcache>={reader}'" if sound else "artcache"),
        )
    if body["artcache"] != FORMAT or body.keys() != _MEMBERS or not sound:
        _bad(f"its members are not those of format {FORMAT}")
    try:
        exact = canonical_json(body) == data
    except (ValueError, RecursionError):  # a lone surrogate
        exact = False
    if not exact:
        _bad("it is not in canonical form")
    return body


def _key(body: Mapping[str, Any]) -> Key:
    try:
        key = Key(_mapping(body, "key"))
    except InvalidKey as error:
        _bad(str(error))
    if canonical_json(key.fields) != canonical_json(body["key"]):
        _bad("a list in its key is not sorted")
    if key.hash != body["hash"]:
        _bad(f"its fields hash to {key.hash}, it says {body['hash']!r}")
    return key


def _files(body: Mapping[str, Any]) -> tuple[File, ...]:
    paths, modes, sizes, digests = _columns(body, "files", str, str, int, str)
    return tuple(map(File, paths, map(MODES.__getitem__, modes), sizes, digests))


def _columns(body: Mapping[str, Any], name: str, *kinds: type) -> list[tuple[Any, ...]]:
    """A table's columns, each of one kind: a row at a time takes four times as long."""
    rows = _rows(body, name)
    if set(map(type, rows)) <= {list} and set(map(len, rows)) <= {len(kinds)}:
        columns = list(zip(*rows, strict=True)) or [()] * len(kinds)
        if all(
            set(map(type, column)) <= {kind} for column, kind in zip(columns, kinds, strict=True)
        ):
            return columns
    for row in rows:
        _typed(row, *kinds)
    raise TypeError(name)


def _typed(row: Any, *kinds: type) -> list[Any]:
    if not isinstance(row, list) or len(row) != len(kinds):
        raise TypeError(f"{row!r:.80}")
    for value, kind in zip(row, kinds, strict=True):
        if type(value) is not kind:
            raise TypeError(f"{value!r:.80}")
    return row


def _rows(body: Mapping[str, Any], name: str) -> list[Any]:
    if not isinstance(body[name], list):
        raise TypeError(name)
    return list(body[name])


def _mapping(body: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(body[name], dict):
        raise TypeError(name)
    return dict(body[name])


def _no_float(text: str) -> NoReturn:
    raise ValueError(f"{text} is a number that manifests do not hold")


def _bad(why: str) -> NoReturn:
    raise Corrupt(f"not a sound manifest: {why}")
