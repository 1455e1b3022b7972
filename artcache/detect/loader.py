"""Which shared libraries this machine offers: asked before an artifact of elsewhere is run."""

from __future__ import annotations

import mmap
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from . import below, listed, text_of

_FOLDERS = (
    *("lib", "lib64", "usr/lib", "usr/lib64", "usr/local/lib", "usr/local/cuda/lib64"),
    *("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"),
    *("lib/aarch64-linux-gnu", "usr/lib/aarch64-linux-gnu"),
    *("usr/lib64-nvidia", "usr/lib/wsl/lib", "usr/local/cuda/compat"),
)


def present(names: Iterable[str], root: Path, environ: Mapping[str, str]) -> set[str]:
    """The loader's order does not matter for whether it finds a name, only where it looks.

    Read are `LD_LIBRARY_PATH`, the loader's cache and its default folders.
    """
    wanted = set(names)
    known = _cache(root)
    found = {name for name in wanted if b"\0" + name.encode() + b"\0" in known}
    for folder in _folders(root, environ):
        if found == wanted:
            break
        found |= wanted.intersection(listed(folder))
    return found


def _cache(root: Path) -> bytes:
    """`ld.so.cache`: its names stand in it as plain strings, each ended by a zero byte."""
    try:
        with (root / "etc/ld.so.cache").open("rb") as file:
            return file.read(1 << 24)
    except OSError:
        return b""


def _folders(root: Path, environ: Mapping[str, str]) -> Iterator[Path]:
    for folder in environ.get("LD_LIBRARY_PATH", "").split(os.pathsep):
        if folder:
            yield below(root, folder)
    yield from (root / folder for folder in _FOLDERS)


def glibcxx(root: Path) -> str | None:
    """The newest version that the system's libstdc++ defines; None if there is none."""
    for folder in _folders(root, {}):
        try:
            with (
                (folder / "libstdc++.so.6").open("rb") as file,
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image,
            ):
                versions = re.findall(rb"\0GLIBCXX_(3(?:\.\d+){1,2})(?=\0)", image)
        except (OSError, ValueError):
            continue
        if versions:
            return str(max(versions, key=_numbers).decode())
    return None


def _numbers(version: bytes) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split(b"."))


def opencv(root: Path) -> str | None:
    """The version of the OpenCV that programs can be built with: `4.6.0`."""
    for folder in _folders(root, {}):
        for name in ("opencv4.pc", "opencv5.pc", "opencv.pc"):
            said = text_of(folder / "pkgconfig" / name)
            if match := re.search(r"^Version:\s*([\d.]+)", said, re.MULTILINE):
                return match[1]
    return None
