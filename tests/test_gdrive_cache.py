"""The main job through a folder of Google Drive, by its API."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from drive_server import DriveServer
from fault_proxy import Fault, Request, fault_proxy
from test_cache import Told
from test_gdrive_store import drive, robot, sign_in  # noqa: F401
from toy import Machine

import artcache
from artcache.recipe import FunctionRecipe
from artcache.stores import GDRIVE_ENDPOINT, open_store

pytest.importorskip("googleapiclient")
pytestmark = pytest.mark.usefixtures("loopback_only")

CONTENT = os.urandom(9_000_000)


class Folder:
    """A folder of Drive, and machines that use it."""

    def __init__(self, drive: DriveServer, place: Path) -> None:  # noqa: F811
        self.drive, self.place = drive, place
        self.url = f"gdrive://{drive.add('shared')}/artcache"
        self.builds = 0
        self.warnings: list[str] = []

    def cache(self, home: str) -> artcache.Cache:
        told = Told()
        self.warnings = told.warnings
        return artcache.Cache(
            [self.url],
            home=self.place / home,
            host=artcache.HostFacts(libc="glibc2.36"),
            observer=told,
        )

    def recipe(self) -> FunctionRecipe:
        @artcache.make_recipe("thing", fields={"commit": "1"})
        def build(context: artcache.BuildContext) -> None:
            self.builds += 1
            (context.tree / "thing").write_bytes(CONTENT)
            (context.tree / "run").write_text(f"#!/bin/sh\n# {time.time_ns()}\n")
            (context.tree / "run").chmod(0o755)

        return build

    def objects(self, prefix: str = "v1") -> list[str]:
        return sorted(entry.name for entry in open_store(self.url).list(prefix))


@pytest.fixture
def folder(
    drive: DriveServer,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Folder:
    monkeypatch.setenv(GDRIVE_ENDPOINT, drive.url)
    return Folder(drive, tmp_path)


def test_what_one_machine_built_another_restores_to_the_bit(folder: Folder) -> None:
    built = folder.cache("a").fetch(folder.recipe())
    done = folder.cache("b").fetch(folder.recipe())

    assert (built.origin, done.origin, folder.builds) == ("built", folder.url, 1)
    for name in ("thing", "run"):
        assert (done.path / name).read_bytes() == (built.path / name).read_bytes()
    assert (done.path / "run").stat().st_mode & 0o777 == 0o755
    assert not folder.warnings


def test_a_hit_asks_drive_little(folder: Folder) -> None:
    folder.cache("a").fetch(folder.recipe())
    folder.drive.requests.clear()
    folder.cache("b").fetch(folder.recipe())
    # a token, six folders, two looks for the manifest and one for the pack, and the bytes
    assert len(folder.drive.requests) <= 15


def test_a_publish_makes_five_files_however_large_the_tree(folder: Folder) -> None:
    done = folder.cache("a").build(folder.recipe())
    assert [published.durable for published in done.published] == [True]
    assert [path.rpartition(".")[2] for path in folder.drive.paths()] == [
        "json", "json", "pack", "json", "json",
    ]  # fmt: skip
    assert all(path.startswith("artcache/") for path in folder.drive.paths())
    (manifest,) = folder.objects("v1/manifests")
    assert manifest.count("/") == 4  # in its unique form


def test_a_damaged_pack_is_quarantined_and_replaced(folder: Folder) -> None:
    folder.cache("a").fetch(folder.recipe())
    (pack,) = folder.objects("v1/packs")
    (stored,) = folder.drive.named(pack.rpartition("/")[2])
    stored.content = stored.content[:1000] + b"?" + stored.content[1001:]

    done = folder.cache("b").fetch(folder.recipe())

    assert (done.origin, folder.builds) == ("built", 2)
    assert any("corrupt" in warning for warning in folder.warnings)
    assert len(folder.objects("v1/quarantine")) == 2  # the pack and its manifest
    assert folder.cache("c").fetch(folder.recipe()).origin == folder.url


def test_machines_that_publish_one_key_at_once_end_well_and_readers_agree(folder: Folder) -> None:
    start = threading.Barrier(3)

    def publish(number: int) -> artcache.Cache:
        cache = folder.cache(f"home {number}")
        start.wait()
        done = cache.build(folder.recipe())
        assert len(done.published) == 1, cache.observer.warnings  # type: ignore[attr-defined]
        return cache

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(publish, range(3)))
    read = [folder.cache(f"reader {number}").fetch(folder.recipe()) for number in range(2)]
    assert {done.origin for done in read} == {folder.url}
    assert len({(done.path / "run").read_bytes() for done in read}) == 1


def test_the_command_line_stores_there_and_restores(folder: Folder, tmp_path: Path) -> None:
    first, second = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    for machine in (first, second):
        machine.env[GDRIVE_ENDPOINT] = folder.drive.url
    assert first.run("fetch", "toy", "--store", folder.url).code == 0
    done = second.run("fetch", "toy", "--store", folder.url, "--json")
    assert done.code == 0, done.err
    assert done.json["result"]["origin"] == folder.url
    assert not done.err.strip()


def test_without_a_credential_a_fetch_builds_and_names_the_fix(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS")
    machine = Machine(tmp_path / "machine")
    done = machine.run("fetch", "toy", "--store", folder.url, "--json")
    assert done.code == 0
    assert done.json["result"]["origin"] == "built"
    assert len(done.json["warnings"]) == 1
    assert "no Google credential" in done.json["warnings"][0]


def test_artifacts_move_between_a_drive_a_file_and_homes(folder: Folder, tmp_path: Path) -> None:
    from artcache.transfer.archive import open_archive, save
    from artcache.transfer.choose import choose
    from artcache.transfer.send import pull, push

    one, two, asked = folder.cache("a"), folder.cache("b"), artcache.Request()
    built = one.fetch(folder.recipe())
    other = one.tier(f"gdrive://{folder.drive.add('other')}/artcache")
    file = tmp_path / "a.artcache"

    moved = [*save(one, choose(one, [one.tiers[0]], (), asked), file)]
    moved += push(one, choose(one, [open_archive(file)], (), asked), other)
    moved += pull(two, choose(two, [other], (), asked))

    assert [one.state for one in moved] == ["copied"] * 3
    entry = two.home.lookup(built.key, verify=True)
    assert entry and (entry.path / "thing").read_bytes() == CONTENT
    found = [tier.repository.find(built.key) for tier in (one.tiers[0], other)]
    assert found[0] and found[1] and found[0].data == found[1].data


def test_ctrl_c_is_heard_while_drive_is_silent(folder: Folder, tmp_path: Path) -> None:
    first, second = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    words = ("fetch", "toy", "--set", "SIZE=9000000", "--store", folder.url)
    with fault_proxy(folder.drive.url) as proxy:
        for machine in (first, second):
            machine.env[GDRIVE_ENDPOINT] = proxy.url
        assert first.run(*words).code == 0
        proxy.heal()
        proxy.plan(Fault(keep=0, then="hang"), when=is_pack)
        process = second.start(*words)
        until = time.monotonic() + 60
        while not list(filter(is_pack, proxy.requests)):
            assert time.monotonic() < until
            time.sleep(0.05)
        start = time.monotonic()
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 8
    assert process.returncode == 130, err
    assert "Traceback" not in err


def is_pack(request: Request) -> bool:
    return "alt=media" in request.path and "range" in request.headers
