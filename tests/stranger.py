"""A reader and a writer made from docs/format.md alone. Nothing of artcache is imported.

`restore(store, fields, into)` and `publish(store, fields, tree)`, for a store that is a
folder. The numbers in brackets are the document's sections.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import blake3
import xxhash
import zstandard

SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
MEMBERS = "artcache dirs files frames hash key links needs packs provenance reader".split()
UNIQUE = re.compile(r"([0-9a-f]{64})( ?\(\d+\))?\.json( ?\(\d+\))?")


ROWS = {
    "files": (str, str, int, str),
    "links": (str, str),
    "packs": (str, int),
    "frames": (int, int, int, int, str),
}
MODES = {"0644": 0o644, "0755": 0o755}
VERSION = r"([0-9]+(\.[0-9]+){1,3})?"
NEEDS = {
    **dict.fromkeys(("glibc", "glibcxx", "cxxabi", "driver"), VERSION),
    "machine": r"[a-z0-9_]{0,32}",
    "sonames": r"[^\x00-\x1f\x7f]+",
    "sass": r"sm_[0-9]{2,3}[af]?",
    "ptx": r"compute_[0-9]{2,3}[af]?",
}


class Refused(Exception):
    """The artifact is not as the document says."""


def check(sound: object, why: str) -> None:
    if not sound:
        raise Refused(why)


def text(value: Any) -> str:
    """[1] Canonical JSON."""
    if isinstance(value, str):
        return (
            '"'
            + "".join(SHORT.get(c) or (c if c >= " " else f"\\u{ord(c):04x}") for c in value)
            + '"'
        )
    if isinstance(value, dict):
        names = sorted(value, key=lambda name: name.encode())
        return "{" + ",".join(f"{text(name)}:{text(value[name])}" for name in names) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(text, value)) + "]"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    check(isinstance(value, int), "a kind of value that there is not")
    return str(value)


def hash_of(fields: dict[str, Any]) -> str:
    """[3]"""
    return xxhash.xxh3_128_digest(text(fields).encode()).hex()


def blake(data: bytes) -> str:
    return blake3.blake3(data).hexdigest()


# -- reading ------------------------------------------------------------------------------


def restore(store: Path, fields: dict[str, Any], into: Path) -> None:
    """[6] Find the artifact and write its tree into the new folder `into`."""
    folder = store / "v1" / "manifests" / fields["recipe"] / hash_of(fields)
    candidates = [folder.with_name(f"{folder.name}.json")]
    if folder.is_dir():
        candidates += sorted(path for path in folder.iterdir() if UNIQUE.fullmatch(path.name))
    why = Refused("nobody has it")
    for path in candidates:
        try:
            if path.is_file():
                return unpack(store, understood(path, fields), into)
        except Refused as error:
            why = error
    raise why


def understood(path: Path, fields: dict[str, Any]) -> dict[str, Any]:
    """[5] The checks, in their order."""
    check(path.stat().st_size <= 268_435_456, "too large")
    data = path.read_bytes()
    named = UNIQUE.fullmatch(path.name)
    check(not named or named[1] == blake(data), "not what its name says")
    try:
        body = json.loads(data.decode())
    except ValueError as error:
        raise Refused(str(error)) from error
    check(isinstance(body, dict) and type(body.get("artcache")) is int, "no manifest")
    check(body["artcache"] <= 1, f"artcache {body.get('reader')} reads it")
    reader = r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}"
    check(body["artcache"] == 1 and sorted(body) == MEMBERS, "not version 1")
    check(isinstance(body["reader"], str) and re.fullmatch(reader, body["reader"]), "no version")
    check(text(body).encode("utf-8", "surrogatepass") == data, "not canonical")
    check(body["hash"] == hash_of(body["key"]), "another hash")
    check_key(body["key"])
    check_kinds(body)
    check_paths(body)
    size = sum(row[2] for row in body["files"])
    check(size <= 17_592_186_044_416, "too large")
    check(sum(row[3] for row in body["frames"]) == size, "sizes")
    for pack, offset, stored, raw, _ in body["frames"]:
        check(0 <= pack < len(body["packs"]) and 0 < stored <= raw <= 67_108_864, "a frame")
        check(0 <= offset <= body["packs"][pack][1] - stored, "a frame outside its pack")
    check(body["key"] == fields, "another key's")
    return body


def check_key(key: dict[str, Any]) -> None:
    """[3]"""
    name = key.get("recipe")
    recipe = r"[a-z0-9]([a-z0-9._-]{0,62}[a-z0-9])?"
    check(isinstance(name, str) and re.fullmatch(recipe, name) and ".." not in name, "no recipe")
    for field, value in key.items():
        words = [value] if isinstance(value, str) else value
        check(re.fullmatch(r"[a-z][a-z0-9_]{0,63}", field) and isinstance(words, list), "a field")
        check(
            all(isinstance(w, str) and not re.search(r"[\0-\x1f\x7f]", w) for w in words), "a word"
        )
        check(words == sorted(set(words), key=str.encode), "not sorted")


def check_kinds(body: dict[str, Any]) -> None:
    for name, kinds in ROWS.items():
        check(isinstance(body[name], list), name)
        for row in body[name]:
            check(isinstance(row, list) and tuple(map(type, row)) == kinds, f"a row of {name}")
    for _, mode, size, digest in body["files"]:
        check(mode in MODES and size >= 0 and re.fullmatch("[0-9a-f]{32}", digest), "a file")
    for digest in [row[0] for row in body["packs"]] + [row[4] for row in body["frames"]]:
        check(re.fullmatch("[0-9a-f]{64}", digest), "a BLAKE3")
    for name, value in body["needs"].items():
        check(
            name in NEEDS and isinstance(value, list) == (name in ("sonames", "sass", "ptx")), name
        )
        words = value if isinstance(value, list) else [value]
        check(all(isinstance(w, str) and re.fullmatch(NEEDS[name], w) for w in words), name)
        check(words == sorted(set(words), key=str.encode), "not sorted")
    check(isinstance(body["provenance"], dict) and depth(body["provenance"]) <= 64, "provenance")


def depth(value: Any) -> int:
    inner = list(value.values()) if isinstance(value, dict) else value
    return 1 + max(map(depth, inner), default=0) if isinstance(inner, list) else 0


def check_paths(body: dict[str, Any]) -> None:
    files, links = [row[0] for row in body["files"]], [row[0] for row in body["links"]]
    for paths in (files, links, body["dirs"]):
        check(paths == sorted(set(paths), key=str.encode), "not sorted")
    leaves = {*files, *links}
    everything = [*files, *links, *body["dirs"]]
    check(len(everything) == len({*everything}) <= 2_000_000, "two entries of one path")
    for path in everything:
        parts = path.split("/")
        check(len(path.encode()) <= 4095 and "\0" not in path, "a path")
        check(all(p not in ("", ".", "..") and len(p.encode()) <= 255 for p in parts), "a path")
        above = {"/".join(parts[:n]) for n in range(1, len(parts))}
        check(not above & {*leaves, *body["dirs"]}, "a path below a file")
    for path, target in body["links"]:
        place, through = path.split("/")[:-1], False
        check(
            0 < len(target.encode()) <= 4095 and target[0] != "/" and "\0" not in target, "a link"
        )
        for part in target.split("/"):
            if part == "..":
                check(place and not through, "a link out of the tree")
                place.pop()
            elif part not in ("", "."):
                place.append(part)
                through = through or "/".join(place) in leaves


def unpack(store: Path, body: dict[str, Any], into: Path) -> None:
    """[4], [5] All in memory: this is an example."""
    raw = b"".join(frame(store, body["packs"][row[0]][0], row) for row in body["frames"])
    into.mkdir()
    for path, mode, size, digest in body["files"]:
        data, raw = raw[:size], raw[size:]
        check(xxhash.xxh3_128_digest(data).hex() == digest, f"{path} is not what was published")
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        (into / path).write_bytes(data)
        (into / path).chmod(MODES[mode])
    for path in body["dirs"]:
        (into / path).mkdir(parents=True)
    for path, target in body["links"]:
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        (into / path).symlink_to(target)


def frame(store: Path, pack: str, row: list[Any]) -> bytes:
    _, offset, stored, raw, digest = row
    with (store / "v1" / "packs" / pack[:2] / f"{pack}.pack").open("rb") as file:
        file.seek(offset)
        data = file.read(stored)
    check(len(data) == stored and blake(data) == digest, "a frame is not what was published")
    if stored == raw:
        return data
    check(zstandard.frame_content_size(data) == raw, "a frame lies on its length")
    found: bytes = zstandard.ZstdDecompressor(max_window_size=1 << 27).decompress(data)
    check(len(found) == raw, "a frame lies on its length")
    return found


# -- writing ------------------------------------------------------------------------------


def publish(
    store: Path, fields: dict[str, Any], tree: Path, *, unique: bool = False, piece: int = 700
) -> None:
    """[6] Pieces of one length, every second one compressed if that helps; two packs, gaps."""
    files, links, dirs, raw = described(tree)
    packs, frames = [bytearray(b"pack one"), bytearray(b"pack two")], []
    for number, at in enumerate(range(0, len(raw), piece)):
        plain = raw[at : at + piece]
        packed = zstandard.ZstdCompressor(level=19).compress(plain)
        stored = packed if number % 2 and len(packed) < len(plain) else plain
        target = packs[number % 3 % 2]
        frames.append([number % 3 % 2, len(target), len(stored), len(plain), blake(stored)])
        target += stored + b"gap"
    rows = [[blake(bytes(pack)), len(pack)] for pack in packs] if frames else []
    for (name, _), pack in zip(rows, packs, strict=False):
        create(store / "v1" / "packs" / name[:2] / f"{name}.pack", bytes(pack))
    body = {
        "artcache": 1, "reader": "0.1", "key": fields, "hash": hash_of(fields), "files": files,
        "links": links, "dirs": dirs, "packs": rows, "frames": frames,
        "needs": {}, "provenance": {"by": "a stranger"},
    }  # fmt: skip
    data = text(body).encode()
    name = f"{hash_of(fields)}/{blake(data)}.json" if unique else f"{hash_of(fields)}.json"
    create(store / "v1" / "manifests" / fields["recipe"] / name, data)


def described(tree: Path) -> tuple[list[Any], list[Any], list[str], bytes]:
    files, links, dirs, raw = [], [], [], b""
    found = {str(path.relative_to(tree)): path for path in tree.rglob("*")}
    for name, path in sorted(found.items()):
        if path.is_symlink():
            links.append([name, os.readlink(path)])
        elif path.is_dir() and not os.listdir(path):
            dirs.append(name)
        elif path.is_file():
            data = path.read_bytes()
            mode = "0755" if path.stat().st_mode & 0o111 else "0644"
            files.append([name, mode, len(data), xxhash.xxh3_128_digest(data).hex()])
            raw += data
    return files, links, dirs, raw


def create(path: Path, data: bytes) -> None:
    """Whole or not at all, and never over another."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    temporary.write_bytes(data)
    os.link(temporary, path)
    temporary.unlink()
