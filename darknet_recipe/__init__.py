"""The darknet recipe: several forks of one detector, built by their own Makefiles.

The entry point is `darknet_recipe:recipe`. Importing this package reads no
file and starts no process: a warm hit pays for it on every call. What builds
(`build`, `obtain`, `debian`, `unpack`, `smoke`) is imported when it is needed.
"""

from __future__ import annotations

from .darknet import DarknetRecipe

__all__ = ["DarknetRecipe", "recipe"]

recipe = DarknetRecipe()
