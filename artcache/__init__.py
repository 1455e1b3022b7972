"""artcache: compile GPU software once, fetch it in seconds on every later machine.

    import artcache
    print(artcache.fetch("darknet").path)

Names are imported when they are first used, so `import artcache` costs nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from .api import Cache, build, fetch, fetch_all
    from .cache import Fetched
    from .errors import ArtcacheError, FetchesFailed
    from .events import Observer
    from .key import Key
    from .recipe import BuildContext, Recipe, Request, SmokeContext, Tool, Variant, make_recipe
    from .toolchain import CudaVersion, GpuArch, HostFacts

__all__ = [
    "ArtcacheError",
    "BuildContext",
    "Cache",
    "CudaVersion",
    "Fetched",
    "FetchesFailed",
    "GpuArch",
    "HostFacts",
    "Key",
    "Observer",
    "Recipe",
    "Request",
    "SmokeContext",
    "Tool",
    "Variant",
    "build",
    "fetch",
    "fetch_all",
    "make_recipe",
]

_ROOMS = {
    "ArtcacheError": "errors",
    "BuildContext": "recipe",
    "Cache": "api",
    "CudaVersion": "toolchain",
    "Fetched": "cache",
    "FetchesFailed": "errors",
    "GpuArch": "toolchain",
    "HostFacts": "toolchain",
    "Key": "key",
    "Observer": "events",
    "Recipe": "recipe",
    "Request": "recipe",
    "SmokeContext": "recipe",
    "Tool": "recipe",
    "Variant": "recipe",
    "build": "api",
    "fetch": "api",
    "fetch_all": "api",
    "make_recipe": "recipe",
}


def __getattr__(name: str) -> Any:
    if name not in _ROOMS:
        raise AttributeError(f"module 'artcache' has no attribute {name!r}")
    from importlib import import_module

    found = getattr(import_module(f"artcache.{_ROOMS[name]}"), name)
    globals()[name] = found
    return found
