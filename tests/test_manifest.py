"""The manifest's codec: exact bytes out, nothing unsound in."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from artcache import manifest as room
from artcache.digest import xxh3
from artcache.errors import Corrupt, NewerFormat, OverLimit
from artcache.key import canonical_json
from artcache.manifest import File, Frame, Link, Manifest, Pack, check_paths
from artcache.needs import Needs
from tests.making import key

EMPTY = xxh3(b"")
DIGEST = "0123456789abcdef" * 4
SOUND = Manifest(
    key(arch=["sm_75", "sm_80"]),
    (File("bin/tool", 0o755, 6, xxh3(b"tool 1")), File("empty", 0o644, 0, EMPTY)),
    (Link("lib", "bin"), Link("share/x", "../bin/tool")),
    ("var",),
    (Pack(DIGEST, 10),),
    (Frame(0, 4, 6, 6, DIGEST),),
    Needs(sonames=("libc.so.6",), glibc="2.34", machine="x86_64"),
    {"created": "2026-01-01T00:00:00Z", "milliseconds": 1500, "dirty": False, "log": None},
)


def body(**changes: Any) -> dict[str, Any]:
    return {**json.loads(SOUND.to_bytes()), **changes}


def corrupt(data: bytes) -> str:
    with pytest.raises(Corrupt, match=r"not a sound manifest|what the artifact needs") as refused:
        Manifest.from_bytes(data)
    return str(refused.value)


# -- what goes out comes in ---------------------------------------------------------------

HASHES = st.integers(0, 2**128 - 1).map("{:032x}".format)
BLAKES = st.integers(0, 2**256 - 1).map("{:064x}".format)
PARTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), min_size=1)
PARTS = PARTS.filter(lambda part: part not in (".", "..") and len(part.encode()) < 256)
PATHS = st.lists(PARTS, min_size=1, max_size=3).map("/".join)
SIMPLE = st.none() | st.booleans() | st.integers(-(2**53), 2**53) | PARTS


@st.composite
def manifests(draw: st.DrawFn) -> Manifest:
    paths: list[str] = []
    for path in sorted(draw(st.sets(PATHS, max_size=8))):
        if not any(path.startswith(f"{other}/") for other in paths):
            paths.append(path)
    kinds = {path: draw(st.sampled_from("ffld")) for path in paths}
    files = tuple(
        File(path, draw(st.sampled_from([0o644, 0o755])), draw(st.integers(0, 5000)), draw(HASHES))
        for path in paths
        if kinds[path] == "f"
    )
    links = tuple(
        Link(path, "../" * path.count("/") + draw(PARTS)) for path in paths if kinds[path] == "l"
    )
    dirs = tuple(path for path in paths if kinds[path] == "d")
    left, frames, offset = sum(file.size for file in files), [], 0
    while left:
        raw = draw(st.integers(1, left))
        stored = draw(st.integers(1, raw))
        frames.append(Frame(0, offset, stored, raw, draw(BLAKES)))
        left, offset = left - raw, offset + stored
    packs = (Pack(draw(BLAKES), offset),) if frames else ()
    provenance = draw(st.dictionaries(PARTS, SIMPLE | st.lists(SIMPLE), max_size=4))
    return Manifest(
        key(), files, links, dirs, packs, tuple(frames), Needs(glibc="2.17"), provenance
    )


@given(manifests())
def test_what_is_written_reads_back_the_same_to_the_byte(manifest: Manifest) -> None:
    data = manifest.to_bytes()
    assert Manifest.from_bytes(data) == manifest
    assert Manifest.from_bytes(data).to_bytes() == data


def test_the_sound_one_is_sound() -> None:
    assert Manifest.from_bytes(SOUND.to_bytes()) == SOUND
    assert (SOUND.size, SOUND.packed, SOUND.build_seconds) == (6, True, 1.5)


@given(st.integers(0, len(SOUND.to_bytes()) - 1), st.integers(1, 255))
def test_no_changed_byte_makes_it_another_key_s_manifest(at: int, change: int) -> None:
    data = bytearray(SOUND.to_bytes())
    data[at] ^= change
    with contextlib.suppress(Corrupt, NewerFormat, OverLimit):
        assert Manifest.from_bytes(bytes(data)).key == SOUND.key


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_rubbish_is_corrupt_and_never_another_error(data: bytes) -> None:
    corrupt(data)


@given(
    st.sampled_from(sorted(body())),
    st.recursive(SIMPLE, lambda inner: st.lists(inner, max_size=4), max_leaves=8),
)
def test_a_member_of_another_kind_is_never_another_error(name: str, value: object) -> None:
    with contextlib.suppress(Corrupt, NewerFormat, OverLimit):
        Manifest.from_bytes(canonical_json(body(**{name: value})))


# -- canonical form -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        lambda data: data + b"\n",
        lambda data: b" " + data,
        lambda data: b"\xef\xbb\xbf" + data,
        lambda data: data.decode().encode("utf-16"),
        lambda data: data.replace(b'","', b'", "', 1),
        lambda data: data.replace(b"bin/tool", b"bin\\/tool", 1),
        lambda data: data.replace(b"bin/tool", b"bin\\u002ftool", 1),
        lambda data: data.replace(b":1500", b":1500.0", 1),
        lambda data: data.replace(b":1500", b":15e2", 1),
        lambda data: data.replace(b":1500", b":-0", 1),
        lambda data: data.replace(b":1500", b":NaN", 1),
        lambda data: data.replace(b":1500", b":" + b"9" * 5000, 1),
        lambda data: data.replace(b'"dirs"', b'"dirs":[],"dirs"', 1),
        lambda data: data.replace(b"2026", b'\\ud800"', 1),
        lambda data: data.replace(b"2026", b"\xed\xa0\x80", 1),
        lambda data: data.replace(b"2026", b"\xff", 1),
        lambda data: data[:-1],
        lambda data: b"[" + data + b"]",
        lambda data: b"null",
        lambda data: b"[" * 200_000,
        lambda data: json.dumps(json.loads(data), sort_keys=True, indent=1).encode(),
        lambda data: json.dumps(json.loads(data), separators=(",", ":"))[::1].encode()
        .replace(b'"artcache"', b'"artcache" ', 1),
    ],
)  # fmt: skip
def test_any_other_spelling_of_the_same_is_corrupt(change: Any) -> None:
    data = change(SOUND.to_bytes())
    assert data != SOUND.to_bytes()
    corrupt(data)


# -- versions and limits ------------------------------------------------------------------


def test_a_newer_format_says_what_reads_it_before_anything_else_is_judged() -> None:
    data = b'{"artcache":2,"reader":"0.9","shape":{"of":["things","to come"]}}'
    with pytest.raises(NewerFormat, match="format 2") as refused:
        Manifest.from_bytes(data)
    assert refused.value.hint == "pip install -U 'artcache>=0.9'"


@pytest.mark.parametrize("reader", ["';curl x|sh;'", "0.9\n1", "", 9, None, ["0.9"], "0.9rc1"])
def test_what_a_stranger_wrote_never_gets_into_a_line_to_be_typed(reader: object) -> None:
    with pytest.raises(NewerFormat) as refused:
        Manifest.from_bytes(json.dumps({"artcache": 2, "reader": reader}).encode())
    assert refused.value.hint == "pip install -U artcache"


@pytest.mark.parametrize("number", [0, -1, True, False, "1", 1.0, None, [1]])
def test_another_format_number_is_corrupt(number: object) -> None:
    corrupt(json.dumps(body(artcache=number), sort_keys=True, separators=(",", ":")).encode())


@pytest.mark.parametrize(
    ("limit", "value"), [("MAX_BYTES", 100), ("MAX_FILES", 4), ("MAX_TOTAL", 5), ("MAX_FRAME", 5)]
)
def test_what_is_over_a_limit_is_not_called_corrupt(
    monkeypatch: pytest.MonkeyPatch, limit: str, value: int
) -> None:
    data = SOUND.to_bytes()
    monkeypatch.setattr(room, limit, value)
    with pytest.raises(OverLimit, match=r"\d"):
        Manifest.from_bytes(data)


def test_the_limits_are_those_of_the_specification() -> None:
    assert room.MAX_BYTES == 256 * 1024**2
    assert room.MAX_FRAME == 64 * 1024**2
    assert room.MAX_TOTAL == 16 * 1024**4
    assert (room.MAX_FILES, room.MAX_PATH) == (2_000_000, 4095)


@pytest.mark.parametrize("depth", [64, 65, 500, 5000, 100_000])
def test_provenance_may_nest_but_not_without_end(depth: int) -> None:
    nested = b"[" * (depth - 1) + b"]" * (depth - 1)  # and the object that is all of it
    data = SOUND.to_bytes().replace(b":1500", b":" + nested, 1)
    if depth == 64:
        Manifest.from_bytes(data)
    else:
        with pytest.raises((OverLimit, Corrupt)):
            Manifest.from_bytes(data)


# -- members ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(body()))
def test_every_member_must_be_there(name: str) -> None:
    lacking = body()
    del lacking[name]
    corrupt(canonical_json(lacking))


def test_a_member_that_this_format_does_not_have_is_corrupt() -> None:
    corrupt(canonical_json(body(surprise=1)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"hash": "0" * 32}, "hash to"),
        ({"hash": None}, "hash to"),
        ({"key": {"recipe": "thing", "commit": "2"}}, "hash to"),
        ({"key": {"commit": "1"}}, "recipe name"),
        ({"key": ["recipe"]}, "wrong kind"),
        ({"key": {"recipe": "thing", "arch": ["b", "a"]}}, "not sorted"),
        ({"key": {"recipe": "thing", "arch": {"a": "b"}}}, "no string or list"),
        ({"key": {"recipe": "thing", "arch": 75}}, "no string or list"),
        ({"files": {}}, "wrong kind"),
        ({"files": [["a", "0644", 6]]}, "wrong kind"),
        ({"files": [["a", "0644", 6, EMPTY, 1]]}, "wrong kind"),
        ({"files": [["a", "0644", "6", EMPTY]]}, "wrong kind"),
        ({"files": [["a", "0644", True, EMPTY]]}, "wrong kind"),
        ({"files": [["a", "0600", 6, EMPTY]]}, "wrong kind"),
        ({"files": [["a", "4755", 6, EMPTY]]}, "wrong kind"),
        ({"files": [["a", 420, 6, EMPTY]]}, "wrong kind"),
        ({"files": [["a", "0644", 6, EMPTY.upper()[:31] + "A"]]}, "digest"),
        ({"files": [["a", "0644", 6, EMPTY[:31]]]}, "digest"),
        ({"files": [["a", "0644", -1, EMPTY]]}, "size"),
        ({"links": [["a"]]}, "wrong kind"),
        ({"links": [["a", None]]}, "wrong kind"),
        ({"dirs": "ab"}, "wrong kind"),
        ({"dirs": [["a"]]}, "wrong kind"),
        ({"packs": [[DIGEST, "10"]]}, "wrong kind"),
        ({"packs": [[DIGEST[:63], 10]]}, "pack is called"),
        ({"packs": [[DIGEST.upper(), 10]]}, "pack is called"),
        ({"packs": [["../../x", 10]]}, "pack is called"),
        ({"packs": [[DIGEST, -10]]}, "pack is called"),
        ({"packs": [[DIGEST, 1 << 50]]}, "pack is called"),
        ({"packs": [[DIGEST, 9]]}, "outside its pack"),
        ({"packs": []}, "names no pack"),
        ({"frames": []}, "add up"),
        ({"frames": [[0, 4, 6, 6]]}, "wrong kind"),
        ({"frames": [[False, 4, 6, 6, DIGEST]]}, "wrong kind"),
        ({"frames": [[1, 4, 6, 6, DIGEST]]}, "names no pack"),
        ({"frames": [[-1, 4, 6, 6, DIGEST]]}, "names no pack"),
        ({"frames": [[0, 4, 6, 6, DIGEST[:-1]]]}, "no digest"),
        ({"frames": [[0, -1, 6, 6, DIGEST]]}, "outside its pack"),
        ({"frames": [[0, 5, 6, 6, DIGEST]]}, "outside its pack"),
        ({"frames": [[0, 4, 0, 6, DIGEST]]}, "bytes for"),
        ({"frames": [[0, 4, 6, 5, DIGEST]]}, "bytes for"),
        ({"frames": [[0, 4, 6, 7, DIGEST]]}, "add up"),
        ({"frames": [[0, 0, 3, 3, DIGEST]]}, "add up"),
        ({"needs": []}, "wrong kind"),
        ({"needs": {"surprise": ""}}, "unknown fields"),
        ({"needs": {"glibc": "GLIBC_2.34"}}, "glibc"),
        ({"provenance": []}, "wrong kind"),
        ({"reader": None}, "members"),
        ({"reader": "soon"}, "members"),
    ],
    ids=repr,
)
def test_an_unsound_member_is_corrupt_with_its_reason(change: dict[str, Any], why: str) -> None:
    assert why in corrupt(canonical_json(body(**change)))


def test_frames_may_lie_anywhere_and_share_bytes_of_their_packs() -> None:
    twice = body(frames=[[0, 7, 3, 3, DIGEST], [0, 7, 3, 3, DIGEST]])
    assert Manifest.from_bytes(canonical_json(twice)).frames[0].offset == 7


def test_a_tree_that_was_never_packed_has_neither_packs_nor_frames() -> None:
    read = Manifest.from_bytes(canonical_json(body(packs=[], frames=[])))
    assert not read.packed


def test_a_tree_without_a_byte_is_packed_without_a_pack() -> None:
    empty = Manifest(key(), (File("empty", 0o644, 0, EMPTY),), provenance={})
    assert Manifest.from_bytes(empty.to_bytes()).packed


@pytest.mark.parametrize("recorded", ["soon", None, [1]])
def test_a_build_time_that_is_none_is_unknown(recorded: object) -> None:
    assert Manifest(key(), (), provenance={"milliseconds": recorded}).build_seconds == 0.0


# -- paths --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "links", "dirs"),
    [
        ([""], [], []),
        (["/etc/passwd"], [], []),
        ([".."], [], []),
        (["../x"], [], []),
        (["a/../b"], [], []),
        (["./a"], [], []),
        (["a/."], [], []),
        (["a//b"], [], []),
        (["a/"], [], []),
        (["a\0b"], [], []),
        (["x" * 256], [], []),
        (["é" * 128], [], []),
        (["a/" * 2100 + "a"], [], []),
        (["b", "a"], [], []),
        (["a", "a"], [], []),
        (["a", "a/b"], [], []),
        (["a/b"], [("a", "b")], []),
        (["a"], [("a", "b")], []),
        (["a"], [], ["a"]),
        (["a/b"], [], ["a"]),
        ([], [("a", "b")], ["a"]),
        ([], [("a", "b")], ["a/c"]),
        ([], [], ["a", "a/b"]),
        ([], [], ["a/b", "a"]),
        ([], [("b", "x"), ("a", "x")], []),
        ([], [("a", "x"), ("a", "y")], []),
        ([], [("a", "")], []),
        ([], [("a", "/etc")], []),
        ([], [("a", "..")], []),
        ([], [("a", "../x")], []),
        ([], [("a/b", "../..")], []),
        ([], [("a/b", "c/../../../d")], []),
        ([], [("a", "b\0")], []),
        ([], [("a", "b" * 4096)], []),
        ([], [("d/up", ".."), ("x", "d/up/..")], []),
        ([], [("d/up", ".."), ("d/x", "up/../../y")], []),
        ([], [("d/up", ".."), ("x", "d/./up//..")], []),
        ([], [("l", "d"), ("x", "l/a/..")], ["d"]),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_paths_that_leave_the_tree_or_collide_are_corrupt(files, links, dirs) -> None:
    with pytest.raises(Corrupt):
        check_paths(files, links, dirs)


@pytest.mark.parametrize(
    ("files", "links", "dirs"),
    [
        ([], [], []),
        (["-rf", ".hidden", "...", "a b", "a\nb", "a\\b", "é", "\U0001f600"], [], []),
        (["a", "a-b", "a0"], [], []),
        (["a/b", "a/c/d"], [("a/l", "c/d")], ["a/e"]),
        ([], [("a/b/l", "../../a/b")], []),
        ([], [("l", "a/../b")], []),
        ([], [("l", "l")], []),
        ([], [("l", ".")], []),
        ([], [("l", "not/there")], []),
        ([], [("a", "b/c"), ("b", "d")], []),
        (["x" * 255], [], []),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_paths_that_are_odd_but_inside_are_fine(files, links, dirs) -> None:
    check_paths(sorted(files), links, dirs)
