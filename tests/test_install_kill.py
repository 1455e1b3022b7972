"""`install` and `uninstall` killed before every call that changes the disk.

A forked child counts its own calls (by audit events, and by wrapping the calls
that have none) and kills itself at the k-th; a kill at a write comes when half
of it is written. Afterwards `recover` must leave all-old or all-new.
"""

from __future__ import annotations

import fcntl
import itertools
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from install_trees import QUICK, Desk, in_child, snapshot

from artcache.install import Tree, durable, materialise, recover

_CHANGING = {
    "os.rename", "os.link", "os.symlink", "os.remove", "os.mkdir", "os.rmdir", "os.chmod",
}  # fmt: skip
OLD = {
    "bin/tool": b"tool 1" * 300,
    "lib/libtool.so.1": b"so 1" * 300,
    "lib/libtool.so": "libtool.so.1",
    "cfg/a.cfg": b"a",
    "cfg/b.cfg": b"b 1",
    "share": b"a file, later a folder",
}
NEW = {
    "bin/tool": b"tool 2" * 300,
    "lib/libtool.so.2": b"so 2" * 300,
    "lib/libtool.so": "libtool.so.2",
    "cfg/a.cfg": b"a",
    "cfg/b.cfg": b"b 2",
    "share/doc/x": b"x",
}


class Killer:
    """Ends its process at the `limit`-th call that changes something."""

    def __init__(self, limit: int, die: Callable[[], None]) -> None:
        self.limit, self.die, self.calls = limit, die, 0

    def arm(self) -> None:
        sys.addaudithook(self._on_event)  # for good, in this child
        write, copy_range, sync = os.write, os.copy_file_range, os.fsync

        def half_write(target, data):
            self._count(lambda: write(target, bytes(data)[: len(data) // 2]))
            return write(target, data)

        def half_copy(source, target, count):
            size = os.fstat(source).st_size
            self._count(lambda: copy_range(source, target, size // 2))
            return copy_range(source, target, count)

        def no_sync(target):
            self._count()
            return sync(target)

        os.write, os.copy_file_range, os.fsync = half_write, half_copy, no_sync

    def _on_event(self, event: str, arguments: tuple[object, ...]) -> None:
        if event in _CHANGING or (event == "open" and int(arguments[2] or 0) & os.O_CREAT):  # type: ignore[call-overload]
            self._count()

    def _count(self, before: Callable[[], object] = lambda: None) -> None:
        self.calls += 1
        if self.calls == self.limit:
            before()
            self.die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def killed(action: Callable[[], object], limit: int, die: Callable[[], None] = die) -> bool:
    """Whether the action was killed at that call (or had ended before)."""

    def work() -> None:
        Killer(limit, die).arm()
        action()

    code = in_child(work)
    assert code in (0, -signal.SIGKILL)
    return code != 0


class Scene:
    """A prefix with other people's files, before and after one change."""

    def __init__(self, base: Path, name: str) -> None:
        self.base, self.name = base, name
        self.old_tree, self.new_tree = self._trees(Desk(base / "template"))
        self.desk = self.fresh()
        self.old = self.everything()
        self.act()
        self.new = self.everything()
        assert self.old != self.new

    def _trees(self, desk: Desk) -> tuple[Tree, Tree]:
        old, new = desk.tree("1", OLD), desk.tree("2", NEW, dirs=("backup",))
        if self.name == "into a new folder":
            return old, new
        (desk.prefix / "bin").mkdir(parents=True)
        (desk.prefix / "bin/theirs").write_bytes(b"theirs")
        (desk.prefix / "cfg").mkdir()
        (desk.prefix / "cfg/a.cfg").write_bytes(b"a")  # identical to ours, and not ours
        desk.install(desk.tree("0", {"lib/other": b"other"}), owner="other")
        if self.name in ("upgrade", "uninstall"):
            desk.install(old)
        return old, new

    def fresh(self) -> Desk:
        """As before the change."""
        place = self.base / "now"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.base / "template", place, symlinks=True)
        self.desk = Desk(place)
        return self.desk

    def act(self) -> None:
        if self.name == "uninstall":
            self.desk.uninstall()
        else:
            self.desk.install(self.new_tree)

    def everything(self) -> dict[str, object]:
        return snapshot(self.desk.prefix)

    def recover(self) -> list[str]:
        return recover(self.desk.pending)

    def check(self, where: str) -> None:
        state = self.everything()
        assert state in (self.old, self.new), where
        assert self.desk.at_rest() or not self.desk.prefix.exists(), where
        assert not self.desk.pending.exists(), where
        if state == self.old:
            self.act()  # and it can simply be tried again
            assert self.everything() == self.new, where


SCENES = ["into a new folder", "beside others", "upgrade", "uninstall"]


@pytest.fixture
def scene(request, monkeypatch):
    monkeypatch.setattr(materialise, "LINK_FROM", 1024)  # both ways, with small files
    with tempfile.TemporaryDirectory(dir=QUICK) as base:
        yield Scene(Path(base), request.param)


@pytest.mark.parametrize("scene", SCENES, indirect=True)
def test_killed_at_any_call_the_next_command_leaves_all_old_or_all_new(scene):
    outcomes = []
    for limit in itertools.count(1):
        scene.fresh()
        if not killed(scene.act, limit):
            break
        theirs = {path: scene.old[path] for path in scene.old.keys() & scene.new.keys()}
        theirs = {path: item for path, item in theirs.items() if item == scene.new[path]}
        assert scene.everything().items() >= theirs.items(), f"theirs, at call {limit}"
        scene.recover()
        outcomes.append(scene.everything() == scene.new)
        scene.check(f"killed at call {limit}")
    assert len(outcomes) >= 20
    assert outcomes == sorted(outcomes)  # old, old, ... new, new: one point decides
    assert len(set(outcomes)) == 2
    print(f"{scene.name}: {len(outcomes)} kill points")  # noqa: T201


@pytest.mark.parametrize("scene", SCENES, indirect=True)
def test_killed_again_while_recovering_changes_nothing_about_that(scene):
    pairs = 0
    for limit in itertools.count(2, 4):
        scene.fresh()
        if not killed(scene.act, limit):
            break
        for again in itertools.count(1 + limit % 3, 3):
            scene.fresh()
            killed(scene.act, limit)
            if not killed(scene.recover, again):
                break
            scene.recover()
            scene.check(f"killed at call {limit}, then at call {again} of recovering")
            pairs += 1
    assert pairs >= 10
    print(f"{scene.name}: {pairs} nested kill points")  # noqa: T201


@pytest.mark.parametrize("scene", ["upgrade"], indirect=True)
def test_what_the_user_edits_after_the_kill_is_not_lost(scene):
    for limit in itertools.count(1, 3):
        scene.fresh()
        if not killed(scene.act, limit):
            break
        edited = scene.desk.prefix / "cfg/b.cfg"
        edited.write_bytes(b"mine")
        scene.recover()
        assert edited.read_bytes() == b"mine"
        scene.act()
        assert edited.read_bytes() == b"mine"
        assert scene.everything().items() >= {"share/doc/x": (b"x", 0o644)}.items()


@pytest.mark.parametrize("scene", ["upgrade"], indirect=True)
def test_the_next_install_recovers_a_prefix_even_from_another_home(scene):
    for limit in itertools.count(1, 3):
        scene.fresh()
        if not killed(scene.act, limit):
            break
        shutil.rmtree(scene.desk.pending, ignore_errors=True)
        scene.act()
        scene.check(f"killed at call {limit}")


# -- power cuts ---------------------------------------------------------------------------

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_NO_FLUSH = 2


class Disk:
    """A small ext4 in a file, whose power can be cut."""

    def __init__(self, base: Path) -> None:
        self.image, self.mount = base / "disk", base / "mnt"
        self.mount.mkdir()
        with self.image.open("wb") as file:
            file.truncate(24 << 20)
        try:
            _run("mkfs.ext4", "-q", "-F", "-b", "1024", self.image)
            self.switch_on()
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"this machine does not let us mount a loop ext4: {error}")

    def switch_on(self) -> None:
        _run("mount", "-o", "loop", self.image, self.mount)

    def switch_off(self) -> None:
        _run("umount", self.mount)

    def cut(self) -> None:
        """Lose all that is not on the disk, and our own life."""
        handle = os.open(self.mount, os.O_RDONLY)
        fcntl.ioctl(handle, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
        die()


def _run(*argv: object) -> None:
    subprocess.run([str(word) for word in argv], check=True, capture_output=True)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount")
@pytest.mark.parametrize("name", ["beside others", "upgrade", "uninstall"])
def test_a_power_cut_at_any_call_leaves_whole_files(tmp_path, name, monkeypatch):
    monkeypatch.setattr(materialise, "LINK_FROM", 1024)
    disk = Disk(tmp_path)
    try:
        scene = Scene(disk.mount, name)
        for limit in itertools.count(1, 2):
            scene.fresh()
            durable.sync_disk(disk.mount)
            if not killed(scene.act, limit, disk.cut):
                break
            disk.switch_off()
            disk.switch_on()
            scene.recover()
            scene.check(f"power cut at call {limit}")
    finally:
        disk.switch_off()
