"""The shared libraries that an artifact needs and its tree does not hold. For `cache` only.

What the loader finds by itself is left alone. The rest appears in `lib/` beside
the entry's tree, where a program linked with the run path `$ORIGIN/../lib`
finds it: from a toolkit or cuDNN that is on this machine, else fetched, all
missing ones in parallel, as artifacts of the recipes that supply them.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .disk import disk_errors, replace_file
from .errors import Corrupt
from .frames import pool_of
from .home import SUPPLIED
from .manifest import File
from .recipe import Recipe
from .tree import digest_file

if TYPE_CHECKING:
    from .cache import Cache
    from .home import Entry
    from .install import Tree
    from .key import Key
    from .manifest import Manifest
    from .toolchain import HostFacts

FOLDER = "lib"
_DRIVER = ("libcuda.so", "libnvidia-")
"""Libraries of the driver: nobody supplies them, and `compat` has judged the driver already."""


def supply(cache: Cache, recipe: Recipe, entry: Entry) -> list[str]:
    """Make the entry's libraries findable. Returns the SONAMEs that nobody supplies.

    An artifact that cannot run here anyway (fetched for another machine) gets none.

    Raises:
        ArtcacheError: a library has to be fetched or built and that failed.
    """
    manifest = entry.manifest()
    sources, missing = lacking(cache, manifest)
    if (sources or missing) and not _runs(manifest, cache.host):
        return []
    suppliers = {name: recipe.supplier(name, entry.key) for name in sorted(missing)}
    wanted = list(dict.fromkeys(found for found in suppliers.values() if found))
    if wanted:
        with pool_of(len(wanted)) as pool:
            trees = pool.map(lambda asked: cache.fetch(asked.recipe, asked.request).path, wanted)
            sources += [folder for tree in trees for folder in _library_folders(tree)]
    with disk_errors(cache.home.root, doing="link libraries"):
        _link(entry, sources)
    return sorted(
        name for name, found in suppliers.items() if not found and not name.startswith(_DRIVER)
    )


def _runs(manifest: Manifest, host: HostFacts) -> bool:
    """Asked, and imported, only where something lacks: most artifacts need nothing more."""
    from .compat import NO
    from .match import judge

    return judge(manifest, host).outcome != NO


def lacking(cache: Cache, manifest: Manifest) -> tuple[list[Path], set[str]]:
    """Folders of this machine with libraries that no loader finds, and what is in none."""
    missing = set(manifest.needs.sonames) - cache.libraries(manifest.needs.sonames)
    return _on_this_machine(cache.host, missing)


def recorded(cache: Cache, entry: Entry) -> Iterator[Key]:
    """The keys of the artifacts in the home that the entry's libraries come from."""
    try:
        sources = json.loads(Path(entry.entry_folder, SUPPLIED).read_bytes())
    except (OSError, ValueError):
        return
    top = cache.home.folder("entries")
    for source in map(Path, sources):
        if source.is_relative_to(top):
            recipe, hash_ = source.relative_to(top).parts[:2]
            for other in cache.home.entries(recipe):
                if not isinstance(other, Corrupt) and other.key.hash == hash_:
                    yield other.key


def _on_this_machine(host: HostFacts, missing: set[str]) -> tuple[list[Path], set[str]]:
    """What the machine's toolkits and cuDNNs have of it: they lie where no loader looks."""
    folders = [Path(kit.root, "lib64") for kit in host.toolkits]
    folders += [Path(found.library) for found in host.cudnns]
    sources = []
    for folder in folders:
        with contextlib.suppress(OSError):
            if found := missing.intersection(os.listdir(folder)):
                sources.append(folder)
                missing = missing - found
    return sources, missing


def _library_folders(tree: Path) -> Iterator[Path]:
    for name in ("lib", "lib64"):
        if (tree / name).is_dir() and not (tree / name).is_symlink():
            yield tree / name


def _link(entry: Entry, sources: Sequence[Path]) -> None:
    """Links to all libraries of the folders: cuDNN's parts load each other from where they are."""
    home = Path(entry.entry_folder)
    target = home / FOLDER
    for source in sources:
        target.mkdir(exist_ok=True)
        for name in sorted(os.listdir(source)):
            if ".so" not in name:
                continue
            temporary = target / f".{name}.{os.urandom(4).hex()}"  # others may link it too
            temporary.symlink_to(source / name)
            temporary.replace(target / name)
    replace_file(home / SUPPLIED, json.dumps([str(source) for source in sources]).encode())


@contextlib.contextmanager
def as_tree(cache: Cache, entry: Entry) -> Iterator[Tree | None]:
    """The entry's `lib/` as a tree to be installed beside its program; None if it has none."""
    folder = Path(entry.entry_folder, FOLDER)
    names = sorted(os.listdir(folder)) if folder.is_dir() else []
    names = [name for name in names if name[0] != "."]  # somebody is linking it anew
    if not names:
        yield None
        return
    import shutil

    from .install import Tree

    with cache.home.staging() as staging, disk_errors(cache.home.root, doing="link libraries"):
        (staging / FOLDER).mkdir()
        files = []
        for name in names:
            real, copy = (folder / name).resolve(), staging / FOLDER / name
            try:
                os.link(real, copy)
            except OSError:  # on another disk, or a file system without hard links
                shutil.copyfile(real, copy)
            xxh3, size = digest_file(copy)
            files.append(File(f"{FOLDER}/{name}", 0o644, size, xxh3))
        yield Tree(staging, files)
