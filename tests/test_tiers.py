"""Several stores: a hit fills those before it, and which must take what is built."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from fault_proxy import Fault
from test_cache import HOST, Bench, Told
from test_remote_cache import Bucket, bucket  # noqa: F401
from toy import Machine

import artcache
from artcache.errors import CacheMiss, NotPublished, StoreDenied, StoreUnavailable
from artcache.store import StoreSpec
from artcache.stores.posix import PosixStore
from tests.world import as_nobody, public_folder, small_disk


class Chain:
    """Three stores, the nearest first, and machines that use them."""

    def __init__(self, folder: Path) -> None:
        self.near, self.middle, self.far = (folder / name for name in ("near", "middle", "far"))
        self.bench = Bench(folder)
        self.bench.cache("maker", stores=[self.far]).fetch(self.bench.recipe())

    def cache(self, home: str, *stores: object, **settings: object) -> artcache.Cache:
        self.told = Told()
        return artcache.Cache(
            stores or [self.near, self.middle, self.far],  # type: ignore[arg-type]
            home=self.bench.folder / home,
            host=HOST,
            observer=self.told,
            **settings,  # type: ignore[arg-type]
        )

    def fetch(self, home: str, *stores: object, **settings: object) -> artcache.Fetched:
        return self.cache(home, *stores, **settings).fetch(self.bench.recipe(), build="never")


def published(store: Path) -> dict[str, bytes]:
    """What a fetch reads of a store: manifests and packs, by name."""
    return {
        str(path.relative_to(store)): path.read_bytes()
        for folder in ("v1/manifests", "v1/packs", "v1/siblings")
        for path in store.glob(f"{folder}/**/*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture
def chain(tmp_path: Path) -> Chain:
    return Chain(tmp_path)


# -- backfill -----------------------------------------------------------------------------


def test_a_hit_in_a_later_store_fills_those_before_it_byte_for_byte(chain: Chain) -> None:
    done = chain.fetch("a", backfill=True)

    assert done.origin == str(chain.far)
    assert published(chain.near) == published(chain.middle) == published(chain.far)
    assert chain.fetch("b").origin == str(chain.near)
    assert not chain.told.warnings


def test_nothing_is_filled_unless_it_is_asked_for(chain: Chain) -> None:
    chain.fetch("a")
    assert not chain.near.exists()
    assert not chain.middle.exists()


def test_a_store_s_own_word_goes_before_the_general_one(chain: Chain) -> None:
    near = StoreSpec(str(chain.near), backfill=False)
    middle = StoreSpec(str(chain.middle), backfill=True)
    chain.fetch("a", near, chain.middle, chain.far, backfill=True)
    assert (chain.near.exists(), chain.middle.exists()) == (False, True)
    chain.fetch("b", chain.near, middle, chain.far)
    assert not chain.near.exists()


def test_a_read_only_store_is_not_filled(chain: Chain) -> None:
    chain.fetch("a", f"read:{chain.near}", f"write:{chain.middle}", chain.far, backfill=True)
    assert not chain.near.exists()
    assert published(chain.middle) == published(chain.far)


def test_packs_are_read_once_for_the_tree_and_for_all_stores(chain: Chain) -> None:
    read: list[int] = []

    class Counting(PosixStore):
        def fill(self, name: str, offset: int, out: memoryview) -> None:
            read.append(len(out))
            super().fill(name, offset, out)

    chain.fetch("a", chain.near, chain.middle, Counting(chain.far), backfill=True)

    (pack,) = chain.near.glob("v1/packs/*/*.pack")
    assert sum(read) == pack.stat().st_size


def test_a_store_that_cannot_be_filled_is_one_warning_and_a_hit(chain: Chain) -> None:
    class Full(PosixStore):
        def create(self, name: str, content: object) -> None:
            raise StoreUnavailable(f"{self.url}: no room")

    done = chain.fetch("a", Full(chain.near), chain.middle, chain.far, backfill=True)

    assert done.origin == str(chain.far)
    assert len(chain.told.warnings) == 1
    assert str(chain.near) in chain.told.warnings[0]
    assert published(chain.middle) == published(chain.far)


def test_without_room_for_the_packs_the_tree_comes_all_the_same(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.content = os.urandom(3_000_000)
    bench.cache("maker").fetch(bench.recipe())
    with small_disk(tmp_path / "small", 5_000_000) as small:
        told = Told()
        cache = artcache.Cache(
            [tmp_path / "near", bench.store],
            home=small / "home", host=HOST, observer=told, backfill=True,
        )  # fmt: skip
        assert cache.fetch(bench.recipe()).origin == str(bench.store)
        assert len(told.warnings) == 1
        assert not (tmp_path / "near").exists()


def test_what_is_there_under_the_key_stays(chain: Chain) -> None:
    chain.bench.content = b"another machine's bytes"
    chain.bench.cache("other", stores=[chain.middle]).fetch(chain.bench.recipe())
    before = published(chain.middle)

    chain.fetch("a", chain.near, f"write:{chain.middle}", chain.far, backfill=True)

    assert published(chain.middle) == before
    assert published(chain.near) == published(chain.far)


def test_what_may_not_be_redistributed_does_not_come_into_a_public_store(chain: Chain) -> None:
    recipe = chain.bench.recipe()
    recipe.redistributable = False
    cache = chain.cache("a", f"public:{chain.near}", chain.far, backfill=True)

    assert cache.fetch(recipe).origin == str(chain.far)

    assert "redistribute" in chain.told.warnings[0]
    assert not chain.near.exists()


def test_a_hit_in_the_home_fills_stores_only_if_this_fetch_asks(chain: Chain) -> None:
    chain.fetch("a", chain.far)
    cache = chain.cache("a", backfill=True)

    assert cache.fetch(chain.bench.recipe()).origin == "home"
    assert not chain.near.exists()
    assert cache.fetch(chain.bench.recipe(), backfill=True).origin == "home"
    assert published(chain.near) == published(chain.middle) == published(chain.far)


def test_a_stand_in_fills_stores_too(chain: Chain) -> None:
    from test_cache import compiled

    chain.bench.cache("m", stores=[chain.far]).fetch(compiled("glibc2.31"))
    cache = chain.cache("a", backfill=True)

    assert cache.fetch(compiled("glibc2.36"), build="never").origin == str(chain.far)
    again = chain.cache("b", chain.near).fetch(compiled("glibc2.36"), build="never")
    assert again.origin == str(chain.near)


def test_buckets_fill_folders_and_folders_buckets(bucket: Bucket) -> None:  # noqa: F811
    folder = bucket.folder / "store"
    bucket.cache("a").fetch(bucket.recipe())
    for near, far in ((str(folder), bucket.url), (f"{bucket.url}/other", str(folder))):
        told = Told()
        home = bucket.folder / near.replace("/", "_")
        cache = artcache.Cache([near, far], home=home, host=HOST, observer=told, backfill=True)
        assert cache.fetch(bucket.recipe(), build="never").origin == far
        assert not told.warnings
    done = bucket.cache("c", f"{bucket.url}/other").fetch(bucket.recipe(), build="never")
    assert (done.path / "thing").read_bytes() == bucket.content


def test_the_command_line_and_the_environment_ask_for_it(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    near, far = tmp_path / "near", tmp_path / "far"
    stores = ("--store", near, "--store", far)
    assert machine.run("fetch", "toy", "--store", far).code == 0
    machine.home.rename(tmp_path / "old home")

    done = machine.run("fetch", "toy", *stores, "--no-backfill", ARTCACHE_BACKFILL="1")
    assert (done.code, near.exists()) == (0, False)
    done = machine.run("fetch", "toy", *stores, "--backfill", "--json")
    assert done.json["result"]["origin"] == "home"
    assert published(near) == published(far)
    (note,) = done.json["notes"][:1]
    assert f"copied from {far} to {near}" in note


def test_a_home_that_alone_has_it_fills_stores_too(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    assert machine.run("fetch", "toy").code == 0
    done = machine.run("fetch", "toy", "--store", machine.store, "--backfill", "--json")
    assert done.json["result"]["origin"] == "home"
    assert "copied from the home" in done.json["notes"][0]
    assert len(machine.manifests()) == len(machine.packs()) == 1


# -- the write policy ---------------------------------------------------------------------


class Dying(PosixStore):
    """Takes what a probe or a lease writes, and no manifest."""

    def create(self, name: str, content: object) -> None:
        if name.startswith("v1/manifests"):
            raise StoreUnavailable(f"{self.url}: the session was cut")
        super().create(name, content)  # type: ignore[arg-type]


POLICIES = [
    # policy, the store that dies, whether the fetch fails
    ("ignore", 0, False),
    ("ignore", 1, False),
    ("first", 0, True),
    ("first", 1, False),
    ("all", 0, True),
    ("all", 1, True),
]


@pytest.mark.parametrize(("policy", "dies", "fails"), POLICIES)
def test_a_failed_publish_fails_the_fetch_only_where_the_policy_asks_for_that_store(
    tmp_path: Path, policy: str, dies: int, fails: bool
) -> None:
    bench = Bench(tmp_path)
    places = [tmp_path / "one", tmp_path / "two"]
    stores = [Dying(place) if number == dies else place for number, place in enumerate(places)]
    told = Told()
    cache = artcache.Cache(
        [f"read:{tmp_path / 'mirror'}", *stores],
        home=tmp_path / "home", host=HOST, observer=told, write_policy=policy,  # type: ignore[arg-type]
    )  # fmt: skip

    if fails:
        with pytest.raises(NotPublished, match="was built and is in the home") as failed:
            cache.fetch(bench.recipe())
        assert failed.value.exit_code == 6
        assert "the session was cut" in str(failed.value)
        assert not told.warnings
    else:
        assert cache.fetch(bench.recipe()).origin == "built"
        assert len(told.warnings) == 1
    assert cache.fetch(bench.recipe()).origin == "home"
    assert bench.builds == 1
    assert published(places[1 - dies])


def test_a_store_that_is_away_while_it_is_read_is_tried_again_where_it_is_needed(
    tmp_path: Path,
) -> None:
    class Hiccup(PosixStore):
        fails = 1

        def get(self, name: str, *, limit: int) -> bytes:
            if self.fails:
                self.fails -= 1
                raise StoreUnavailable(f"{self.url}: a hiccup")
            return super().get(name, limit=limit)

    bench = Bench(tmp_path)
    for policy in ("ignore", "first"):
        store = Hiccup(tmp_path / policy)
        cache = artcache.Cache(
            [store], home=tmp_path / f"home {policy}", host=HOST, write_policy=policy  # type: ignore[arg-type]
        )  # fmt: skip
        assert cache.fetch(bench.recipe()).origin == "built"
        assert bool(published(tmp_path / policy)) == (policy == "first")


def test_a_group_is_published_whole_before_the_policy_speaks(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    (tmp_path / "bad").write_text("a file stands where the store should be")
    stores = ("--store", f"write:{tmp_path / 'bad'}", "--store", machine.store)
    words = ("build", "toy", "--arch", "sm_75,sm_80", *stores)

    done = machine.run(*words, "--json", "--write-policy", "all")

    assert (done.code, done.json["error"]["code"]) == (6, "not-published")
    assert len(machine.manifests()) == 2
    assert machine.run(*words, "--json").code == 0


def test_the_hint_publishes_what_was_built(tmp_path: Path) -> None:
    machine = Machine(tmp_path)
    machine.store.mkdir()
    (machine.store / "v1").write_text("a file stands where a folder should be")
    done = machine.run("fetch", "toy", "--store", machine.store, "--write-policy", "all", "--json")
    assert done.json["error"]["code"] == "not-published"
    command = done.json["error"]["hint"].rpartition("publish it with `artcache ")[2].rstrip("`")
    (machine.store / "v1").unlink()
    assert machine.run(*command.split()).code == 0
    assert len(machine.manifests()) == 1


# -- the probe ----------------------------------------------------------------------------


@pytest.fixture
def read_only() -> Iterator[Path]:
    """A store that others can read and not write, in a folder with room for their homes."""
    with public_folder() as folder:
        Bench(folder).cache("maker").fetch(Bench(folder).recipe(commit="other"))
        (folder / "store").chmod(0o755)
        yield folder


def build_as_nobody(folder: Path, policy: str = "ignore", *more: str) -> tuple[str, list[str], int]:
    """Fetch with the read-only store: the origin, what was warned of before the build, all."""

    def work() -> tuple[str, list[str], int]:
        bench, told = Bench(folder), Told()
        before: list[str] = []

        @artcache.make_recipe("thing", fields={"commit": "1"})
        def build(context: artcache.BuildContext) -> None:
            before.extend(told.warnings)
            (context.tree / "thing").touch()

        cache = artcache.Cache(
            [*more, bench.store], home=folder / "home of nobody", host=HOST, observer=told,
            write_policy=policy,  # type: ignore[arg-type]
        )  # fmt: skip
        return cache.fetch(build).origin, before, len(told.warnings)

    return as_nobody(work)


def test_a_store_that_cannot_be_written_is_told_before_the_build(read_only: Path) -> None:
    origin, before, warnings = build_as_nobody(read_only)
    assert origin == "built"
    assert len(before) == warnings == 1
    assert "cannot be written" in before[0]
    assert f"read:{read_only / 'store'}" in before[0]


@pytest.mark.parametrize("policy", ["first", "all"])
def test_where_the_policy_needs_that_store_nothing_is_built(read_only: Path, policy: str) -> None:
    with pytest.raises(NotPublished, match="nothing was built") as refused:
        build_as_nobody(read_only, policy)
    assert "--write-policy ignore" in refused.value.hint  # type: ignore[attr-defined]


def test_the_first_policy_asks_nothing_of_a_later_store(read_only: Path) -> None:
    origin, before, _ = build_as_nobody(read_only, "first", str(read_only / "mine"))
    assert (origin, len(before)) == ("built", 1)
    assert published(read_only / "mine")


def test_a_probe_leaves_nothing_in_a_folder(tmp_path: Path) -> None:
    store = PosixStore(tmp_path / "store", mount_like=True)
    store.probe()
    assert not (tmp_path / "store").exists()
    store.create("artcache.json", b"{}")
    store.probe()
    assert os.listdir(tmp_path / "store") == ["artcache.json"]


def test_a_folder_that_cannot_be_made_is_denied(read_only: Path) -> None:
    def work() -> None:
        PosixStore(read_only / "store" / "a" / "b").probe()

    with pytest.raises(StoreDenied, match="cannot be written"):
        as_nobody(work)


def writes(request: object) -> bool:
    return request.method in ("POST", "PUT")  # type: ignore[attr-defined]


def test_a_bucket_that_may_only_be_read_is_told_before_the_build(
    bucket: Bucket,  # noqa: F811
) -> None:
    bucket.cache("maker").fetch(bucket.recipe())
    bucket.proxy.heal()
    bucket.proxy.plan(Fault(403), when=writes)
    told, before = Told(), []

    @artcache.make_recipe("other", fields={})
    def build(context: artcache.BuildContext) -> None:
        before.extend(told.warnings)
        (context.tree / "x").touch()

    cache = artcache.Cache([bucket.url], home=bucket.folder / "b", host=HOST, observer=told)
    assert cache.fetch(build).origin == "built"

    assert before == told.warnings
    assert len(before) == 1
    assert bucket.url in before[0]
    # the store's reading is not given up: what others need of it is found there
    assert cache.fetch(bucket.recipe(), build="never").origin == bucket.url
    with pytest.raises(NotPublished, match="nothing was built"):
        artcache.Cache(
            [bucket.url], home=bucket.folder / "c", host=HOST, write_policy="first"
        ).fetch(build)


def test_a_bucket_in_which_nothing_can_be_deleted_is_written(
    bucket: Bucket,  # noqa: F811
) -> None:
    def changes(request: object) -> bool:
        """Deleting, and replacing, which on Google's buckets is the same permission."""
        path: str = request.path  # type: ignore[attr-defined]
        replaces = "ifGenerationMatch=" in path and "ifGenerationMatch=0" not in path
        return replaces or request.method == "DELETE"  # type: ignore[attr-defined]

    bucket.proxy.plan(Fault(403), when=changes)
    assert bucket.cache("a").fetch(bucket.recipe()).origin == "built"
    cache = bucket.cache("b")
    cache.write_policy = "all"
    assert cache.build(bucket.recipe()).published
    assert not bucket.told.warnings


def test_a_mirror_is_never_asked_to_take_anything(gcs_url: str, tmp_path: Path) -> None:
    cache = artcache.Cache(
        [f"read:{gcs_url}/nothing", tmp_path / "store"],
        home=tmp_path / "home", host=HOST, write_policy="all",
    )  # fmt: skip
    with pytest.raises(CacheMiss):
        cache.fetch(Bench(tmp_path).recipe(), build="never")
    assert cache.fetch(Bench(tmp_path).recipe()).origin == "built"
