"""A Google Drive that is mounted in a notebook: late, ill, gone, and how it comes back."""

from __future__ import annotations

import errno
import os
import sys
import threading
import time
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import artcache
from artcache.errors import ObjectNotFound, StoreUnavailable
from artcache.recipe import FunctionRecipe
from artcache.store import Store
from artcache.stores import mount, open_store
from artcache.stores.faults import Limits
from artcache.stores.posix import PosixStore
from tests.mounts import Mounted, mounted_drive
from tests.store_contract import NAME, PACK, names
from tests.test_cache import Told
from tests.toy import Machine

DATA = bytes(i % 251 for i in range(600_000))


@pytest.fixture(scope="module")
def mounts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    with mounted_drive(tmp_path_factory.mktemp("drive"), "drive/My Drive") as mounted:
        yield mounted


@pytest.fixture
def drive(mounts: Mounted, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mounted]:
    """A folder with a space in its name, as one of the two names of My Drive."""
    monkeypatch.setattr(mount, "DRIVE", str(mounts.folder.parent))
    monkeypatch.setattr(mount, "PATIENCE", Limits(attempts=3, patience=5, first_wait=0.02))
    mounts.illness.heal()
    folder = mounts.folder / f"my cache {len(os.listdir(mounts.folder))}"
    folder.mkdir()
    yield mounts._replace(folder=folder)
    mounts.illness.heal()


@pytest.fixture
def store(drive: Mounted) -> PosixStore:
    store = PosixStore(drive.folder)
    store.create(NAME, b"content")
    store.create(PACK, DATA)
    return store


# -- ill ----------------------------------------------------------------------------------

READS = {
    "get": lambda store: store.get(NAME, limit=100),
    "get_range": lambda store: store.get_range(PACK, 1000, 500_000),
    "size": lambda store: store.size(PACK),
    "list": lambda store: names(store, "v1"),
}
WHERE = {"get": "read", "get_range": "read", "size": "getattr", "list": "readdir"}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN])
@pytest.mark.parametrize("read", READS)
def test_a_hiccup_of_the_mount_is_not_noticed(
    drive: Mounted, store: PosixStore, read: str, number: int
) -> None:
    before = READS[read](store)
    drive.illness.set(**{WHERE[read]: [number, 2, 1 if read == "get_range" else 0]})
    assert READS[read](store) == before


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOTCONN])
@pytest.mark.parametrize("read", READS)
def test_a_mount_that_stays_ill_is_unavailable_and_how_to_mount_it_again_is_said(
    drive: Mounted, store: PosixStore, read: str, number: int
) -> None:
    drive.illness.set(**{WHERE[read]: [number, 1 << 30, 0]})
    start = time.monotonic()
    with pytest.raises(StoreUnavailable, match=os.strerror(number)) as ill:
        READS[read](store)
    assert time.monotonic() - start < 10
    assert "force_remount=True" in ill.value.hint
    assert not isinstance(ill.value, ObjectNotFound)


def test_elsewhere_the_hint_names_the_mount(
    drive: Mounted, store: PosixStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mount, "DRIVE", "/content/drive")
    drive.illness.set(read=[errno.EIO, 1 << 30, 0])
    with pytest.raises(StoreUnavailable) as ill:
        store.get(NAME, limit=100)
    assert f"findmnt -T '{store.url}'" in ill.value.hint


# -- late ---------------------------------------------------------------------------------


class Bench:
    """Machines that share the mounted folder."""

    def __init__(self, drive: Mounted, place: Path) -> None:
        self.drive, self.place = drive, place
        self.builds = 0
        self.told = Told()

    def cache(self, home: str) -> artcache.Cache:
        self.told = Told()
        return artcache.Cache(
            [self.drive.folder],
            home=self.place / home,
            host=artcache.HostFacts(libc="glibc2.36"),
            observer=self.told,
        )

    def recipe(self, name: str = "thing") -> FunctionRecipe:
        @artcache.make_recipe(name, fields={"commit": "1"})
        def build(context: artcache.BuildContext) -> None:
            self.builds += 1
            (context.tree / "thing").write_bytes(DATA * 10)
            (context.tree / "run").write_text(f"#!/bin/sh\n# {self.builds}\n")
            (context.tree / "run").chmod(0o755)
            (context.tree / "link").symlink_to("run")
            for number in range(50):
                (context.tree / f"small-{number}").write_text(str(number))

        return build

    def files(self) -> list[Path]:
        return [path for path in self.drive.folder.rglob("*") if path.is_file()]


@pytest.fixture
def bench(drive: Mounted, tmp_path: Path) -> Bench:
    return Bench(drive, tmp_path)


def test_another_machine_restores_to_the_bit_with_modes_and_links(bench: Bench) -> None:
    built = bench.cache("a").fetch(bench.recipe())
    assert {path.stat().st_mode & 0o777 for path in bench.files()} == {0o600}

    done = bench.cache("b").fetch(bench.recipe())

    assert (done.origin, bench.builds) == (str(bench.drive.folder), 1)
    assert (done.path / "thing").read_bytes() == (built.path / "thing").read_bytes()
    assert (done.path / "run").stat().st_mode & 0o777 == 0o755
    assert os.readlink(done.path / "link") == "run"


def test_a_publish_writes_five_files_at_most_however_many_the_tree_has(bench: Bench) -> None:
    done = bench.cache("a").build(bench.recipe())
    assert [published.durable for published in done.published] == [False]
    suffixes = sorted(path.suffix for path in bench.files())
    assert suffixes.count(".pack") == 1
    assert suffixes.count(".json") in (3, 4)  # the store's, the manifest, one or two hints
    assert len(suffixes) <= 5


def test_how_to_have_it_uploaded_is_said_once(bench: Bench) -> None:
    cache = bench.cache("a")
    for name in ("thing", "other"):
        cache.build(bench.recipe(name))
    assert sum("drive.flush_and_unmount()" in note for note in bench.told.notes) == 1


def test_a_push_says_it_too(drive: Mounted, tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.run("fetch", "toy").code == 0
    done = machine.run("push", "toy", "--to", drive.folder)
    assert done.code == 0, done.err
    assert "upload pending" in done.out + done.err
    assert done.err.count("have it uploaded") == 1


def test_a_manifest_that_is_not_seen_yet_is_a_miss_and_both_stay(bench: Bench) -> None:
    bench.cache("a").fetch(bench.recipe())
    (manifest,) = bench.drive.folder.glob("v1/manifests/*/*/*.json")
    bench.drive.illness.set(unseen=[manifest.name])
    assert bench.cache("b").fetch(bench.recipe()).origin == "built"
    bench.drive.illness.heal()
    assert len(list(bench.drive.folder.glob("v1/manifests/*/*/*.json"))) == 2
    read = [bench.cache(name).fetch(bench.recipe()) for name in "cd"]
    assert len({(done.path / "run").read_bytes() for done in read}) == 1


@pytest.mark.parametrize("end", [".json", ".pack"])
def test_a_name_that_is_seen_before_its_file_is_a_miss_and_nobody_s_fault(
    bench: Bench, end: str
) -> None:
    bench.cache("a").fetch(bench.recipe())
    bench.drive.illness.set(closed=[end])
    assert bench.cache("b").fetch(bench.recipe(), build="missing").origin == "built"
    bench.drive.illness.heal()
    assert not (bench.drive.folder / "v1/quarantine").exists()
    assert bench.cache("c").fetch(bench.recipe()).origin == str(bench.drive.folder)


def test_a_pack_that_never_comes_is_given_up_with_its_manifest(bench: Bench) -> None:
    bench.cache("a").fetch(bench.recipe())
    (pack,) = bench.drive.folder.glob("v1/packs/*/*.pack")
    pack.unlink()
    for manifest in bench.drive.illness.backing.rglob("manifests/*/*/*.json"):
        os.utime(manifest, (time.time() - 7200,) * 2)
    assert bench.cache("b").fetch(bench.recipe()).origin == "built"
    assert len(list((bench.drive.folder / "v1/quarantine").iterdir())) == 1
    assert bench.cache("c").fetch(bench.recipe()).origin == str(bench.drive.folder)


def test_a_doubled_name_is_read(bench: Bench) -> None:
    bench.cache("a").fetch(bench.recipe())
    (manifest,) = bench.drive.folder.glob("v1/manifests/*/*/*.json")
    manifest.rename(manifest.with_name(f"{manifest.stem} (1).json"))
    assert bench.cache("b").fetch(bench.recipe()).origin == str(bench.drive.folder)


@pytest.mark.parametrize("folder", ["v1", "v1/packs", "v1/manifests/thing", "hash"])
def test_a_doubled_folder_is_read_too(bench: Bench, folder: str) -> None:
    bench.cache("a").fetch(bench.recipe())
    (manifest,) = bench.drive.folder.glob("v1/manifests/*/*/*.json")
    place = manifest.parent if folder == "hash" else bench.drive.folder / folder
    place.rename(place.with_name(f"{place.name} (1)"))
    place.mkdir()
    assert bench.cache("b").fetch(bench.recipe()).origin == str(bench.drive.folder)
    assert bench.builds == 1


def test_what_lies_in_a_folder_and_its_double_is_listed_once(
    drive: Mounted, store: PosixStore
) -> None:
    double = drive.folder / "v1/manifests (1)/thing"
    double.mkdir(parents=True)
    for name in ("0a.json", "0b.json"):
        (double / name).write_bytes(b"other")
    other = NAME.replace("0a", "0b")
    assert names(store, "v1/manifests") == [NAME, other]
    assert (store.get(NAME, limit=10), store.get(other, limit=10)) == (b"content", b"other")


def test_a_mount_that_breaks_in_mid_restore_is_one_warning_and_a_build(bench: Bench) -> None:
    bench.cache("a").fetch(bench.recipe())
    bench.drive.illness.set(read=[errno.ENOTCONN, 1 << 30, 2])
    done = bench.cache("b").fetch(bench.recipe())
    assert (done.origin, bench.builds) == ("built", 2)
    assert len(bench.told.warnings) == 1
    assert "force_remount" in bench.told.warnings[0]


# -- not mounted --------------------------------------------------------------------------


class Colab:
    """A notebook's kernel with its `google.colab.drive`."""

    def __init__(self, top: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.top, self.calls = top, 0
        self.error = ""
        shell = types.SimpleNamespace(kernel=object())
        drive = types.ModuleType("google.colab.drive")
        drive.mount = self.mount  # type: ignore[attr-defined]
        colab = types.ModuleType("google.colab")
        colab.drive = drive  # type: ignore[attr-defined]
        ipython = types.ModuleType("IPython")
        ipython.get_ipython = lambda: shell  # type: ignore[attr-defined]
        for name, module in (("IPython", ipython), ("google.colab", colab)):
            monkeypatch.setitem(sys.modules, name, module)
        monkeypatch.setattr(mount, "DRIVE", str(top))

    def mount(self, where: str) -> None:
        self.calls += 1
        if self.error:
            raise ValueError(self.error)
        assert where == str(self.top)
        (self.top / "MyDrive").mkdir(parents=True)


@pytest.fixture
def colab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Colab:
    return Colab(tmp_path / "content", monkeypatch)


def use(colab: Colab) -> Store:
    store = open_store(f"{colab.top}/MyDrive/cache")
    with pytest.raises(ObjectNotFound):
        store.get(NAME, limit=1)
    return store


def test_a_notebook_that_asked_for_it_has_its_drive_mounted(
    colab: Colab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mount.ASKED, "1")
    store = use(colab)
    assert colab.calls == 1
    assert not store.traits.exclusive_create
    use(colab)
    assert colab.calls == 1  # it is there


def test_a_notebook_that_did_not_ask_is_told_of_both_ways(colab: Colab) -> None:
    with pytest.raises(StoreUnavailable, match="not mounted") as told:
        use(colab)
    assert "drive.mount" in told.value.hint
    assert f"%env {mount.ASKED}=1" in told.value.hint
    assert colab.calls == 0


def test_a_drive_that_the_user_refuses_is_unavailable(
    colab: Colab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mount.ASKED, "1")
    colab.error = "mount failed"
    with pytest.raises(StoreUnavailable, match="could not be mounted: mount failed"):
        use(colab)


def test_other_folders_and_other_threads_mount_nothing(
    colab: Colab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(mount.ASKED, "1")
    open_store(str(tmp_path / "store"))
    failed: list[Exception] = []

    def elsewhere() -> None:
        try:
            use(colab)
        except StoreUnavailable as error:
            failed.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert len(failed) == 1
    assert colab.calls == 0


def test_a_fetch_in_a_cell_mounts_only_when_the_home_has_it_not(
    colab: Colab, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds: list[int] = []

    @artcache.make_recipe("thing", fields={"commit": "1"})
    def recipe(context: artcache.BuildContext) -> None:
        builds.append(1)
        (context.tree / "thing").write_text("x")

    monkeypatch.setenv("ARTCACHE_DIR", str(tmp_path / "home"))
    monkeypatch.setenv("ARTCACHE_STORES", f"{colab.top}/MyDrive/cache")
    assert artcache.fetch(recipe).origin == "built"  # no Drive: one warning, and a build
    monkeypatch.setenv(mount.ASKED, "1")
    assert artcache.fetch(recipe).origin == "home"
    assert colab.calls == 0
    assert len(artcache.build(recipe).published) == 1  # the same kernel, a Drive by now
    assert colab.calls == 1


def test_a_command_says_which_cell_to_run(tmp_path: Path) -> None:
    if os.path.exists("/content/drive"):
        pytest.skip("a Drive is mounted here")
    machine = Machine(tmp_path)
    words = ("fetch", "toy", "--store", "/content/drive/MyDrive/cache", "--json")
    done = machine.run(*words, ARTCACHE_MOUNT_DRIVE="1")
    assert done.code == 0
    (warning,) = done.json["warnings"]
    assert "a command cannot do it" in warning
    assert "from google.colab import drive; drive.mount('/content/drive')" in warning


def test_a_broken_mount_is_not_taken_for_one_that_is_not_there(
    colab: Colab, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(path: str) -> bool:
        return False

    (colab.top / "MyDrive").mkdir(parents=True)
    store = PosixStore(colab.top / "MyDrive/cache")
    monkeypatch.setattr(os.path, "isdir", broken)
    with pytest.raises(StoreUnavailable):
        store.get(NAME, limit=1)
