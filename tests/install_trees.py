"""Trees, prefixes, and their snapshots, for the tests of `install`."""

from __future__ import annotations

import os
import stat
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import xxhash

from artcache.install import Installed, Tree, install, uninstall
from artcache.manifest import File, Link

BIG = b"\x7fELF" + bytes(range(251)) * 4600
"""More than 1 MiB: may be hard-linked."""


def make_tree(root: Path, content: dict[str, bytes | str], dirs: tuple[str, ...] = ()) -> Tree:
    """Files are bytes (executable below `bin/`), links are strings."""
    files, links = [], []
    for path, item in content.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(item, str):
            place.symlink_to(item)
            links.append(Link(path, item))
        else:
            mode = 0o755 if path.startswith("bin/") else 0o644
            place.write_bytes(item)
            place.chmod(mode)
            files.append(File(path, mode, len(item), xxhash.xxh3_128_hexdigest(item)))
    root.mkdir(parents=True, exist_ok=True)
    return Tree(root, files, links, dirs)


DARKNET = {
    "bin/darknet": BIG,
    "lib/libdarknet.so.1": BIG + b"so",
    "lib/libdarknet.so": "libdarknet.so.1",
    "cfg/yolov4.cfg": b"[net]\nbatch=1\n",
    "cfg/empty": b"",
}
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
QUICK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
"""Where a thousand fsyncs cost nothing; None is the usual place for temporary folders."""


class Desk:
    """A home with trees in it, and a prefix."""

    def __init__(self, base: Path, prefix: Path | None = None) -> None:
        self.home = base / "home"
        self.pending = self.home / "v1" / "pending"
        self.pending.parent.mkdir(parents=True, exist_ok=True)
        self.prefix = prefix or base / "prefix"

    def tree(self, name: str, content: dict[str, bytes | str], dirs: tuple[str, ...] = ()) -> Tree:
        return make_tree(self.home / "v1" / "entries" / name, content, dirs)

    def install(self, tree: Tree, owner: str = "darknet", **options: object) -> Installed:
        return install(
            tree, self.prefix, owner=owner, key=tree.root.name, pending=self.pending, **options
        )

    def uninstall(self, owner: str = "darknet"):
        return uninstall(self.prefix, owner=owner, pending=self.pending)

    def at_rest(self) -> bool:
        """No stage, no journal, no pending record."""
        state = self.prefix / ".artcache"
        names = os.listdir(state) if state.exists() else ["x.json"]
        records = [name for name in names if name.endswith(".json")]
        return bool(records) and set(names) <= {*records, "lock"} and not self.pending.exists()


def snapshot(prefix: Path) -> dict[str, object]:
    """Everything below a prefix but for artcache's own folder: contents, links, modes."""
    found: dict[str, object] = {}
    for folder, folders, files in os.walk(prefix):
        if Path(folder) == prefix and ".artcache" in folders:
            folders.remove(".artcache")
        for name in (*folders, *files):
            path = Path(folder, name)
            inside = path.relative_to(prefix).as_posix()
            if path.is_symlink():
                found[inside] = os.readlink(path)
            elif path.is_dir():
                found[inside] = None
            else:
                found[inside] = (path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    return found


def in_child(action: Callable[[], object]) -> int:
    """Run in a forked process. Its exit code (1 after an exception), or minus its signal."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
