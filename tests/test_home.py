"""The home: entries appear whole, broken ones are noticed, and what a death leaves is swept."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from artcache import seal as seals
from artcache import tree as trees
from artcache.disk import free_bytes
from artcache.errors import Busy, Corrupt, LocalDisk
from artcache.home import Entry, Home
from artcache.key import Key
from artcache.manifest import Manifest
from artcache.tree import digest_files, scan
from tests.making import SMALL, Tree, key, picture, plant
from tests.world import as_nobody, public_folder, python, small_disk

OLD = 120.0
"""Seconds after which what nobody holds is swept."""


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


def put(home: Home, named: Key | None = None, tree: Tree = SMALL, origin: str = "built") -> Entry:
    """Make an entry as `cache` does."""
    with home.staging() as staging:
        staged = staging / "entry"
        plant(staged / "tree", tree)
        return home.commit(staged, described(staged / "tree", named), origin)


def described(tree: Path, named: Key | None = None) -> Manifest:
    found = scan(tree)
    return Manifest(
        named or key(),
        digest_files(tree, found),
        found.links,
        found.dirs,
        provenance={"milliseconds": 2500},
    )


def staged_folders(home: Home) -> list[str]:
    return os.listdir(home.folder("tmp"))


def age(folder: Path) -> None:
    os.utime(folder, (time.time() - OLD, time.time() - OLD))


# -- entries ------------------------------------------------------------------------------


def test_what_was_committed_is_found(home: Home, tmp_path: Path) -> None:
    put(home, origin="/mnt/store")

    entry = home.lookup(key())

    assert entry
    assert picture(entry.path) == picture(plant(tmp_path / "same", SMALL))
    assert entry.tree == str(entry.path)
    assert (entry.origin, entry.build_seconds, entry.size) == ("/mnt/store", 2.5, 2024)
    assert entry.manifest().key == key()
    assert abs(entry.made - time.time()) < 60
    assert abs(entry.used - time.time()) < 60


def test_another_key_is_a_miss(home: Home) -> None:
    assert home.lookup(key()) is None
    put(home)
    assert home.lookup(key(commit="2")) is None


def test_a_lookup_makes_nothing(home: Home) -> None:
    home.lookup(key())
    assert not home.root.exists()


def test_the_first_entry_of_a_key_stays(home: Home) -> None:
    put(home, tree={"a": b"first"})
    second = put(home, tree={"a": b"second"})
    assert (second.path / "a").read_bytes() == b"first"
    assert staged_folders(home) == []


def test_all_entries_are_listed_or_those_of_a_recipe(home: Home) -> None:
    for commit in "12":
        put(home, key(commit=commit))
    put(home, Key({"recipe": "other"}))
    found = [entry.key for entry in home.entries() if isinstance(entry, Entry)]
    assert set(found) == {key(commit="1"), key(commit="2"), Key({"recipe": "other"})}
    assert [e.key for e in home.entries("other")] == [Key({"recipe": "other"})]  # type: ignore[union-attr]
    assert list(Home(home.root / "none").entries()) == []


def test_a_broken_entry_is_listed_as_its_error(home: Home) -> None:
    put(home)
    for name, data in (("1" * 32, None), ("2" * 32, b"{}"), ("3" * 32, b"garbage")):
        folder = home.folder("entries") / "thing" / name
        folder.mkdir()
        if data is not None:
            (folder / seals.NAME).write_bytes(data)
    found = list(home.entries())
    assert [type(entry) for entry in found].count(Corrupt) == 3
    assert [type(entry) for entry in found].count(Entry) == 1


# -- what is not sound --------------------------------------------------------------------


def spoil(entry: Entry, *, visibly: bool) -> None:
    """Change a byte; visibly: so that the modification time tells."""
    file = entry.path / "bin/tool"
    before = file.stat()
    file.write_bytes(b"#!/bin/sh\necho TOOL\n")
    later = before.st_mtime_ns + visibly
    os.utime(file, ns=(before.st_atime_ns, later))


def test_a_changed_tree_is_corrupt(home: Home) -> None:
    spoil(put(home), visibly=True)
    with pytest.raises(Corrupt, match="bin/tool was changed"):
        home.lookup(key())


def test_verify_reads_every_byte(home: Home) -> None:
    entry = put(home)
    assert home.lookup(key(), verify=True)
    spoil(entry, visibly=False)
    assert home.lookup(key())
    with pytest.raises(Corrupt, match="its content changed"):
        home.lookup(key(), verify=True)


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda folder: (folder / seals.NAME).unlink(), "has no seal"),
        (lambda folder: (folder / seals.NAME).write_bytes(b""), "seal.json|Expecting"),
        (lambda folder: (folder / seals.NAME).write_bytes(b'{"seal":9}'), "no seal of format"),
    ],
)
def test_an_entry_whose_seal_is_none_is_corrupt(
    home: Home, damage: Callable[[Path], object], why: str
) -> None:
    damage(put(home).folder)
    with pytest.raises(Corrupt, match=why):
        home.lookup(key())


@pytest.mark.parametrize("fields", ["{}", "[]", "5", "null", '{"recipe":5}', '{"recipe":"other"}'])
def test_an_entry_of_another_key_is_corrupt(home: Home, fields: str) -> None:
    file = put(home).folder / seals.NAME
    body = {**json.loads(file.read_bytes()), "fields": json.loads(fields)}
    file.unlink()
    file.write_text(json.dumps(body))
    with pytest.raises(Corrupt, match="another key"):
        home.lookup(key())


@pytest.mark.parametrize("data", [b"", b"{}", None])
def test_an_entry_without_a_sound_manifest_fails_a_verify(home: Home, data: bytes | None) -> None:
    file = put(home).folder / "manifest.json"
    if data is None:
        file.unlink()
    else:
        file.write_bytes(data)
    with pytest.raises(Corrupt, match="manifest"):
        home.lookup(key(), verify=True)


def test_a_quarantined_entry_is_out_of_the_way_and_kept(home: Home) -> None:
    before = picture(put(home).path)
    aside = home.quarantine(key())
    assert home.lookup(key()) is None
    assert picture(aside / "tree") == before
    put(home)
    assert home.quarantine(key()) != aside


def test_two_processes_may_quarantine_the_same_entry(home: Home) -> None:
    put(home)
    home.quarantine(key())
    home.quarantine(key())
    assert home.lookup(key()) is None


# -- restarts -----------------------------------------------------------------------------


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The trees that were read in full."""
    seen: list[Path] = []
    real = trees.differing
    monkeypatch.setattr(
        trees, "differing", lambda root, *rest: seen.append(root) or real(root, *rest)
    )
    return seen


def restart(monkeypatch: pytest.MonkeyPatch, boot: str = "the next boot") -> None:
    monkeypatch.setattr(seals, "boot_id", lambda: boot)


def test_after_a_restart_the_first_use_reads_the_tree_once(
    home: Home, monkeypatch: pytest.MonkeyPatch, reads: list[Path]
) -> None:
    entry = put(home)
    home.lookup(key())
    assert reads == []
    restart(monkeypatch)
    for _ in range(3):
        assert home.lookup(key())
    restart(monkeypatch, "and the one after")
    assert home.lookup(key())
    assert reads == [entry.path]


def test_what_a_crash_left_of_a_tree_is_found_at_the_first_use(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil(put(home), visibly=False)
    restart(monkeypatch)
    with pytest.raises(Corrupt, match="its content changed"):
        home.lookup(key())


def test_a_verify_does_not_make_memory_into_disk(
    home: Home, monkeypatch: pytest.MonkeyPatch, reads: list[Path]
) -> None:
    """What is read in the boot that wrote it may come from memory: a crash can still lose it."""
    put(home)
    home.lookup(key(), verify=True)
    reads.clear()
    restart(monkeypatch)
    home.lookup(key())
    assert len(reads) == 1


def test_where_boots_cannot_be_told_apart_the_tree_is_flushed_at_once(
    home: Home, monkeypatch: pytest.MonkeyPatch, reads: list[Path]
) -> None:
    flushed: list[bool] = []
    monkeypatch.setattr("artcache.home.boot_id", lambda: "")
    monkeypatch.setattr(os, "sync", lambda: flushed.append(True))
    put(home)
    restart(monkeypatch)
    assert home.lookup(key())
    assert (flushed, reads) == ([True], [])


# -- a home that is not ours --------------------------------------------------------------


@pytest.mark.parametrize("verify", [False, True])
def test_a_home_that_cannot_be_written_is_a_good_home(public: Path, verify: bool) -> None:
    home = Home(public / "home")
    put(home)
    home.root.chmod(0o755)
    assert as_nobody(lambda: home.lookup(key(), verify=verify).tree) == str(  # type: ignore[union-attr]
        home.folder("entries") / "thing" / key().hash / "tree"
    )


def test_a_home_that_cannot_be_written_is_read_after_each_restart(
    public: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(public / "home")
    put(home)
    restart(monkeypatch)
    assert as_nobody(lambda: bool(home.lookup(key()) and home.lookup(key())))


def test_writing_into_a_home_that_is_not_ours_says_so(public: Path) -> None:
    (public / "home").mkdir(mode=0o755)
    with pytest.raises(LocalDisk, match="permission denied") as refused:
        as_nobody(lambda: str(put(Home(public / "home"))))
    assert "ARTCACHE_DIR" in refused.value.hint


def test_a_full_disk_is_named_with_what_is_free(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        home = Home(disk / "home")
        with pytest.raises(LocalDisk, match=r"the disk is full.*MB are free"), home.staging() as s:
            staged = s / "entry"
            plant(staged / "tree", {"a": b"x" * 1000})
            (disk / "ballast").write_bytes(b"x" * (free_bytes(disk) - 8192))
            (disk / "rest").write_bytes(b"x" * free_bytes(disk))
            home.commit(staged, described(staged / "tree"), "built")
        assert home.lookup(key()) is None
        assert staged_folders(home) == []


def test_a_full_disk_does_not_keep_one_from_locking(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        home = Home(disk / "home")
        with home.lock(key(), waiting=print):
            pass
        (disk / "ballast").write_bytes(b"x" * free_bytes(disk))
        with home.lock(key(), waiting=print):
            pass


def test_a_rename_that_fails_says_why(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise PermissionError(13, "Permission denied", str(target))

    with home.staging() as staging:
        plant(staging / "entry/tree", SMALL)
        manifest = described(staging / "entry/tree")
        monkeypatch.setattr(Path, "rename", refuse)
        with pytest.raises(LocalDisk, match="permission denied"):
            home.commit(staging / "entry", manifest, "built")


# -- staging ------------------------------------------------------------------------------


def test_a_staging_folder_is_empty_and_gone_afterwards(home: Home) -> None:
    with home.staging() as staging:
        assert os.listdir(staging) == []
        plant(staging / "tree", SMALL)
        assert staging.parent.parent.parent == home.root
    assert staged_folders(home) == []


def test_a_staging_folder_is_gone_after_an_error_too(home: Home) -> None:
    with pytest.raises(ZeroDivisionError), home.staging() as staging:
        (staging / "x").touch()
        raise ZeroDivisionError
    assert staged_folders(home) == []


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o500])
def test_folders_that_their_owner_cannot_write_are_removed_too(public: Path, mode: int) -> None:
    def try_it() -> list[str]:
        home = Home(public / "home")
        with home.staging() as staging:
            plant(staging / "a/b", {"c/file": b"x", "c/link": "file", "d": None})
            (staging / "a/b/c").chmod(mode)
            (staging / "a/b").chmod(mode)
        put(home)
        place = home.folder("entries") / "thing" / key().hash / "tree/bin"
        place.chmod(mode)
        assert home.remove(key())
        return staged_folders(home)

    assert as_nobody(try_it) == []


IN_STAGING = """
import sys, time
from pathlib import Path
from artcache.home import Home
with Home(Path(sys.argv[1])).staging() as staging:
    (staging / "half").write_text("done")
    print(staging, flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_left_is_swept_by_the_next(home: Home) -> None:
    process = python(IN_STAGING, home.root)
    assert process.stdout
    left = Path(process.stdout.readline().strip())
    age(left)
    with home.staging():
        assert (left / "half").exists()  # its maker lives
    process.kill()
    process.wait()
    age(left)
    with home.staging():
        assert not left.exists()


def test_what_is_young_is_not_swept(home: Home) -> None:
    with home.staging():
        pass
    (home.folder("tmp") / "young").mkdir()
    with home.staging():
        assert "young" in staged_folders(home)


def test_what_is_old_and_held_is_not_swept(home: Home) -> None:
    held = home.folder("tmp") / "held"
    held.mkdir(parents=True)
    age(held)
    handle = os.open(held, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with home.staging():
        assert held.exists()
    os.close(handle)
    with home.staging():
        assert not held.exists()


def test_a_folder_that_another_process_sweeps_first_is_no_error(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Path.iterdir
    monkeypatch.setattr(
        Path, "iterdir", lambda self: iter([*real(self), self / "swept by another"])
    )
    with home.staging() as staging:
        assert staging.is_dir()


# -- commit is all or nothing -------------------------------------------------------------

COMMITTING = """
import os, signal, sys
from pathlib import Path
from artcache.home import Home
from tests.test_home import described, key, plant, SMALL

calls, last = 0, int(sys.argv[2])
def counted(name):
    real = getattr(Path, name)
    def call(self, *rest, **options):
        global calls
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return real(self, *rest, **options)
    setattr(Path, name, call)

home = Home(Path(sys.argv[1]))
with home.staging() as staging:
    plant(staging / "entry/tree", SMALL)
    manifest = described(staging / "entry/tree")
    for name in ("write_bytes", "replace", "mkdir", "rename"):
        counted(name)
    home.commit(staging / "entry", manifest, "built")
"""


def test_a_kill_at_any_step_of_a_commit_leaves_all_or_nothing(tmp_path: Path) -> None:
    seen = []
    processes = [python(COMMITTING, tmp_path / str(step), step) for step in range(10)]
    for step, process in enumerate(processes):
        home = Home(tmp_path / str(step))
        code = process.wait()
        entry = home.lookup(key(), verify=True)
        assert bool(entry) == (code == 0)
        assert code in (0, -signal.SIGKILL)
        seen.append(bool(entry))
        put(home)
        assert home.lookup(key())
    assert seen[0] is False
    assert seen[-1] is True


# -- locks --------------------------------------------------------------------------------

HOLDING = """
import sys
from pathlib import Path
from artcache.home import Home
from tests.making import key
with Home(Path(sys.argv[1])).lock(key(), waiting=print):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_held_lock_is_busy_and_names_its_holder(home: Home) -> None:
    process = python(HOLDING, home.root)
    assert process.stdout and process.stdout.readline() == "held\n"

    with (
        pytest.raises(Busy, match=f"process {process.pid} since .* is making thing"),
        home.lock(key(), waiting=print, wait=False),
    ):
        pass
    with home.lock(key(commit="2"), waiting=print, wait=False):
        pass

    process.communicate("\n")
    with home.lock(key(), waiting=print, wait=False):
        pass


@pytest.mark.parametrize("how", ["release", "kill"])
def test_a_lock_is_waited_for_until_its_holder_is_done_or_dead(home: Home, how: str) -> None:
    process = python(HOLDING, home.root)
    assert process.stdout and process.stdin and process.stdout.readline() == "held\n"
    told: list[str] = []

    def waiting(holder: str) -> None:
        told.append(holder)
        if how == "kill":
            process.kill()
        else:
            process.stdin.write("\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]

    with home.lock(key(), waiting=waiting):
        pass

    assert len(told) == 1
    assert told[0].startswith(f"process {process.pid}")
    process.wait()
    process.stdin.close()


# -- removing, logs -----------------------------------------------------------------------


def test_a_removed_entry_is_gone(home: Home) -> None:
    put(home)
    assert home.remove(key())
    assert home.lookup(key()) is None
    assert not home.remove(key())
    assert staged_folders(home) == []


def test_the_ten_newest_logs_of_a_recipe_are_kept(home: Home) -> None:
    folder = home.new_log(key()).parent
    for day in range(1, 16):
        (folder / f"202601{day:02}-120000-{key().hash[:12]}-1.log").touch()
    (home.new_log(Key({"recipe": "other"}))).touch()

    home.new_log(key()).touch()

    kept = sorted(os.listdir(folder))
    assert len(kept) == 10
    assert kept[0].startswith("20260107")
    assert len(os.listdir(folder.parent / "other")) == 1


# -- the warm path ------------------------------------------------------------------------

HEAVY = (
    "zstandard blake3 subprocess concurrent.futures click rich tomllib importlib.metadata fsspec"
)
WARM = """
import sys
from pathlib import Path
from artcache.home import Home
from artcache.key import Key
assert Home(Path(sys.argv[1])).lookup(Key({"recipe": "thing", "commit": "1"}))
print(*sorted(set(sys.argv[2:]) & set(sys.modules)))
"""


def test_a_hit_imports_nothing_that_it_does_not_need(home: Home) -> None:
    put(home)
    out, err = python(WARM, home.root, *HEAVY.split()).communicate()
    assert (out.strip(), err) == ("", "")


def test_a_listing_is_no_use(home: Home) -> None:
    """The kernel would record the first read after a write, and one a day."""
    entry = put(home)
    then = time.time() - 30 * 86400
    os.utime(entry.folder / "seal.json", (then, then))
    (listed,) = home.entries()
    assert isinstance(listed, Entry)
    assert abs(listed.used - then) < 1
    home.lookup(key())
    assert abs(listed.used - time.time()) < 60
