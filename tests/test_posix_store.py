"""The folder as a store: the contract on a real disk and as a Drive, and what disks do to it."""

from __future__ import annotations

import io
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from artcache import disk
from artcache.disk import free_bytes
from artcache.errors import (
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from artcache.store import Store, StoreSpec
from artcache.stores import mount, open_store, posix
from artcache.stores.posix import PosixStore
from tests.mounts import mounted_drive
from tests.store_contract import NAME, PACK, StoreContract, names
from tests.world import as_nobody, public_folder, python, small_disk

NOISE = os.urandom(300_000)


class TestFolder(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return PosixStore(tmp_path / "store", mount_like=False)


def test_what_a_killed_writer_left_is_listed_with_its_age_and_discarded(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store", mount_like=False)
    store.create(PACK, b"whole")
    folder = (tmp_path / "store" / PACK).parent
    (folder / ".tmp-7-0a").write_bytes(b"half")
    os.utime(folder / ".tmp-7-0a", (1000, 1000))

    (left,) = store.leftovers()

    assert (left.size, left.modified) == (4, 1000.0)
    store.discard(left.name)
    assert os.listdir(folder) == [Path(PACK).name]


@pytest.mark.parametrize("name", ["v1/../.tmp-x", "/.tmp-x", "v1/packs/x.pack", ".tmp", ""])
def test_only_leftovers_are_discarded(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError):
        PosixStore(tmp_path / "store").discard(name)


class TestLikeADrive(StoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> Store:
        return PosixStore(tmp_path / "store", mount_like=True)


@pytest.fixture(scope="module")
def drive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with mounted_drive(tmp_path_factory.mktemp("drive")) as (folder, _):
        yield folder


class TestMountedDrive(StoreContract):
    @pytest.fixture
    def store(self, drive: Path) -> Store:
        return PosixStore(drive / f"store {len(os.listdir(drive))}" / "cache")

    def test_one_that_can_only_be_read_is_denied(self, drive: Path, tmp_path: Path) -> None:
        (drive / "shared").mkdir()
        done = subprocess.run(["mount", "--bind", drive, tmp_path], check=False)
        if done.returncode:
            pytest.skip("nothing can be mounted here")
        try:
            store = PosixStore(tmp_path / "shared")
            assert not store.traits.exclusive_create
            store.probe()
            assert os.listdir(drive / "shared") == []
            subprocess.run(["mount", "-o", "remount,ro,bind", tmp_path], check=True)
            with pytest.raises(StoreDenied, match="Read-only"):
                store.probe()
        finally:
            subprocess.run(["umount", "--lazy", tmp_path], check=True)

    def test_it_is_seen_to_be_one(self, store: PosixStore, tmp_path: Path) -> None:
        assert (store.traits.exclusive_create, store.traits.durable_on_return) == (False, False)
        assert PosixStore(tmp_path).traits.exclusive_create


# -- many writers -------------------------------------------------------------------------

RACE = """
import sys
from pathlib import Path
from artcache.errors import ObjectExists
from artcache.stores.posix import PosixStore
store = PosixStore(Path(sys.argv[1]), mount_like=sys.argv[2] == "True")
print("ready", flush=True)
sys.stdin.readline()
try:
    store.create("v1/manifests/thing/0a.json", sys.argv[3].encode() * 50_000)
    print("won")
except ObjectExists:
    print("lost")
"""


@pytest.mark.parametrize("mount_like", [False, True])
def test_of_twenty_processes_one_creates_the_object(tmp_path: Path, mount_like: bool) -> None:
    letters = "abcdefghijklmnopqrst"
    racers = [python(RACE, tmp_path, mount_like, letter) for letter in letters]
    for racer in racers:
        assert racer.stdout and racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin
        racer.stdin.write("\n")
        racer.stdin.flush()
    said = [racer.communicate() for racer in racers]

    assert all(err == "" for _, err in said), said
    winners = [letter for letter, (out, _) in zip(letters, said, strict=True) if out == "won\n"]
    assert len(winners) == 1
    store = PosixStore(tmp_path, mount_like=mount_like)
    assert store.get(NAME, limit=50_000) == winners[0].encode() * 50_000
    assert names(store, "v1") == [NAME]


# -- deaths -------------------------------------------------------------------------------

CREATING = """
import os, signal, sys
from pathlib import Path
from artcache.stores.posix import PosixStore

calls, last = 0, int(sys.argv[2])
def counted(name):
    real = getattr(os, name)
    def call(*rest, **options):
        global calls
        if calls == last:
            os.kill(os.getpid(), signal.SIGKILL)
        calls += 1
        return real(*rest, **options)
    setattr(os, name, call)
for name in ("copy_file_range", "fsync", "link", "unlink"):
    counted(name)
PosixStore(Path(sys.argv[1]), mount_like=False).create("v1/packs/0a/0a.pack", Path(sys.argv[3]))
"""


def test_a_kill_at_any_step_of_a_create_leaves_the_whole_object_or_none(tmp_path: Path) -> None:
    (tmp_path / "noise").write_bytes(NOISE)
    steps = range(15)
    started = [python(CREATING, tmp_path / str(step), step, tmp_path / "noise") for step in steps]
    seen = []
    for step, process in zip(steps, started, strict=True):
        code = process.wait()
        assert code in (0, -signal.SIGKILL), process.communicate()
        store = PosixStore(tmp_path / str(step), mount_like=False)
        listed = names(store, "v1")
        assert listed in ([], [PACK])
        if not listed:
            assert code != 0
            store.create(PACK, NOISE)
        assert store.get(PACK, limit=len(NOISE)) == NOISE
        seen.append((bool(listed), code == 0))
    assert seen[0] == (False, False)
    assert seen[-1] == (True, True)


# -- permissions --------------------------------------------------------------------------


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


@pytest.mark.parametrize("mount_like", [False, True])
@pytest.mark.parametrize(
    "write",
    [
        lambda store: store.create(PACK, b"x"),
        lambda store: store.delete(NAME),
        lambda store: store.quarantine(NAME),
    ],
    ids=["create", "delete", "quarantine"],
)
def test_a_folder_that_is_not_ours_denies_and_says_what_to_do(
    public: Path, write: Callable[[Store], object], mount_like: bool
) -> None:
    store = PosixStore(public / "store", mount_like=mount_like)
    store.create(NAME, b"x")
    for folder in (public / "store").rglob("*"):
        if folder.is_dir():
            folder.chmod(0o755)

    with pytest.raises(StoreDenied, match="cannot be written: Permission denied") as denied:
        as_nobody(lambda: write(store))

    assert f"read:{store.url}" in denied.value.hint
    assert as_nobody(lambda: store.get(NAME, limit=1)) == b"x"


@pytest.mark.parametrize(
    "read",
    [
        lambda store: store.get(NAME, limit=1),
        lambda store: store.get_range(NAME, 0, 1),
        lambda store: store.size(NAME),
        lambda store: list(store.list("v1/manifests")),
    ],
    ids=["get", "get_range", "size", "list"],
)
def test_what_may_not_be_read_is_denied_and_not_a_miss(
    public: Path, read: Callable[[Store], object]
) -> None:
    store = PosixStore(public / "store", mount_like=False)
    store.create(NAME, b"x")
    (public / "store" / "v1" / "manifests").chmod(0o700)
    with pytest.raises(StoreDenied, match="cannot be read"):
        as_nobody(lambda: read(store))


# -- disks --------------------------------------------------------------------------------


@pytest.mark.parametrize("mount_like", [False, True])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, mount_like: bool) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        store = PosixStore(disk, mount_like=mount_like)
        (tmp_path / "large").write_bytes(NOISE * 5)
        free = free_bytes(disk)
        for content in (NOISE * 5, tmp_path / "large"):
            with pytest.raises(StoreUnavailable, match="No space left"):
                store.create(PACK, content)
        assert names(store, "v1") == []
        assert free - free_bytes(disk) < 100_000
        store.create(PACK, NOISE)
        assert store.get(PACK, limit=len(NOISE)) == NOISE


def test_a_disk_that_turned_read_only_denies(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 1 << 20) as disk:
        store = PosixStore(disk, mount_like=False)
        store.create(NAME, b"x")
        subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        with pytest.raises(StoreDenied, match="Read-only"):
            store.create(PACK, b"x")
        assert store.get(NAME, limit=1) == b"x"


def test_a_disk_that_fails_is_unavailable_and_not_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PosixStore(tmp_path, mount_like=False)
    store.create(NAME, b"x")

    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "preadv", fail)
    monkeypatch.setattr(os, "scandir", fail)
    with pytest.raises(StoreUnavailable, match="Input/output"):
        store.get_range(NAME, 0, 1)
    with pytest.raises(StoreUnavailable, match="Input/output"):
        list(store.list("v1"))


def test_an_object_is_flushed_before_it_gets_its_name_and_the_name_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    fsync, link = os.fsync, os.link

    def flushed(handle: int) -> None:
        place = Path(f"/proc/self/fd/{handle}").resolve()
        done.append("folder" if place.is_dir() else "object")
        fsync(handle)

    def linked(source: str, target: str) -> None:
        done.append("name")
        link(source, target)

    PosixStore(tmp_path, mount_like=False).create(PACK, b"x")
    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "link", linked)
    PosixStore(tmp_path, mount_like=False).create(PACK.replace("0a.p", "0b.p"), b"x")
    assert done == ["object", "name", "folder"]


@pytest.mark.parametrize("number", [1, 38, 95, 22])
def test_a_disk_without_links_is_written_in_place_and_never_over_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def no_link(source: str, target: str) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", no_link)
    store = PosixStore(tmp_path, mount_like=False)
    store.create(NAME, b"first")
    with pytest.raises(ObjectExists):
        store.create(NAME, b"second")
    assert store.get(NAME, limit=5) == b"first"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["0a.json"]


def test_what_reads_back_differently_from_a_mount_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PosixStore(tmp_path, mount_like=True)
    monkeypatch.setattr(posix, "_same", lambda path, content: False)
    with pytest.raises(StoreUnavailable, match="read back differently"):
        store.create(NAME, b"x")
    assert names(store, "v1") == []


# -- what lies in the folder --------------------------------------------------------------


def test_what_is_no_object_is_not_listed(tmp_path: Path) -> None:
    store = PosixStore(tmp_path, mount_like=False)
    store.create(NAME, b"x")
    folder = (tmp_path / NAME).parent
    (folder / ".tmp-123-abc").write_bytes(b"half")
    (folder / ".hidden").mkdir()
    (folder / ".hidden" / "x.json").write_bytes(b"x")
    (folder / "nowhere.json").symlink_to("not there")
    assert names(store, "v1") == [NAME]


def test_a_folder_that_is_linked_into_the_store_is_not_gone_into(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store", mount_like=False)
    store.create(NAME, b"x")
    (tmp_path / "store" / "v1" / "loop").symlink_to("..")
    assert [name for name in names(store, "v1") if name.count("/") > 1] == [NAME]


def test_quarantine_says_where_the_object_is_now(tmp_path: Path) -> None:
    store = PosixStore(tmp_path, mount_like=False)
    store.create(NAME, b"bad")
    where = Path(store.quarantine(NAME))
    assert where.read_bytes() == b"bad"
    assert where.parent == tmp_path / "v1" / "quarantine"
    assert where.name.startswith("v1.manifests.thing.0a.json.")


def test_a_file_where_the_store_should_be_is_named(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("no folder")
    store = PosixStore(tmp_path / "store", mount_like=False)
    with pytest.raises(StoreUnavailable, match="store"):
        store.create(NAME, b"x")
    with pytest.raises(ObjectNotFound):
        store.get(NAME, limit=1)


def test_a_drive_that_was_unmounted_is_unavailable_and_not_a_miss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "DRIVE", str(tmp_path / "drive"))
    (tmp_path / "drive").mkdir()
    store = PosixStore(tmp_path / "drive" / "MyDrive" / "cache", mount_like=True)
    for use in (
        lambda: store.get(NAME, limit=1),
        lambda: list(store.list("v1")),
        lambda: store.create(NAME, b"x"),
    ):
        with pytest.raises(StoreUnavailable, match="not mounted") as refused:
            use()
        assert "drive.mount" in refused.value.hint
    assert not (tmp_path / "drive" / "MyDrive").exists()
    (tmp_path / "drive" / "MyDrive").mkdir()
    with pytest.raises(ObjectNotFound):
        store.get(NAME, limit=1)


# -- what is mounted there ----------------------------------------------------------------

MOUNTS = """\
22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw
30 22 0:26 / /content/drive rw,nosuid - fuse.drive drive rw,user_id=0
31 22 0:27 / /mnt/my\\040disk\\134x rw - fuse.sshfs host: rw
32 22 0:28 / /mnt/größe rw shared:7 master:2 - fuse rclone rw
33 30 0:29 / /content/drive/fast rw - tmpfs tmpfs rw
34 22 0:30 / /mnt/overlay rw - fuse.fuse-overlayfs overlay rw
35 22 8:17 / /mnt/stick rw - fuseblk /dev/sdb1 rw
36 22 0:31 / /over rw - ext4 /dev/vdb rw
37 36 0:32 / /over rw - fuse.x x rw
"""


@pytest.mark.parametrize(
    ("folder", "fuse"),
    [
        ("/data/cache", False),
        ("/content/drive", True),
        ("/content/drive/MyDrive/cache", True),
        ("/content/drives", False),
        ("/content/drive/fast/cache", False),
        ("/mnt/my disk\\x/cache", True),
        ("/mnt/größe/cache", True),
        ("/mnt/overlay/cache", False),
        ("/mnt/stick/cache", False),
        ("/over/there", True),
    ],
)
def test_a_fuse_mount_is_known_by_the_longest_mount_point(
    monkeypatch: pytest.MonkeyPatch, folder: str, fuse: bool
) -> None:
    monkeypatch.setattr(disk, "open", lambda *_: io.BytesIO(MOUNTS.encode()), raising=False)
    assert mount.is_fuse(Path(folder)) is fuse


def test_without_a_table_of_mounts_a_folder_is_a_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk, "open", lambda *_: io.BytesIO(b"\n"), raising=False)
    assert mount.is_fuse(Path("/x")) is False


# -- URLs ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("/mnt/cache", "/mnt/cache"),
        ("file:///mnt/cache", "/mnt/cache"),
        ("FILE:///mnt/my%20cache", "/mnt/my cache"),
        ("/mnt/100%20", "/mnt/100%20"),
    ],
)
def test_a_store_is_opened_by_its_url(url: str, path: str) -> None:
    assert open_store(url).url == path


def test_a_relative_folder_and_a_home_are_made_absolute(isolated: Path) -> None:
    assert open_store("cache").url == str(isolated / "work" / "cache")
    assert open_store("~/cache").url == str(isolated / "cache")


def test_a_url_that_nobody_reads_is_refused_with_an_example() -> None:
    with pytest.raises(UsageError, match="gopher") as refused:
        open_store("gopher://host/cache")
    assert "/content/drive/MyDrive" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("/mnt/cache", StoreSpec("/mnt/cache")),
        ("read:/mnt/cache", StoreSpec("/mnt/cache", "read")),
        ("write: /mnt/cache", StoreSpec("/mnt/cache", "write")),
        ("readwrite:/mnt/cache", StoreSpec("/mnt/cache")),
        (" gs://bucket/x ", StoreSpec("gs://bucket/x")),
        ("read:gs://bucket/x", StoreSpec("gs://bucket/x", "read")),
    ],
)
def test_a_store_s_mode_stands_before_its_url(text: str, spec: StoreSpec) -> None:
    assert StoreSpec.parse(text) == spec
    assert (spec.reads, spec.writes) == (spec.mode != "write", spec.mode != "read")


@pytest.mark.parametrize("text", ["", " ", "read:", "write: "])
def test_a_mode_without_a_url_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="names no store"):
        StoreSpec.parse(text)


# -- reading a pack's ranges --------------------------------------------------------------


def test_a_pack_is_opened_once_for_all_ranges_of_a_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = PosixStore(tmp_path)
    store.create(PACK, bytes(range(200)))
    opened: list[str] = []
    real = os.open
    monkeypatch.setattr(
        os, "open", lambda path, *rest: (opened.append(str(path)), real(path, *rest))[1]
    )
    with ThreadPoolExecutor(1) as pool:
        parts = pool.map(lambda offset: store.get_range(PACK, offset, 20), range(0, 200, 20))
        assert b"".join(parts) == bytes(range(200))
    assert opened == [str(tmp_path / PACK)]


def test_the_main_thread_keeps_no_pack_open(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.create(PACK, b"content")
    assert store.get_range(PACK, 0, 7) == b"content"
    handles = [os.path.realpath(f"/proc/self/fd/{fd}") for fd in os.listdir("/proc/self/fd")]
    assert str(tmp_path / PACK) not in handles


def test_a_pack_that_was_replaced_or_removed_meanwhile_is_seen(tmp_path: Path) -> None:
    store = PosixStore(tmp_path)
    store.create(PACK, b"old")
    assert store.get_range(PACK, 0, 3) == b"old"
    store.quarantine(PACK)
    with pytest.raises(ObjectNotFound):
        store.get_range(PACK, 0, 3)
    store.create(PACK, b"new")
    assert store.get_range(PACK, 0, 3) == b"new"
