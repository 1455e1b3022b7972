"""Recipes that need no compiler. Apart, because the timed children import this."""

from __future__ import annotations

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
