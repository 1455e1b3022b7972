"""Object files with code for several GPU architectures, cut down to some of them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from artcache.errors import BuildFailed, Corrupt
from artcache.fatbin import select
from artcache.process import require_tool

if TYPE_CHECKING:
    from artcache.process import Runner
    from artcache.toolchain import GpuArch

_SECTION = ".nv_fatbin"


def cuda_objects(folder: Path, kept: Path) -> list[Path]:
    """Copies, in `kept`, of the objects in `folder` that hold GPU code."""
    kept.mkdir()
    found = []
    for path in sorted(folder.glob("*.o")):
        if _SECTION.encode() in path.read_bytes():
            found.append(kept / path.name)
            shutil.copyfile(path, found[-1])
    return found


def cut_down(
    runner: Runner, objects: Sequence[Path], folder: Path, archs: Iterable[GpuArch]
) -> None:
    """Write each of `objects` into `folder` with the code for `archs` alone.

    Raises:
        BuildFailed: an object does not hold code for all of them.
        MissingTool: no objcopy.
    """
    objcopy = require_tool("objcopy", package="binutils")
    targets = {str(arch) for arch in archs}
    for path in objects:
        whole, part = path.with_suffix(".whole"), path.with_suffix(".part")
        runner.run([objcopy, "-O", "binary", "-j", _SECTION, path, whole])
        try:
            part.write_bytes(select(whole.read_bytes(), targets))
        except Corrupt as error:
            raise BuildFailed(f"{path.name}: {error}") from error
        runner.run([objcopy, "--update-section", f"{_SECTION}={part}", path, folder / path.name])
