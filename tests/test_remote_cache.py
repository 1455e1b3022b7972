"""`Cache` and the command line through buckets, from the first build to the outage."""

from __future__ import annotations

import os
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from buckets import QUICK, HurtBucket
from fault_proxy import Fault, FaultProxy, fault_proxy
from servers import make_gcs_bucket
from test_cache import Told
from toy import Machine

import artcache
from artcache.recipe import FunctionRecipe
from artcache.store import Store
from artcache.stores import open_store

HOST = artcache.HostFacts(libc="glibc2.36")


class Bucket:
    """A bucket, reached through a proxy, and machines that use it."""

    def __init__(self, folder: Path, url: str, proxy: FaultProxy) -> None:
        self.folder, self.url, self.proxy = folder, url, proxy
        self.builds = 0
        self.content = os.urandom(3_000_000)

    def cache(self, home: str, store: str | Store = "") -> artcache.Cache:
        self.told = Told()
        stores = [store or self.url]
        return artcache.Cache(stores, home=self.folder / home, host=HOST, observer=self.told)

    def hasty(self, home: str) -> artcache.Cache:
        """The same, for what a fault hits: it tries again sooner."""
        return self.cache(home, open_store(self.url, limits=QUICK))

    def recipe(self) -> FunctionRecipe:
        @artcache.make_recipe("thing", fields={"commit": "1"})
        def build(context: artcache.BuildContext) -> None:
            self.builds += 1
            (context.tree / "thing").write_bytes(self.content)
            (context.tree / "run").write_text("#!/bin/sh\n")
            (context.tree / "run").chmod(0o755)

        return build

    def objects(self, prefix: str = "v1") -> list[str]:
        return sorted(entry.name for entry in open_store(self.url).list(prefix))


@pytest.fixture
def bucket(hurt_bucket: HurtBucket, tmp_path: Path) -> Bucket:
    return Bucket(tmp_path, *hurt_bucket)


def is_pack(request: object) -> bool:
    path: str = request.path  # type: ignore[attr-defined]
    return ".pack" in path


def test_a_download_that_broke_off_goes_on_where_it_did(bucket: Bucket) -> None:
    bucket.content = os.urandom(30_000_000)
    bucket.cache("a").fetch(bucket.recipe())
    bucket.proxy.plan(Fault(), times=3, when=is_pack)
    bucket.proxy.plan(Fault(keep=1, then="reset"), when=is_pack)
    with pytest.raises(artcache.ArtcacheError):
        bucket.hasty("b").fetch(bucket.recipe(), build="never")
    bucket.proxy.heal()

    done = bucket.cache("b").fetch(bucket.recipe(), build="never")
    assert (done.path / "thing").read_bytes() == bucket.content
    ranges = [request.headers["range"] for request in bucket.proxy.requests if is_pack(request)]
    assert len(ranges) == len(set(ranges)) == 9 - 3
    assert any("are here already" in note for note in bucket.told.notes)


def test_what_one_machine_built_another_restores_to_the_bit(bucket: Bucket) -> None:
    built = bucket.cache("a").fetch(bucket.recipe())
    done = bucket.cache("b").fetch(bucket.recipe())

    assert (built.origin, done.origin, bucket.builds) == ("built", bucket.url, 1)
    assert (done.path / "thing").read_bytes() == bucket.content
    assert (done.path / "run").stat().st_mode & 0o777 == 0o755
    assert not bucket.told.warnings


def test_a_miss_asks_the_store_little(bucket: Bucket) -> None:
    bucket.cache("a").fetch(bucket.recipe())
    bucket.proxy.heal()
    bucket.cache("b").fetch(bucket.recipe())
    # the manifest, the pack's one frame or two
    assert len(bucket.proxy.requests) <= 3


def test_the_warm_hit_imports_no_store(bucket: Bucket, tmp_path: Path) -> None:
    machine = Machine(tmp_path / "machine")
    machine.env["ARTCACHE_STORES"] = bucket.url
    assert machine.run("fetch", "toy").code == 0
    heavy = "fsspec gcsfs s3fs asyncio requests tenacity socket".split()
    code = f"""
import sys
import time
from artcache import cli
try:
    cli.main(["fetch", "toy"])
except SystemExit as end:
    assert not end.code, end.code
print(sorted(set(sys.modules) & set({heavy})))
"""
    import subprocess

    done = subprocess.run(
        [sys.executable, "-c", code], env=machine.env, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_command_ends_without_a_word_from_the_libraries(bucket: Bucket, tmp_path: Path) -> None:
    first, second = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    first.run("fetch", "toy", "--store", bucket.url)
    done = second.run("fetch", "toy", "--store", bucket.url, "--json", PYTHONWARNINGS="default")
    assert done.code == 0, done.err
    assert done.json["result"]["origin"] == bucket.url
    assert not done.err.strip()


# -- outages ------------------------------------------------------------------------------


OUTAGES = {
    "503": Fault(503, {"Retry-After": "0"}),
    "reset": Fault(keep=0),
    "denied": Fault(403),
    "a page": Fault(200, {"Content-Type": "text/html"}, b"<html>Welcome to the hotel</html>"),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES)
def test_an_outage_is_one_warning_and_a_build(bucket: Bucket, outage: Fault) -> None:
    bucket.proxy.plan(outage)
    done = bucket.hasty("a").fetch(bucket.recipe())

    assert done.origin == "built"
    assert (done.path / "thing").read_bytes() == bucket.content
    assert len(bucket.told.warnings) == 1, bucket.told.warnings
    assert bucket.url in bucket.told.warnings[0]


def test_an_outage_on_the_command_line_is_exit_code_0(bucket: Bucket, tmp_path: Path) -> None:
    bucket.proxy.close()
    machine = Machine(tmp_path / "machine")
    done = machine.run("fetch", "toy", "--store", bucket.url, "--json")
    assert done.code == 0
    assert done.json["result"]["origin"] == "built"
    assert len(done.json["warnings"]) == 1
    assert bucket.url in done.json["warnings"][0]


def test_a_store_that_goes_away_in_mid_restore_is_one_warning_and_a_build(bucket: Bucket) -> None:
    bucket.cache("a").fetch(bucket.recipe())
    bucket.proxy.plan(Fault(keep=1000), when=is_pack)

    done = bucket.hasty("b").fetch(bucket.recipe())

    assert (done.origin, bucket.builds) == ("built", 2)
    assert len(bucket.told.warnings) == 1
    assert bucket.objects("v1/quarantine") == []


def test_a_hiccup_in_mid_restore_is_not_noticed(bucket: Bucket) -> None:
    bucket.cache("a").fetch(bucket.recipe())
    bucket.proxy.plan(Fault(keep=1000), times=2, when=is_pack)
    assert bucket.hasty("b").fetch(bucket.recipe()).origin == bucket.url
    assert not bucket.told.warnings


def test_a_damaged_pack_is_quarantined_in_the_bucket_and_replaced(bucket: Bucket) -> None:
    bucket.cache("a").fetch(bucket.recipe())
    (pack,) = bucket.objects("v1/packs")
    store = open_store(bucket.url)
    data = bytearray(store.get(pack, limit=1 << 30))
    data[1000] ^= 1
    store.delete(pack)
    store.create(pack, bytes(data))

    done = bucket.cache("b").fetch(bucket.recipe())

    assert done.origin == "built"
    assert any("corrupt" in warning for warning in bucket.told.warnings)
    assert len(bucket.objects("v1/quarantine")) == 2  # the pack and its manifest
    assert bucket.cache("c").fetch(bucket.recipe()).origin == bucket.url


def test_many_publish_one_key_and_one_is_first(bucket: Bucket) -> None:
    def publish(number: int) -> bool:
        done = bucket.cache(f"home {number}").build(bucket.recipe())
        assert len(done.published) == 1, bucket.told.warnings
        return done.published[0].first

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(publish, range(4))) == 1


def test_a_mirror_over_http_serves_what_the_bucket_has(
    gcs_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_url)
    name = make_gcs_bucket(gcs_url)
    with fault_proxy(gcs_url) as proxy:
        bucket = Bucket(tmp_path, f"gs://{name}/cache", proxy)
        bucket.cache("a").fetch(bucket.recipe())
        mirror = f"{proxy.url}/{name}/cache"
        done = bucket.cache("b", f"read:{mirror}").fetch(bucket.recipe())
    assert (done.origin, bucket.builds) == (mirror, 1)
    assert (done.path / "thing").read_bytes() == bucket.content


def test_a_mirror_that_nobody_called_read_only_is_one_warning(gcs_url: str, tmp_path: Path) -> None:
    with fault_proxy(gcs_url) as proxy:
        bucket = Bucket(tmp_path, f"{gcs_url}/nothing/cache", proxy)
        assert bucket.cache("a").fetch(bucket.recipe()).origin == "built"
    assert len(bucket.told.warnings) <= 1


@pytest.mark.parametrize("hangs", ["the manifest", "the pack"])
def test_ctrl_c_is_heard_while_a_store_is_silent(
    bucket: Bucket, tmp_path: Path, hangs: str
) -> None:
    first, second = Machine(tmp_path / "one"), Machine(tmp_path / "two")
    words = ("fetch", "toy", "--set", "SIZE=9000000", "--store", bucket.url)
    assert first.run(*words).code == 0
    bucket.proxy.heal()
    silent = Fault(keep=0, then="hang")
    bucket.proxy.plan(silent, when=lambda request: is_pack(request) or hangs == "the manifest")
    process = second.start(*words)
    until = time.monotonic() + 30
    while not [r for r in bucket.proxy.requests if hangs == "the manifest" or is_pack(r)]:
        assert time.monotonic() < until
        time.sleep(0.05)
    start = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert time.monotonic() - start < 3
    assert process.returncode == 130, err
    assert "Traceback" not in err
