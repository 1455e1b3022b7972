"""`Cache`: the order of things, on real folders."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import artcache
from artcache.errors import (
    BuildFailed,
    CacheMiss,
    EmptyBuild,
    NewerFormat,
    SmokeFailed,
    SourceUnavailable,
)
from artcache.manifest import Manifest
from artcache.recipe import FunctionRecipe
from artcache.store import StoreSpec

HOST = artcache.HostFacts(libc="glibc2.36")


class Told(artcache.Observer):
    def __init__(self) -> None:
        self.phases: list[str] = []
        self.lines: list[str] = []
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def phase(self, name: str, detail: str = "") -> None:
        self.phases.append(name)

    def line(self, text: str) -> None:
        self.lines.append(text)

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


class Bench:
    """A store, homes that come and go, and a recipe that counts its builds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = folder / "store"
        self.builds = 0
        self.content = b"the artifact"

    def cache(self, home: str = "home", **options: object) -> artcache.Cache:
        self.told = Told()
        stores = options.pop("stores", [self.store])
        return artcache.Cache(
            stores,  # type: ignore[arg-type]
            home=self.folder / home,
            host=HOST,
            observer=self.told,
        )

    def recipe(self, **fields: str) -> FunctionRecipe:
        @artcache.make_recipe("thing", fields={"commit": "1", **fields})
        def build(context: artcache.BuildContext) -> None:
            self.builds += 1
            (context.tree / "thing").write_bytes(self.content)
            (context.tree / "thing").chmod(0o755)
            (context.tree / "notes").mkdir()
            (context.tree / "notes" / "a").write_text("a")

        return build

    @property
    def manifest(self) -> Path:
        (found,) = self.store.glob("v1/manifests/thing/*.json")
        return found

    @property
    def pack(self) -> Path:
        (found,) = self.store.glob("v1/packs/*/*.pack")
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_a_miss_builds_and_the_next_fetch_is_a_hit_in_the_home(bench: Bench) -> None:
    recipe = bench.recipe()
    cache = bench.cache()

    first, second = cache.fetch(recipe), cache.fetch(recipe)

    assert (first.origin, first.hit, second.origin, second.hit) == ("built", False, "home", True)
    assert first.path == second.path
    assert (second.path / "thing").read_bytes() == b"the artifact"
    assert bench.builds == 1


def test_an_empty_home_is_filled_from_the_store(bench: Bench) -> None:
    bench.cache().fetch(bench.recipe())

    done = bench.cache("other home").fetch(bench.recipe())

    assert done.origin == str(bench.store)
    assert (done.path / "thing").stat().st_mode & 0o777 == 0o755
    assert bench.builds == 1


def test_the_time_that_a_hit_saved_is_the_build_s_less_its_own(bench: Bench) -> None:
    @artcache.make_recipe("slow", fields={})
    def slow(context: artcache.BuildContext) -> None:
        context.runner.run(["sleep", "0.3"])
        (context.tree / "x").touch()

    built = bench.cache().fetch(slow)
    hit = bench.cache().fetch(slow)

    assert built.saved_seconds == 0
    assert hit.build_seconds >= 0.3
    assert 0 < hit.saved_seconds < hit.build_seconds


def test_without_a_build_a_miss_names_the_nearest_and_each_field_that_differs(
    bench: Bench,
) -> None:
    bench.cache().fetch(bench.recipe(cuda="12.4", arch="sm_75"))

    with pytest.raises(CacheMiss) as miss:
        bench.cache().fetch(bench.recipe(cuda="12.8", arch="sm_75"), build="never")

    assert "cuda: 12.4, wanted 12.8" in str(miss.value)
    assert "arch" not in str(miss.value)
    assert "artcache build thing" in miss.value.hint


def test_a_build_of_a_cached_key_replaces_nothing_and_is_compared(bench: Bench) -> None:
    bench.cache().fetch(bench.recipe())
    before = bench.manifest.read_bytes()

    same = bench.cache().build(bench.recipe())
    bench.content = b"other bytes"
    other = bench.cache().build(bench.recipe())

    assert same.differing == {"home": [], str(bench.store): []}
    assert other.differing == {"home": ["thing"], str(bench.store): ["thing"]}
    assert bench.manifest.read_bytes() == before
    assert (other.fetched.path / "thing").read_bytes() == b"the artifact"


def test_a_write_store_is_not_asked_and_a_read_store_is_not_written(bench: Bench) -> None:
    only_write = bench.cache(stores=[f"write:{bench.store}"])
    only_write.fetch(bench.recipe())
    assert bench.manifest

    only_write = bench.cache("home 2", stores=[f"write:{bench.store}"])
    assert only_write.fetch(bench.recipe()).origin == "built"

    read = bench.folder / "read only"
    bench.cache("home 3", stores=[f"read:{read}"]).fetch(bench.recipe())
    assert not read.exists()


def test_stores_are_asked_in_order(bench: Bench) -> None:
    first, second = bench.folder / "1", bench.folder / "2"
    bench.cache("a", stores=[second]).fetch(bench.recipe())

    assert bench.cache("b", stores=[first, second]).fetch(bench.recipe()).origin == str(second)
    bench.cache("c", stores=[first]).build(bench.recipe())
    assert bench.cache("d", stores=[first, second]).fetch(bench.recipe()).origin == str(first)


def test_a_broken_tree_in_the_home_is_set_aside_and_made_anew(bench: Bench) -> None:
    done = bench.cache().fetch(bench.recipe())
    (done.path / "thing").write_bytes(b"the artifice")  # the same length

    again = bench.cache().fetch(bench.recipe())

    assert again.origin == str(bench.store)
    assert (again.path / "thing").read_bytes() == b"the artifact"
    assert "quarantine" in bench.told.warnings[0]
    (kept,) = (bench.folder / "home" / "v1" / "quarantine").glob("*/tree/thing")
    assert kept.read_bytes() == b"the artifice"


def test_verify_finds_what_size_and_time_do_not_show(bench: Bench) -> None:
    import os

    done = bench.cache().fetch(bench.recipe())
    file = done.path / "thing"
    before = file.stat()
    file.write_bytes(b"the artifice")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))

    assert bench.cache().fetch(bench.recipe()).origin == "home"
    assert bench.cache().fetch(bench.recipe(), verify=True).origin == str(bench.store)


@pytest.mark.parametrize("damage", ["flip", "truncate", "delete"])
def test_a_damaged_pack_is_quarantined_and_the_artifact_rebuilt(bench: Bench, damage: str) -> None:
    bench.cache().fetch(bench.recipe())
    data = bytearray(bench.pack.read_bytes())
    data[len(data) // 2] ^= 1
    name = bench.pack
    if damage == "flip":
        name.write_bytes(data)
    elif damage == "truncate":
        name.write_bytes(data[:-3])
    else:
        name.unlink()

    done = bench.cache("other home").fetch(bench.recipe())

    assert done.origin == "built"
    assert (done.path / "thing").read_bytes() == b"the artifact"
    assert any("corrupt" in warning for warning in bench.told.warnings)
    assert list((bench.store / "v1" / "quarantine").iterdir())
    assert bench.cache("third home").fetch(bench.recipe()).origin == str(bench.store)


def test_a_manifest_of_another_key_is_quarantined_and_never_used(bench: Bench) -> None:
    bench.cache().fetch(bench.recipe(commit="other"))
    stranger = bench.manifest.read_bytes()
    bench.manifest.unlink()
    bench.cache("h2").fetch(bench.recipe())
    bench.manifest.write_bytes(stranger)

    done = bench.cache("h3").fetch(bench.recipe())

    assert done.origin == "built"
    assert "commit" in bench.told.warnings[0]
    assert Manifest.from_bytes(bench.manifest.read_bytes()).key == done.key


def test_a_newer_format_is_left_alone_and_named(bench: Bench) -> None:
    bench.cache().fetch(bench.recipe())
    newer = bench.manifest.read_bytes().replace(b'"artcache":1', b'"artcache":2')
    newer = newer.replace(b'"reader":"0.1"', b'"reader":"0.7"')
    bench.manifest.write_bytes(newer)

    with pytest.raises(NewerFormat) as refused:
        bench.cache("h2").fetch(bench.recipe(), build="never")
    assert "0.7" in refused.value.hint
    assert refused.value.exit_code == 9

    assert bench.cache("h3").fetch(bench.recipe()).origin == "built"
    assert bench.manifest.read_bytes() == newer


def test_a_smoke_test_that_fails_publishes_nothing(bench: Bench) -> None:
    def smoke(context: artcache.SmokeContext) -> None:
        raise SmokeFailed("it does not start")

    @artcache.make_recipe("thing", fields={}, smoke=smoke)
    def build(context: artcache.BuildContext) -> None:
        (context.tree / "x").touch()

    with pytest.raises(SmokeFailed):
        bench.cache().fetch(build)

    assert not (bench.store / "v1" / "manifests").exists()
    assert not (bench.store / "v1" / "packs").exists()
    assert not list((bench.folder / "home" / "v1").glob("entries/*/*"))


def test_a_smoke_test_may_not_change_the_tree(bench: Bench) -> None:
    def smoke(context: artcache.SmokeContext) -> None:
        (context.tree / "predictions.jpg").touch()

    @artcache.make_recipe("thing", fields={}, smoke=smoke)
    def build(context: artcache.BuildContext) -> None:
        (context.tree / "x").touch()

    with pytest.raises(BuildFailed, match="changed the tree"):
        bench.cache().fetch(build)


def test_an_empty_build_is_an_error(bench: Bench) -> None:
    @artcache.make_recipe("thing", fields={})
    def build(context: artcache.BuildContext) -> None:
        pass

    with pytest.raises(EmptyBuild):
        bench.cache().fetch(build)


def test_a_recipe_s_own_mistake_is_a_failed_build(bench: Bench) -> None:
    @artcache.make_recipe("thing", fields={})
    def build(context: artcache.BuildContext) -> None:
        raise ZeroDivisionError("oops")

    with pytest.raises(BuildFailed, match="ZeroDivisionError: oops") as failed:
        bench.cache().fetch(build)
    assert "log" in failed.value.hint


def test_when_no_source_answers_both_are_named(bench: Bench) -> None:
    class Twice(artcache.Recipe):
        name = "twice"

        def variants(self, host, request, runner):  # type: ignore[no-untyped-def]
            return [
                artcache.Variant(artcache.Key({"recipe": "twice", "source": name}), name)
                for name in ("one", "two")
            ]

        def build(self, context: artcache.BuildContext) -> None:
            raise SourceUnavailable(f"{context.plan} is away")

    with pytest.raises(SourceUnavailable, match=r"one is away.*two is away"):
        bench.cache().fetch(Twice())


def test_a_store_that_cannot_be_written_is_one_warning(bench: Bench) -> None:
    bench.store.write_text("a file stands where the store should be")

    done = bench.cache().fetch(bench.recipe())

    assert done.origin == "built"
    assert len(bench.told.warnings) == 1
    assert str(bench.store) in bench.told.warnings[0]


def test_a_build_s_tree_is_kept_when_the_store_fails_in_mid_publish(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from artcache.errors import StoreUnavailable
    from artcache.stores.posix import PosixStore

    def dies(self: PosixStore, name: str, content: object) -> None:
        raise StoreUnavailable("the session was cut")

    monkeypatch.setattr(PosixStore, "create", dies)
    assert bench.cache().fetch(bench.recipe()).origin == "built"
    assert bench.cache().fetch(bench.recipe()).origin == "home"


def test_what_is_built_and_what_is_restored_are_equal_to_the_bit(bench: Bench) -> None:
    built = bench.cache("a").fetch(bench.recipe())
    restored = bench.cache("b").fetch(bench.recipe())

    def everything(tree: Path) -> dict[str, tuple[int, bytes]]:
        return {
            str(path.relative_to(tree)): (path.stat().st_mode, path.read_bytes())
            for path in tree.rglob("*")
            if path.is_file()
        }

    assert everything(built.path) == everything(restored.path)
    shutil.rmtree(bench.folder / "a")
    assert bench.cache("b").fetch(bench.recipe()).origin == "home"


def test_the_manifest_tells_how_it_was_made(bench: Bench) -> None:
    done = bench.cache().fetch(bench.recipe())

    provenance = done.entry.manifest().provenance

    assert provenance["artcache"] == artcache.__version__
    assert provenance["builder"]["libc"] == "glibc2.36"
    assert isinstance(provenance["milliseconds"], int)
    assert len(provenance["log"]) == 64


def test_a_store_on_a_drive_mount_works_the_same(bench: Bench) -> None:
    from artcache.stores.posix import PosixStore

    drive = PosixStore(bench.store, mount_like=True)
    bench.cache("a", stores=[drive]).fetch(bench.recipe())

    done = bench.cache("b", stores=[drive]).fetch(bench.recipe())

    assert done.origin == str(bench.store)
    assert len(list(bench.store.glob("v1/manifests/thing/*/*.json"))) == 1
    assert bench.cache("c").fetch(bench.recipe()).origin == str(bench.store)  # as a plain folder


# -- compatible artifacts -------------------------------------------------------------------


def on(libc: str) -> artcache.HostFacts:
    return artcache.HostFacts(libc=libc)


def compiled(libc: str) -> FunctionRecipe:
    """A C program that needs only an old glibc, keyed for the machine that built it."""

    @artcache.make_recipe("program", fields={"commit": "1", "libc": libc, "cuda": "none"})
    def build(context: artcache.BuildContext) -> None:
        source = context.scratch / "a.c"
        source.write_text("int main(void) { return 0; }")
        context.runner.run(["cc", "-nostartfiles", "-shared", "-o", context.tree / "a.so", source])

    return build


def test_an_artifact_of_an_older_glibc_stands_in_and_is_said(bench: Bench) -> None:
    bench.cache("a").fetch(compiled("glibc2.31"))

    request = artcache.Request(source="there")
    done = bench.cache("b").fetch(compiled("glibc2.36"), request, build="never")

    assert done.origin == str(bench.store)
    assert done.key.get("libc") == "glibc2.31"
    assert "glibc2.31" in done.note
    assert "`artcache build program --source there`" in bench.told.notes[0]


def test_exact_takes_no_stand_in(bench: Bench) -> None:
    bench.cache("a").fetch(compiled("glibc2.31"))

    with pytest.raises(CacheMiss):
        bench.cache("b").fetch(compiled("glibc2.36"), build="never", match="exact")


def test_the_exact_artifact_goes_before_a_stand_in(bench: Bench) -> None:
    bench.cache("a").fetch(compiled("glibc2.31"))
    bench.cache("a").build(compiled("glibc2.36"))

    done = bench.cache("b").fetch(compiled("glibc2.36"))

    assert done.key.get("libc") == "glibc2.36"
    assert not done.note


def test_the_second_fetch_of_a_stand_in_asks_no_store(bench: Bench) -> None:
    bench.cache("a").fetch(compiled("glibc2.31"))
    bench.cache("b").fetch(compiled("glibc2.36"))

    again = bench.cache("b", stores=[bench.folder / "nowhere"]).fetch(compiled("glibc2.36"))

    assert again.origin == "home"
    assert again.key.get("libc") == "glibc2.31"
    assert "glibc2.31" in again.note


class Two(artcache.Recipe):
    """A recipe whose first source is away; asked for that one alone, it has no second."""

    name = "two"

    def variants(self, host, request, runner):  # type: ignore[no-untyped-def]
        names = [request.source] if request.source else ["one", "two"]
        return [
            artcache.Variant(artcache.Key({"recipe": "two", "source": name}), name)
            for name in names
        ]

    def build(self, context: artcache.BuildContext) -> None:
        if context.plan == "one":
            raise SourceUnavailable("one is away")
        (context.tree / "x").touch()


def test_a_group_falls_back_as_one(bench: Bench) -> None:
    groups: list[list[object]] = []

    class Grouped(Two):
        def build_group(self, contexts):  # type: ignore[no-untyped-def]
            groups.append([context.plan for context in contexts])
            super().build_group(contexts)

        def variants(self, host, request, runner):  # type: ignore[no-untyped-def]
            return [
                artcache.Variant(artcache.Key({**one.key.fields, "ref": request.ref}), one.plan)
                for one in super().variants(host, request, runner)
            ]

    built = bench.cache().build_all(
        Grouped(), [artcache.Request(ref="a"), artcache.Request(ref="b")]
    )

    assert groups == [["one", "one"], ["two", "two"]]
    assert [one.fetched.key.get("ref") for one in built] == ["a", "b"]


def test_a_group_too_keeps_out_of_a_public_store_what_may_not_be_redistributed(
    bench: Bench,
) -> None:
    class Closed(Two):
        redistributable = False

        def variants(self, host, request, runner):  # type: ignore[no-untyped-def]
            return [artcache.Variant(artcache.Key(self.full_fields({"ref": request.ref})), "two")]

    store = StoreSpec(str(bench.folder / "public"), public=True)
    cache = bench.cache("a", stores=[store])
    cache.build_all(Closed(), [artcache.Request(ref="a"), artcache.Request(ref="b")])

    assert not list((bench.folder / "public").rglob("*.json"))
    assert len([line for line in bench.told.warnings if "redistributed" in line]) == 1


def test_a_fallback_is_remembered_and_no_store_is_asked_again(bench: Bench) -> None:
    bench.cache("a").fetch(Two())
    wall = bench.folder / "wall"
    wall.touch()

    cache = bench.cache("a", stores=[wall])
    assert cache.fetch(Two()).key.get("source") == "two"
    assert not bench.told.warnings


def test_a_fallback_never_serves_a_request_that_forbids_it(bench: Bench) -> None:
    bench.cache("a").fetch(Two())

    with pytest.raises(SourceUnavailable):
        bench.cache("a").fetch(Two(), artcache.Request(source="one"))


def test_looking_for_a_stand_in_never_lists_the_manifests(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    from artcache.stores.posix import PosixStore

    bench.cache("a").fetch(compiled("glibc2.31"))
    listed: list[str] = []
    real = PosixStore.list
    monkeypatch.setattr(
        PosixStore, "list", lambda self, prefix: listed.append(prefix) or real(self, prefix)
    )

    bench.cache("b").fetch(compiled("glibc2.36"), build="never")

    assert not [prefix for prefix in listed if prefix.count("/") < 3]
