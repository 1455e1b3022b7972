"""A commit that upstream made after the release of this recipe: resolved, keyed, built."""

from __future__ import annotations

from pathlib import Path

import pytest
from cmake_toy import MAIN, OPENCV, toy, upstream_at
from darknet_fixtures import (
    TINY_MAIN,
    build,
    files,
    git,
    only_variant,
    repository,
    smoke,
    tiny_tree,
)

from artcache.errors import MissingTool
from artcache.process import Runner
from artcache.recipe import Request
from darknet_recipe import cmake, libraries
from darknet_recipe.flavours import BY_NAME

FLAVOURS = ("alexeyab", "pjreddie", "colab", "hank-ai")


@pytest.mark.parametrize("name", FLAVOURS)
def test_a_new_commit_of_upstream(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flavour = BY_NAME[name]
    tree, main, text = tmp_path / "upstream", "src/main.c", TINY_MAIN
    if flavour.cmake:
        _need_cmake(monkeypatch)
        main, text = "src-cli/cli.c", MAIN
    repository(toy(tree) if flavour.cmake else tiny_tree(tree))
    upstream_at(tree, tmp_path, monkeypatch, flavour)
    before = build(only_variant(Request(source=name, ref="master")), tmp_path / "before")
    git(tree, "checkout", "--quiet", "-b", "next")
    (tree / main).write_text(text.replace("return 0;", 'puts("new"); return 0;'))
    git(tree, "commit", "--quiet", "--all", "--message=new")
    tip = git(tree, "rev-parse", "HEAD")
    variant = only_variant(Request(source=name, ref="next"))
    after = build(variant, tmp_path / "after")
    smoke(after)

    assert variant.note == f"next is {tip}"
    assert variant.key.get("source") == flavour.url
    assert tip not in (flavour.commit, before.key.get("commit"))
    assert variant.key.get("commit") == after.provenance["commit"] == tip
    said = [Runner().run([each.tree / "darknet"], cwd=tmp_path) for each in (before, after)]
    assert ["new" in words for words in said] == [False, True]
    # The same commit by its id, as another machine asks for it, has the same key and bytes.
    again = only_variant(Request(source=name, ref=tip))
    assert again.key == variant.key
    assert files(build(again, tmp_path / "again").tree) == files(after.tree)


def _need_cmake(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        cmake.require_cmake(Runner())
    except MissingTool as error:
        pytest.skip(f"{error}")
    monkeypatch.setattr(libraries, "opencv_version", lambda runner, needed_by="": OPENCV)
