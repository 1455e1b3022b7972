"""Recipes: found by entry point, remembered, made of ten lines."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import Any, NoReturn

import pytest

import artcache
from artcache import recipe as room
from artcache.errors import InvalidKey, UnknownRecipe, UsageError
from artcache.process import Runner
from artcache.recipe import Recipe, Request, find, installed, make_recipe

HOST = artcache.HostFacts(platform="linux-x86_64", libc="glibc2.35")
MODULE = "import artcache\nclass R(artcache.Recipe):\n    name = {name!r}\nrecipe = R()\n"


class Site:
    """A folder on `sys.path` that packages are installed into."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.memo = folder.parent / "memo" / "recipes.json"
        folder.mkdir()
        monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
        monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def install(self, name: str, *, target: str = "", module: str = "") -> None:
        """A package that offers one recipe."""
        package = f"package_{name.replace('-', '_')}_{time.time_ns()}"
        (self.folder / f"{package}.py").write_text(module or MODULE.format(name=name))
        info = self.folder / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        points = f"[artcache.recipes]\n{name} = {package}:{target or 'recipe'}\n"
        (info / "entry_points.txt").write_text(points)
        later = time.time_ns() + 10_000_000  # the clock of a file system may be coarse
        os.utime(self.folder, ns=(later, later))

    def find(self, name: str) -> Recipe:
        return find(name, memo=self.memo)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Site:
    return Site(tmp_path / "site", monkeypatch)


# -- finding ------------------------------------------------------------------------------


def test_an_installed_recipe_is_found(site: Site) -> None:
    site.install("toy")
    assert site.find("toy").name == "toy"
    assert {"darknet", "toy"} <= set(installed(memo=site.memo))


def test_it_is_found_without_a_memo(site: Site) -> None:
    site.install("toy")
    assert find("toy").name == "toy"


def test_a_class_will_do_and_so_will_a_dotted_name(site: Site) -> None:
    site.install("by-class", target="R")
    module = MODULE.format(name="dotted").replace("recipe = R()", "class Shelf:\n    recipe = R()")
    site.install("dotted", target="Shelf.recipe", module=module)
    assert site.find("by-class").name == "by-class"
    assert site.find("dotted").name == "dotted"


def test_an_unknown_name_is_offered_the_nearest(site: Site) -> None:
    site.install("ultralytics")
    with pytest.raises(UnknownRecipe, match="'ultralytic'") as unknown:
        site.find("ultralytic")
    assert "did you mean ultralytics?" in unknown.value.hint


def test_a_name_that_is_like_no_other_is_told_all_there_are(site: Site) -> None:
    with pytest.raises(UnknownRecipe) as unknown:
        site.find("zzz")
    assert "installed recipes: " in unknown.value.hint
    assert "darknet" in unknown.value.hint


@pytest.mark.parametrize(
    ("target", "module"),
    [
        ("nothing", ""),
        ("recipe", "import a_module_that_is_not_there"),
        ("recipe", "raise RuntimeError('no GPU')"),
        ("recipe", "this is no Python"),
        ("recipe", "recipe = 5"),
        ("recipe", MODULE.format(name="another name")),
        ("Broken", MODULE.format(name="x") + "class Broken:\n    def __init__(self, x): ...\n"),
    ],
)
def test_a_recipe_that_does_not_load_is_named_and_not_ours(
    site: Site, target: str, module: str
) -> None:
    site.install("bad", target=target, module=module)
    with pytest.raises(UsageError, match="bad"):
        site.find("bad")
    assert site.find("darknet").name == "darknet"


# -- the memo -----------------------------------------------------------------------------


@pytest.fixture
def scans(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The folders whose packages were read."""
    seen: list[str] = []
    real = room._scanned
    monkeypatch.setattr(room, "_scanned", lambda folder: seen.append(folder) or real(folder))
    return seen


def test_packages_are_read_once(site: Site, scans: list[str]) -> None:
    site.install("toy")
    site.find("toy")
    assert str(site.folder) in scans
    scans.clear()
    assert site.find("toy").name == "toy"
    assert installed(memo=site.memo)
    assert scans == []


def test_a_recipe_installed_later_is_noticed_and_only_its_folder_read(
    site: Site, scans: list[str]
) -> None:
    with pytest.raises(UnknownRecipe):
        site.find("toy")
    scans.clear()
    site.install("toy")
    assert site.find("toy").name == "toy"
    assert scans == [str(site.folder)]


def test_a_recipe_that_was_removed_is_noticed(site: Site) -> None:
    site.install("toy")
    site.find("toy")
    (info,) = site.folder.glob("*.dist-info")
    info.rename(site.folder.parent / "elsewhere")
    with pytest.raises(UnknownRecipe):
        site.find("toy")


def test_of_two_with_one_name_the_first_on_the_path_is_taken(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("toy")
    nearer = Site(tmp_path / "nearer", monkeypatch)
    nearer.install("toy", module=MODULE.format(name="toy") + "recipe.summary = 'nearer'\n")
    assert nearer.find("toy").summary == "nearer"


@pytest.mark.parametrize(
    "data", [b"", b"[]", b"5", b"{}", b"\xff", b'{"a": 5}', b'{"SITE": [1]}', b'{"SITE": [1, 2]}']
)
def test_a_memo_that_is_none_is_made_anew(site: Site, data: bytes) -> None:
    site.install("toy")
    site.memo.parent.mkdir()
    site.memo.write_bytes(data.replace(b"SITE", str(site.folder).encode()))
    assert site.find("toy").name == "toy"
    assert str(site.folder) in json.loads(site.memo.read_bytes())


def test_a_memo_that_cannot_be_written_only_costs_time(site: Site) -> None:
    site.install("toy")
    site.memo.parent.write_text("a file stands in its place")
    assert site.find("toy").name == "toy"


def test_the_memo_does_not_grow_for_ever(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(room._REMEMBERED + 20):
        folder = site.folder / str(number)
        folder.mkdir()
        monkeypatch.setattr(sys, "path", [str(folder)])
        installed(memo=site.memo)
    assert len(json.loads(site.memo.read_bytes())) == room._REMEMBERED


def test_what_is_on_the_path_and_is_no_folder_is_passed_over(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    (site.folder.parent / "file.zip").write_bytes(b"no zip file")
    monkeypatch.setattr(sys, "path", ["/not/there", f"{site.folder.parent}/file.zip", *sys.path])
    site.install("toy")
    assert site.find("toy").name == "toy"


# -- a recipe of one's own ----------------------------------------------------------------


def test_ten_lines_make_a_recipe(tmp_path: Path) -> None:
    @artcache.make_recipe("answer", fields={"commit": "42"})
    def build(context: artcache.BuildContext) -> None:
        """The answer.

        And more.
        """
        (context.tree / "answer.txt").write_text("42")

    cache = artcache.Cache([], home=tmp_path, host=HOST)
    assert (cache.fetch(build).path / "answer.txt").read_text() == "42"
    assert (build.name, build.summary) == ("answer", "The answer.")


def key_of(recipe: Recipe, **request: Any) -> artcache.Key:
    (variant,) = recipe.variants(HOST, Request(**request), Runner())
    return variant.key


def nothing(context: object) -> None:
    pass


def test_its_key_has_the_machine_unless_the_fields_say_otherwise() -> None:
    plain = make_recipe("thing", fields={"commit": "1"})(nothing)
    assert key_of(plain).fields == {
        "recipe": "thing",
        "recipe_version": "1",
        "commit": "1",
        "platform": "linux-x86_64",
        "libc": "glibc2.35",
    }
    anywhere = make_recipe("thing", fields={"platform": "any", "libc": "none"}, version="2")(
        nothing
    )
    assert key_of(anywhere).fields == {
        "recipe": "thing",
        "recipe_version": "2",
        "platform": "any",
        "libc": "none",
    }


def test_fields_cannot_pass_for_another_recipe() -> None:
    thief = make_recipe("thief", fields={"recipe": "darknet", "recipe_version": "9"})(nothing)
    assert key_of(thief).recipe == "thief"
    assert key_of(thief).get("recipe_version") == "1"


@pytest.mark.parametrize("name", ["", "Answer", "a/b", "../x", "a b"])
def test_a_name_that_no_store_can_hold_is_refused_at_once(name: str) -> None:
    with pytest.raises(UsageError, match="recipe name"):
        make_recipe(name, fields={})(nothing)


def test_fields_that_no_key_can_hold_are_refused_when_it_is_asked() -> None:
    with pytest.raises(InvalidKey, match="options"):
        key_of(make_recipe("thing", fields={"options": {"GPU": "1"}})(nothing))  # type: ignore[dict-item]


def test_a_smoke_test_can_be_given() -> None:
    def smoke(context: object) -> NoReturn:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        make_recipe("thing", fields={}, smoke=smoke)(nothing).smoke(None)  # type: ignore[arg-type]
    make_recipe("thing", fields={})(nothing).smoke(None)  # type: ignore[arg-type]


# -- options ------------------------------------------------------------------------------


class Optional(Recipe):
    name = "optional"
    options = {"GPU": "use a GPU", "OPENCV": "use OpenCV"}  # noqa: RUF012


def test_an_option_that_a_recipe_has_is_fine() -> None:
    Optional().check_options(Request(options={"GPU": "1"}))
    Optional().check_options(Request())


@pytest.mark.parametrize(
    ("word", "hint"), [("gpu", "it has GPU"), ("OPENCW", "it has OPENCV"), ("zzz", "GPU, OPENCV")]
)
def test_an_option_that_it_does_not_have_is_offered_the_nearest(word: str, hint: str) -> None:
    with pytest.raises(UsageError, match=f"optional has no option '{word}'") as refused:
        Optional().check_options(Request(options={word: "1"}))
    assert hint in refused.value.hint


def test_a_recipe_without_options_says_none() -> None:
    with pytest.raises(UsageError) as refused:
        make_recipe("thing", fields={})(nothing).check_options(Request(options={"A": "1"}))
    assert refused.value.hint == "it has none"


def test_the_base_class_builds_nothing() -> None:
    with pytest.raises(NotImplementedError):
        Recipe().build(None)  # type: ignore[arg-type]
    with pytest.raises(NotImplementedError):
        Recipe().key_fields(HOST, Request())
