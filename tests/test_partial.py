"""A restore that was cut goes on where it ended, and what it left is proved again."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import artcache
from artcache import partial as room
from artcache.disk import mount_of
from artcache.errors import StoreUnavailable
from artcache.frames import FRAME
from artcache.repository import Repository
from artcache.stores.posix import PosixStore
from tests.making import picture
from tests.test_cache import Told
from tests.world import small_disk

HOST = artcache.HostFacts(libc="glibc2.36")
LARGE = random.Random(5).randbytes(5 * FRAME + 17)
SMALL = {f"share/{number}": os.urandom(1_000_000) for number in range(9)}


@artcache.make_recipe("thing", fields={"commit": "1"})
def thing(context: artcache.BuildContext) -> None:
    context.provenance["built"] = time.time_ns()  # so that no two manifests are equal
    (context.tree / "share").mkdir()
    (context.tree / "large").write_bytes(LARGE)
    (context.tree / "run").write_text("#!/bin/sh\n")
    (context.tree / "run").chmod(0o755)
    (context.tree / "empty").touch()
    (context.tree / "link").symlink_to("large")
    for name, content in SMALL.items():
        (context.tree / name).write_bytes(content)


class Leaving(PosixStore):
    """Serves so many ranges, then no more."""

    def __init__(self, folder: Path, serves: int) -> None:
        super().__init__(folder)
        self.serves, self.served = serves, 0

    def fill(self, name: str, offset: int, out: memoryview) -> None:
        self.served += 1
        if self.served > self.serves:
            raise StoreUnavailable("the link broke")
        super().fill(name, offset, out)


class World:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        built = self.cache(str(folder / "store"), home=folder / "builder").fetch(thing)
        self.tree = picture(built.path)
        found = Repository(PosixStore(folder / "store")).find(built.key)
        assert found
        self.frames = len(found.manifest.frames)

    def cache(self, *stores: object, home: Path | None = None) -> artcache.Cache:
        self.told = Told()
        return artcache.Cache(stores, home=home or self.home, host=HOST, observer=self.told)  # type: ignore[arg-type]

    def cut(self, serves: int) -> None:
        """A fetch whose store goes away after so many ranges."""
        with contextlib.suppress(artcache.ArtcacheError):
            self.cache(Leaving(self.folder / "store", serves)).fetch(thing, build="never")

    def go_on(self) -> int:
        """Fetch again; how many ranges that read."""
        store = Leaving(self.folder / "store", 1000)
        done = self.cache(store).fetch(thing, build="never")
        assert picture(done.path) == self.tree
        return store.served

    @property
    def left(self) -> list[Path]:
        return sorted((self.home / "v1" / "partial").glob("*"))


def manifest_in(store: Path) -> bytes:
    (found,) = (store / "v1/manifests").rglob("*.json")
    return found.read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


@pytest.mark.parametrize("serves", range(1, 8))
def test_only_what_is_missing_is_read_again(world: World, serves: int) -> None:
    world.cut(serves)
    assert world.frames > 8 and len(world.left) == 1

    assert world.go_on() == world.frames - serves
    assert [note for note in world.told.notes if "are here already" in note]
    assert world.left == []


def test_nothing_is_left_of_a_restore_that_ended_well(world: World) -> None:
    assert world.go_on() == world.frames
    assert world.left == [] and not world.told.notes


def test_another_store_with_the_same_artifact_goes_on_with_it(world: World) -> None:
    world.cut(5)
    os.rename(world.folder / "store", world.folder / "other")
    store = Leaving(world.folder / "other", 1000)
    assert picture(world.cache(store).fetch(thing, build="never").path) == world.tree
    assert store.served == world.frames - 5


def test_a_second_store_in_the_same_command_goes_on_with_it(world: World) -> None:
    first, second = Leaving(world.folder / "store", 3), Leaving(world.folder / "store", 1000)
    done = world.cache(first, second).fetch(thing, build="never")
    assert picture(done.path) == world.tree
    assert second.served == world.frames - 3
    assert len(world.told.warnings) == 1


def damage(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


@pytest.mark.parametrize("name", ["large", "run", "share/0"])
def test_what_was_damaged_meanwhile_is_read_again_and_no_fault_of_the_store(
    world: World, name: str
) -> None:
    world.cut(world.frames - 1)
    (left,) = world.left
    if (left / "tree" / name).is_file() and (left / "tree" / name).stat().st_size:
        damage(left / "tree" / name, 1)
    assert 1 <= world.go_on() <= 2 * world.frames
    assert not world.told.warnings
    assert not list((world.folder / "store" / "v1").glob("quarantine/*"))


def test_files_that_got_lost_are_read_again(world: World) -> None:
    world.cut(world.frames - 1)
    (left,) = world.left
    (left / "tree" / "large").write_bytes(b"short")
    assert world.go_on() > 1


@pytest.mark.parametrize("how", ["boot", "garbage", "empty", "long", "no tree"])
def test_marks_that_cannot_be_believed_are_not(world: World, how: str) -> None:
    world.cut(5)
    (left,) = world.left
    marks = left / "frames"
    data = marks.read_bytes()
    if how == "no tree":
        os.rename(left / "tree", world.folder / "moved")
    else:
        _, _, rest = data.partition(b"\n")
        other = {"boot": b"another\n" + rest, "garbage": os.urandom(50), "empty": b""}
        marks.write_bytes(other.get(how, data + b"\1" * 100))
    assert world.go_on() == world.frames


def test_what_another_manifest_left_is_not_used(world: World) -> None:
    world.cut(5)
    (left,) = world.left
    left.rename(left.with_name(left.name[:-1] + ("0" if left.name[-1] != "0" else "1")))
    assert world.go_on() == world.frames
    assert world.left == []


def test_another_manifest_of_the_same_tree_goes_on_with_it(world: World) -> None:
    world.cut(5)
    world.cache(str(world.folder / "other"), home=world.folder / "builder2").fetch(thing)
    first, second = (manifest_in(world.folder / name) for name in ("store", "other"))
    assert first != second
    store = Leaving(world.folder / "other", 1000)
    assert picture(world.cache(store).fetch(thing, build="never").path) == world.tree
    assert store.served == world.frames - 5
    assert world.left == []


def test_what_is_older_than_a_week_is_swept_by_the_next_restore(world: World) -> None:
    world.cut(5)
    (left,) = world.left
    old = time.time() - room.KEPT - 60
    os.utime(left, (old, old))
    assert world.go_on() == world.frames


def test_a_corrupt_artifact_leaves_nothing(world: World) -> None:
    (pack,) = (world.folder / "store").glob("v1/packs/*/*")
    pack.chmod(0o644)
    damage(pack, 100)
    world.cut(1000)
    assert world.left == []


KILLED = """
import sys, time
from pathlib import Path
from tests import test_partial as t
class Slow(t.PosixStore):
    def fill(self, *rest):
        time.sleep(0.1)
        super().fill(*rest)
t.artcache.Cache([Slow(Path(sys.argv[1]))], home=sys.argv[2], host=t.HOST).fetch(t.thing)
"""


def test_a_killed_restore_goes_on(world: World) -> None:
    words = [sys.executable, "-c", KILLED, world.folder / "store", world.home]
    child = subprocess.Popen(words, cwd=Path(__file__).parent.parent)
    for _ in range(600):
        if any(b"\1" in (left / "frames").read_bytes() for left in _marked(world)):
            break
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert 0 < world.go_on() < world.frames


def _marked(world: World) -> Iterator[Path]:
    return (left for left in world.left if (left / "frames").exists())


def test_ctrl_c_keeps_what_is_there(world: World) -> None:
    class Interrupted(Leaving):
        def fill(self, name: str, offset: int, out: memoryview) -> None:
            if self.served == self.serves:
                raise KeyboardInterrupt
            super().fill(name, offset, out)

    with pytest.raises(KeyboardInterrupt):
        world.cache(Interrupted(world.folder / "store", 4)).fetch(thing)
    assert world.go_on() == world.frames - 4


def test_each_restore_gets_a_part_of_an_ext4_of_its_own(world: World) -> None:
    place = mount_of(world.folder)
    if not place or place.kind != "ext4" or not shutil.which("lsattr"):
        pytest.skip(f"no ext4 here, or no lsattr: {place}")
    world.go_on()

    folder = world.home / "v1" / "partial"
    said = subprocess.run(["lsattr", "-d", folder], capture_output=True, text=True, check=True)

    assert "T" in said.stdout.split()[0]


def test_a_file_system_without_parts_restores_all_the_same(world: World) -> None:
    with small_disk(world.folder / "small", 64 << 20) as disk:
        world.home = disk / "home"
        world.go_on()
