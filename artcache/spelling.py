"""A request as a user types it, for hints: what a miss says to build is what was asked for.

It reads and runs nothing; `match`, `wanted` and the faces may import it.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from .recipe import Request

_SECRET = re.compile(r"(?<=^https://)[^/]*@|(?<=^http://)[^/]*@|(?<=://)[^/@]*:[^/]*@")


def build_command(recipe: str, request: Request) -> str:
    """The command that builds the one artifact which the request names, quoted for a shell."""
    return shlex.join(["artcache", "build", recipe, *_options(request)])


def _options(request: Request) -> Iterator[str]:
    named = {
        "--source": _shown(request.source or ""),
        "--ref": request.ref,
        "--arch": ",".join(map(str, request.archs)),
        "--cuda": request.cuda,
        "--cudnn": request.cudnn,
        "--toolchain": request.toolchain,
    }
    for option, value in named.items():
        if value:
            yield from (option, value)
    for name, value in request.options.items():
        yield from ("--set", f"{name}={value}")
    if len({(arch.capability, arch.suffix) for arch in request.archs}) > 1:
        yield "--fat"  # without it `build` makes one artifact for each


def _shown(source: str) -> str:
    """Without the password or signature that a URL may hold: hints end up in logs."""
    if "://" not in source:
        return source
    return re.sub(r"\?.*", "?***", _SECRET.sub("***@", source))
