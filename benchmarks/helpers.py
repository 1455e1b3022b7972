"""Jobs that run in an interpreter of their own: `python -m benchmarks.helpers JOB WORD...`."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path

import artcache
from artcache.compression import Compression

from .recipes import copying

SECOND = artcache.Request(options={"AVX": "1"})
"""Another darknet than the default one: the home of the hit tasks holds both."""


def restore(name: str, tree: str, store: str, home: str) -> None:
    """Restore what `inputs.store_with` published into an empty home."""
    cache = artcache.Cache([f"read:{store}"], home=home)
    done = cache.fetch(copying(name, Path(tree)), build="never")
    assert done.origin == store, done


def floor(name: str, tree: str, store: str, into: str) -> None:
    """Decode and write what `restore` restores, without a check."""
    from artcache.repository import pack_name

    from .floor import decode_and_write

    cache = artcache.Cache([store], home="/nowhere")
    key = cache.variants(copying(name, Path(tree)))[0].key
    found = cache.tiers[0].repository.find(key)
    assert found
    pack = Path(store, pack_name(found.manifest.packs[0].blake3))
    decode_and_write(found.manifest, pack, Path(into))


def publish(name: str, tree: str, store: str, scratch: str, compression: Compression) -> None:
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
        packed = pack.write(root, found, out, compression=compression)
    manifest = Manifest(
        Key({"recipe": name}), packed.files, found.links, found.dirs, (packed.pack,), packed.frames
    )
    assert Repository(open_store(store)).publish(manifest, lambda _: pack_file).first


def put(name: str, tree: str, store: str, home: str) -> None:
    """Build, which is a copy, and publish."""
    built = artcache.Cache([store], home=home, write_policy="all").build(copying(name, Path(tree)))
    assert built.published


def verified(name: str, tree: str, home: str) -> None:
    """A hit with every byte verified."""
    done = artcache.Cache([], home=home).fetch(
        copying(name, Path(tree)), build="never", verify=True
    )
    assert done.origin == "home", done


def read_all(tree: str) -> None:
    """Read every file of a tree, and do nothing with it."""
    from concurrent.futures import ThreadPoolExecutor

    def read(path: Path) -> None:
        buffer = bytearray(1 << 20)
        with path.open("rb", buffering=0) as stream:
            while stream.readinto(buffer):
                pass

    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        list(pool.map(read, [path for path in Path(tree).rglob("*") if path.is_file()]))


def materialise(name: str, tree: str, home: str, prefix: str) -> None:
    """Put what is in the home into a folder; prints seconds."""
    from artcache.install import Tree, install

    cache = artcache.Cache([], home=home)
    done = cache.fetch(copying(name, Path(tree)), build="never")
    manifest = done.entry.manifest()
    start = time.perf_counter()
    install(
        Tree(done.path, manifest.files, manifest.links, manifest.dirs),
        Path(prefix),
        owner=name,
        key=done.key.hash,
        pending=cache.home.folder("pending"),
    )
    print(time.perf_counter() - start)


def upgrade(name: str, older: str, newer: str, store: str, home: str) -> None:
    """Publish two versions; prints what the second added, and what it had to."""
    from artcache.repository import Repository
    from artcache.stores import open_store

    cache = artcache.Cache([store], home=home)
    objects, manifests = [], []
    for tree in (older, newer):
        built = cache.build(copying(name, Path(tree)))
        manifests.append(built.fetched.entry.manifest())
        objects.append(sum(p.stat().st_size for p in Path(store).rglob("*") if p.is_file()))
    found = Repository(open_store(store)).find(manifests[1].key)
    assert found
    frames = found.manifest.frames
    old = {frame.blake3 for frame in manifests[0].frames}
    told = {
        "uploaded": objects[1] - objects[0],
        "new": sum(frame.stored for frame in frames if frame.blake3 not in old),
        "all": sum(frame.stored for frame in frames),
    }
    print(json.dumps(told))


def library(home: str) -> None:
    """Time warm hits of the library in this process; prints seconds.

    `first`: another tree was fetched before, so everything is imported and
    configured, but nobody looked at this one yet. `again`: somebody did.
    `lstat`: one look at each of its files, which is a part of `first`.
    """
    os.environ["ARTCACHE_DIR"] = home
    _hit(artcache.Request())
    told = {"first": _hit(SECOND)}
    told["again"] = statistics.median(_hit(SECOND) for _ in range(50))
    tree = artcache.fetch("darknet", SECOND, build="never").path
    paths = [str(path) for path in tree.rglob("*") if not path.is_dir()]
    start = time.perf_counter()
    for path in paths:
        os.lstat(path)
    told["lstat"] = time.perf_counter() - start
    print(json.dumps(told))


def many_publish(tree: str, store: str, home: str) -> None:
    """Publish the one real artifact of a store of many."""
    artcache.Cache([store], home=home).build(copying("many", Path(tree)))
    print("null")


def many_fields(tree: str) -> None:
    """The fields of its key."""
    cache = artcache.Cache([], home="/nowhere")
    print(json.dumps(dict(cache.variants(copying("many", Path(tree)))[0].key.fields)))


def many_hit(tree: str, store: str, home: str) -> None:
    """Fetch it into an empty home; prints seconds."""
    _fetch_of_many(tree, store, home, origin=store)


def many_miss(tree: str, store: str, home: str) -> None:
    """Fetch what the store does not have; prints seconds."""
    other = Path(home, "other")
    other.mkdir(parents=True)
    (other / "program").write_bytes(Path(tree, "program").read_bytes())
    _fetch_of_many(str(other), store, home, origin="built")


def _fetch_of_many(tree: str, store: str, home: str, *, origin: str) -> None:
    cache = artcache.Cache([f"read:{store}"], home=home)
    start = time.perf_counter()
    done = cache.fetch(copying("many", Path(tree)))
    print(time.perf_counter() - start)
    assert done.origin == origin, done


def _hit(request: artcache.Request) -> float:
    start = time.perf_counter()
    done = artcache.fetch("darknet", request, build="never")
    seconds = time.perf_counter() - start
    assert done.origin == "home", done
    return seconds


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
