"""Recipes that need no compiler. Apart, because the timed children import this."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import artcache
from artcache.recipe import BuildContext, FunctionRecipe


def copying(name: str, tree: Path) -> FunctionRecipe:
    """A recipe whose "build" copies a tree that is here already."""

    @artcache.make_recipe(name, fields={"commit": tree.name, "platform": "any", "libc": "any"})
    def build(context: BuildContext) -> None:
        import shutil

        shutil.copytree(tree, context.tree, symlinks=True, dirs_exist_ok=True)

    return build


def offered(folder: Path, trees: Mapping[str, Path]) -> Path:
    """A folder for PYTHONPATH that offers a recipe `copying` each tree, as a package does.

    Args:
        trees: By the recipe's name, which has to be an identifier here.
    """
    info = folder / "bench_trees-1.0.dist-info"
    info.mkdir(parents=True)
    points = "".join(f"{name} = bench_trees:{name}\n" for name in trees)
    (info / "entry_points.txt").write_text(f"[artcache.recipes]\n{points}")
    imports = "from pathlib import Path\n\nfrom benchmarks.recipes import copying\n\n"
    rows = "".join(f"{name} = copying({name!r}, Path({str(trees[name])!r}))\n" for name in trees)
    (folder / "bench_trees.py").write_text(imports + rows)
    return folder
