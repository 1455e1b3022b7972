"""docs/format.md is enough: a stranger's reader and writer, literal vectors, limits and names."""

from __future__ import annotations

import ast
import json
import re
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import artcache
from artcache import manifest as room
from artcache.digest import blake3, xxh3
from artcache.errors import ArtcacheError
from artcache.key import Key, canonical_json
from artcache.manifest import Manifest
from artcache.needs import Needs
from artcache.pack import unpack
from artcache.repository import Repository, siblings_folder
from artcache.stores import zipped
from artcache.stores.posix import PosixStore
from artcache.tier import Tier
from artcache.transfer.archive import open_archive, save
from artcache.transfer.choose import Chosen
from artcache.transfer.send import pull
from tests import stranger
from tests.making import SMALL, MemoryStore, Tree, key, packed, picture, plant

HERE = Path(__file__).parent
VECTORS = HERE / "vectors"
DOCUMENT = (HERE.parent / "docs" / "format.md").read_text()
FIELDS = {"recipe": "thing", "commit": "1"}
REFUSED_FIELDS = {"recipe": "thing", "arch": ["sm_75", "sm_80"]}
"""The key of the manifest that those in refused.json were made from."""
TREES: dict[str, Tree] = {
    "mixed": SMALL,
    "one file": {"a": b"x"},
    "nothing": {"a": b"", "b/c": None, "d": "a"},
    "large": {"big": b"0123456789abcdef" * 600_000, "small": bytes(range(256)) * 9},
    "names": {"-rf": b"a", "a b/ü\n\x7f\u2028": b"c", "\U0001f600": b"d", "\uffff": b"e"},
}


def vector(name: str) -> Any:
    return json.loads((VECTORS / name).read_text())


# -- a stranger ---------------------------------------------------------------------------


def test_the_stranger_knows_nothing_of_artcache() -> None:
    imported = {
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse((HERE / "stranger.py").read_text()))
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in [*node.names, ast.alias(getattr(node, "module", None) or "")]
    }
    assert not {name for name in imported if name in ("artcache", "tests", "darknet_recipe")}


@pytest.mark.parametrize("mount_like", [False, True])
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_stranger_restores_what_we_publish(tmp_path: Path, tree: Tree, mount_like: bool) -> None:
    planted = plant(tmp_path / "tree", tree)
    manifest = packed(planted, tmp_path / "pack")
    store = PosixStore(tmp_path / "store", mount_like=mount_like)
    Repository(store).publish(manifest, lambda _: tmp_path / "pack")

    stranger.restore(tmp_path / "store", FIELDS, tmp_path / "back")

    assert picture(tmp_path / "back") == picture(planted)


@pytest.mark.parametrize("unique", [False, True])
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_our_cache_takes_what_a_stranger_publishes(
    tmp_path: Path, tree: Tree, unique: bool
) -> None:
    @artcache.make_recipe("thing", fields={"commit": "1"})
    def recipe(context: artcache.BuildContext) -> None:
        raise AssertionError("it is in the store")

    planted = plant(tmp_path / "tree", tree)
    host = artcache.HostFacts(libc="glibc2.36")
    cache = artcache.Cache([tmp_path / "store"], home=tmp_path / "home", host=host)
    (variant,) = cache.variants(recipe)
    fields: dict[str, Any] = dict(variant.key.fields)
    stranger.publish(tmp_path / "store", fields, planted, unique=unique, piece=70_000)

    done = cache.fetch(recipe, build="never")

    assert done.origin == str(tmp_path / "store")
    assert picture(done.path) == picture(planted)
    stranger.restore(tmp_path / "store", fields, tmp_path / "back")
    assert picture(tmp_path / "back") == picture(planted)


@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.text(st.characters(exclude_categories=["Cs"])),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(max_size=4), inner),
        max_leaves=12,
    )
)
def test_the_stranger_spells_every_value_as_we_do(value: object) -> None:
    try:
        data = canonical_json(value)
    except UnicodeEncodeError:
        return
    assert stranger.text(value).encode() == data


@pytest.mark.parametrize("damage", ["pack", "manifest", "newer", "gone"])
def test_the_stranger_refuses_what_we_refuse(tmp_path: Path, damage: str) -> None:
    manifest = packed(plant(tmp_path / "tree", SMALL), tmp_path / "pack")
    store = tmp_path / "store"
    Repository(PosixStore(store)).publish(manifest, lambda _: tmp_path / "pack")
    (pack,) = store.glob("v1/packs/*/*.pack")
    (file,) = store.glob("v1/manifests/thing/*.json")
    if damage == "gone":
        file.unlink()
    elif damage == "pack":
        pack.write_bytes(b"?" + pack.read_bytes()[1:])
    else:
        new = b'"artcache":2' if damage == "newer" else b'"artcache": 1'
        file.write_bytes(file.read_bytes().replace(b'"artcache":1', new))
    with pytest.raises(stranger.Refused):
        stranger.restore(store, FIELDS, tmp_path / "back")


# -- vectors ------------------------------------------------------------------------------


@pytest.mark.parametrize("row", vector("keys.json"), ids=lambda row: row["why"])
def test_a_key_has_exactly_these_bytes_and_this_hash(row: dict[str, Any]) -> None:
    made = Key(row["fields"])
    assert made.canonical == bytes.fromhex(row["canonical_hex"])
    assert made.hash == row["hash"]
    assert stranger.hash_of(json.loads(made.canonical)) == row["hash"]


@pytest.mark.parametrize("row", vector("canonical.json"), ids=lambda row: row["why"])
def test_a_value_has_exactly_this_spelling(row: dict[str, Any]) -> None:
    assert canonical_json(row["value"]) == bytes.fromhex(row["canonical_hex"])
    assert stranger.text(row["value"]).encode() == bytes.fromhex(row["canonical_hex"])


def planted_vector(name: str, folder: Path) -> Path:
    rows = vector(f"{name}.tree.json")
    tree: dict[str, bytes | str | None] = {
        path: bytes.fromhex(row["hex"]) if "hex" in row else row.get("target")
        for path, row in rows.items()
    }
    runs = [path for path, row in rows.items() if row.get("mode") == "0755"]
    return plant(folder, tree, executable=runs)


def test_a_tree_becomes_exactly_this_manifest_and_pack(tmp_path: Path) -> None:
    """Every byte: a change of the format must show here, and raise its number."""
    facts = vector("written.facts.json")
    made = packed(
        planted_vector("written", tmp_path / "tree"), tmp_path / "pack", Key(facts["key"])
    )
    manifest = Manifest(
        made.key, made.files, made.links, made.dirs, made.packs, made.frames,
        Needs.from_json(facts["needs"]), facts["provenance"],
    )  # fmt: skip
    assert (tmp_path / "pack").read_bytes() == bytes.fromhex(
        (VECTORS / "written.pack.hex").read_text()
    )
    assert manifest.to_bytes() == (VECTORS / "written.manifest.json").read_bytes()


@pytest.mark.parametrize("name", ["written", "strange"])
def test_exactly_this_manifest_and_these_packs_become_a_tree(tmp_path: Path, name: str) -> None:
    data = (VECTORS / f"{name}.manifest.json").read_bytes()
    packs = {
        blake3(pack): pack
        for file in VECTORS.glob(f"{name}.pack*.hex")
        for pack in [bytes.fromhex(file.read_text())]
    }
    manifest = Manifest.from_bytes(data)
    unpack(manifest, lambda pack, at, n: packs[pack.blake3][at : at + n], plant(tmp_path / "a", {}))
    expected = picture(planted_vector(name, tmp_path / "b"))
    assert picture(tmp_path / "a") == expected

    for digest, pack in packs.items():
        stranger.create(tmp_path / f"v1/packs/{digest[:2]}/{digest}.pack", pack)
    fields: dict[str, Any] = json.loads(data)["key"]
    place = tmp_path / f"v1/manifests/{fields['recipe']}/{stranger.hash_of(fields)}.json"
    stranger.create(place, data)
    stranger.restore(tmp_path, fields, tmp_path / "c")
    assert picture(tmp_path / "c") == expected


def test_an_artifact_becomes_exactly_this_archive_and_the_archive_a_tree(tmp_path: Path) -> None:
    manifest = Manifest.from_bytes((VECTORS / "written.manifest.json").read_bytes())
    (tmp_path / "pack").write_bytes(bytes.fromhex((VECTORS / "written.pack.hex").read_text()))
    store = MemoryStore()
    Repository(store).publish(manifest, lambda _: tmp_path / "pack")
    cache = artcache.Cache([], home=tmp_path / "home", host=artcache.HostFacts())
    literal = bytes.fromhex((VECTORS / "written.archive.hex").read_text())

    list(save(cache, [Chosen(manifest.key, Tier(store))], tmp_path / "made.artcache"))
    assert (tmp_path / "made.artcache").read_bytes() == literal

    (tmp_path / "old.artcache").write_bytes(literal)
    list(pull(cache, [Chosen(manifest.key, open_archive(tmp_path / "old.artcache"))]))
    entry = cache.home.lookup(manifest.key, verify=True)
    expected = picture(planted_vector("written", tmp_path / "tree"))
    assert entry and picture(entry.path) == expected
    with zipfile.ZipFile(tmp_path / "old.artcache") as file:
        file.extractall(tmp_path / "unzipped")
    fields: dict[str, Any] = json.loads(manifest.key.canonical)
    stranger.restore(tmp_path / "unzipped", fields, tmp_path / "back")
    assert picture(tmp_path / "back") == expected


@pytest.mark.parametrize("row", vector("refused.json"), ids=lambda row: row["why"])
def test_a_manifest_is_refused_for_this_reason(row: dict[str, Any], tmp_path: Path) -> None:
    data = row["manifest"].encode() if "manifest" in row else bytes.fromhex(row["manifest_hex"])
    with pytest.raises(ArtcacheError) as refused:
        Manifest.from_bytes(data)
    assert refused.value.code == row["error"]
    assert row["message"] in str(refused.value)
    (tmp_path / "manifest.json").write_bytes(data)
    with pytest.raises(stranger.Refused):
        stranger.understood(tmp_path / "manifest.json", REFUSED_FIELDS)


# -- the document -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["MAX_BYTES", "MAX_FILES", "MAX_FRAME", "MAX_TOTAL", "MAX_PATH"])
def test_the_document_has_our_limits(name: str) -> None:
    assert f"{getattr(room, name):,}" in DOCUMENT


def test_the_document_has_the_limits_of_archives() -> None:
    section = DOCUMENT.partition("## 7. Archive")[2].partition("## 8.")[0]
    assert f"{zipped.MOST_MEMBERS:,} members" in section
    assert f"{zipped.MOST_DIRECTORY:,} bytes" in section


def test_the_document_names_every_member() -> None:
    table = DOCUMENT.partition("## 5. Manifest")[2].partition("**Paths**")[0]
    assert set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE)) == room._MEMBERS
    needs = DOCUMENT.partition("**`needs`**")[2].partition("**`provenance`**")[0]
    rows = re.findall(r"^\| ([^|]+) \|", needs, re.MULTILINE)
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == set(Needs().to_json())


def test_the_document_s_example_of_a_key_is_true() -> None:
    text, digest = re.findall(r"^(\{\"arch.*\})\n→ (\w+)$", DOCUMENT, re.MULTILINE)[0]
    assert Key(json.loads(text)).canonical.decode() == text
    assert Key(json.loads(text)).hash == digest


def test_the_document_s_digests_of_nothing_are_true() -> None:
    assert f"`{xxh3(b'')}`" in DOCUMENT
    assert f"`{blake3(b'')}`" in DOCUMENT


def test_xxh3_is_written_with_its_most_significant_byte_first() -> None:
    import xxhash

    low_high = xxhash.xxh3_128_intdigest(b"order")
    assert xxh3(b"order") == struct.pack(">QQ", low_high >> 64, low_high & (2**64 - 1)).hex()


def test_the_base_of_siblings_is_the_key_without_the_fields_of_the_document() -> None:
    sentence = DOCUMENT.partition("`<base>` is the hash of the key without its fields")[2]
    named = re.findall(r"`(\w+)`", sentence.partition(";")[0])
    fields = dict.fromkeys(named, "x")
    assert siblings_folder(key(**fields)) == f"v1/siblings/thing/{key().hash}"
    assert len(named) == 4
