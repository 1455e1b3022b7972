"""Jobs that run in an interpreter of their own: `python -m benchmarks.helpers JOB WORD...`."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

import artcache
from artcache.recipe import FunctionRecipe


def restore(name: str, tree: str, store: str, home: str) -> None:
    """Restore what `inputs.store_with` published into an empty home."""
    cache = artcache.Cache([f"read:{store}"], home=home)
    done = cache.fetch(_recipe(name, tree), build="never")
    assert done.origin == store, done


def floor(name: str, tree: str, store: str, into: str) -> None:
    from artcache.repository import pack_name

    from .floor import decode_and_write

    cache = artcache.Cache([store], home="/nowhere")
    key = cache.variants(_recipe(name, tree))[0].key
    found = cache.tiers[0].repository.find(key)
    assert found
    decode_and_write(found.manifest, Path(store, pack_name(found.manifest.packs[0].blake3)), Path(into))


def publish(name: str, tree: str, store: str, scratch: str) -> None:
    """Pack a tree and publish it to an empty store: what a build does after its smoke test."""
    from artcache import pack
    from artcache.key import Key
    from artcache.manifest import Manifest
    from artcache.repository import Repository
    from artcache.stores import open_store
    from artcache.tree import scan

    root = Path(tree)
    found = scan(root)
    pack_file = Path(scratch, "pack")
    with pack_file.open("wb") as out:
        packed = pack.write(root, found, out)
    manifest = Manifest(
        Key({"recipe": name}), packed.files, found.links, found.dirs, (packed.pack,), packed.frames
    )
    assert Repository(open_store(store)).publish(manifest, lambda _: pack_file).first


def library(home: str) -> None:
    """Time warm hits of the library in this process; prints milliseconds.

    `import`: nothing of artcache was imported before. `first`: everything is
    imported and configured, this artifact was not looked at yet. `again`: it was.
    """
    os.environ["ARTCACHE_DIR"] = home
    start = time.perf_counter()
    artcache.fetch("darknet", build="never")
    with_imports = time.perf_counter() - start

    from artcache import api, seal

    firsts, again = [], []
    for _ in range(9):
        seal.forget()
        firsts.append(_seconds())
    for _ in range(50):
        again.append(_seconds())
    tree = str(api.default().from_home(api.default().variants("darknet")[0].key).path)
    print(json.dumps({"import": with_imports, "first": firsts, "again": again}))


def _seconds() -> float:
    start = time.perf_counter()
    artcache.fetch("darknet", build="never")
    return time.perf_counter() - start
