"""Compilers and libraries of this machine, and where a build finds them.

darknet's Makefiles have `/usr/local/cuda` and `/usr/local/cudnn` written into
them. A build gets folders `cuda` and `cudnn` beside its source tree that lead
to the real ones, and the Makefile's words become `../cuda` and `../cudnn`:
short, without spaces, and the same on every machine.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from artcache.errors import BuildFailed, CommandFailed, MissingTool
from artcache.process import require_tool
from artcache.recipe import BuildContext, Request
from artcache.toolchain import Cudnn, HostFacts, Toolkit

from . import wheels
from .cudnn_files import version_of as cudnn_version
from .kits import WHEELS, allowed, conflict, machine_cudnn
from .target import Target

if TYPE_CHECKING:
    from artcache.process import Runner

_HEADERS = ("cuda_runtime.h", "cublas_v2.h", "curand.h")
_LIBRARIES = ("cudart", "cublas", "cublasLt", "curand")
_LIBRARY_FOLDERS = (
    *("lib64", "targets/x86_64-linux/lib", "targets/sbsa-linux/lib", "lib"),
    *("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "."),
)
_DRIVER_CALL = re.compile(rb"\bcu[A-Z][A-Za-z0-9]*(?=\s*\()")


def require_compilers(runner: Runner) -> dict[str, str]:
    """The versions of gcc, g++ and make, by name.

    Raises:
        MissingTool: one of them is not there.
        BuildFailed: one of them does not even say its version.
    """
    packages = {"gcc": "build-essential", "g++": "build-essential", "make": "build-essential"}
    return {
        name: version_of(runner, require_tool(name, package=package)).splitlines()[0]
        for name, package in packages.items()
    }


def version_of(runner: Runner, program: str) -> str:
    """What `program --version` prints.

    Raises:
        BuildFailed: it fails, or prints nothing.
    """
    try:
        said = runner.run([program, "--version"], timeout=30).strip()
        why = "" if said else "it does not say its version"
    except CommandFailed as error:
        said, why = "", str(error)
    if why:
        raise BuildFailed(f"the compiler {program} is broken: {why}", hint="install it anew")
    return said


def nvcc_release(runner: Runner, nvcc: str) -> str:
    """`Cuda compilation tools, release 13.0, V13.0.88`."""
    lines = version_of(runner, nvcc).splitlines()
    return next((line for line in lines if "release" in line), lines[-1])


def opencv_version(runner: Runner, needed_by: str = "") -> str:
    """OpenCV's version.

    Args:
        needed_by: The source that cannot do without it; empty: an option asks for it.

    Raises:
        MissingTool: no OpenCV to compile with, or no pkg-config to find it by.
    """
    pkg_config = require_tool("pkg-config")
    for name in ("opencv4", "opencv"):
        version = runner.run([pkg_config, "--modversion", name], check=False).strip()
        if version:
            return version
    because = f"{needed_by} needs OpenCV" if needed_by else "OPENCV=1"
    raise MissingTool(
        f"{because}, and OpenCV's headers are not on this machine",
        hint="install them, for example: apt-get install -y libopencv-dev"
        + ("" if needed_by else "; or leave OPENCV out"),
    )


def require_old_opencv(runner: Runner, source: str) -> None:
    """For Makefiles that ask pkg-config for `opencv`, which OpenCV 4 calls `opencv4`.

    Raises:
        MissingTool: there is none of that name.
    """
    pkg_config = require_tool("pkg-config")
    if not runner.run([pkg_config, "--modversion", "opencv"], check=False).strip():
        raise MissingTool(
            f"OPENCV=1, and the Makefile of {source} needs OpenCV 2 or 3, which is not here",
            hint="--source alexeyab works with OpenCV 4; or leave OPENCV out",
        )


def toolkit_here(host: HostFacts, target: Target, toolchain: str | None) -> Toolkit | None:
    """The machine's toolkit of the version that the key names; None where wheels make one.

    Raises:
        MissingTool: this machine has none, and the wheels make none.
    """
    assert target.cuda
    kits = allowed(host, toolchain).toolkits
    for kit in kits:
        if kit.version == target.cuda:
            return kit
    problem = wheels.toolchain_problem(target.cuda, target.archs, host.platform)
    if toolchain in (None, WHEELS) and not problem:
        return None
    there = ", ".join(str(kit.version) for kit in kits) or "none"
    raise MissingTool(
        f"the CUDA toolkit {target.cuda} is not on this machine (there: {there})"
        + (f", and {problem}" if problem else ""),
        hint=f"install it, build for one that is here, or fetch what others built for CUDA "
        f"{target.cuda}",
    )


def toolkit_of_wheels(context: BuildContext, target: Target) -> Toolkit:
    """One that is assembled of the vendor's wheels, or was once."""
    root = context.fetch("cuda", Request(cuda=str(target.cuda), toolchain=WHEELS))
    assert target.cuda
    return Toolkit(str(root), target.cuda, str(target.cuda), WHEELS)


def cudnn_for(context: BuildContext, target: Target) -> Cudnn:
    """The cuDNN of the major version that the key names: the machine's, else the wheels'.

    Raises:
        MissingTool: this machine has none, and there is no wheel of it.
    """
    assert target.cuda
    major = target.cuda.major
    if kept := machine_cudnn(context.host, str(target.cudnn), major):
        return kept
    wheel = wheels.CUDNNS.get((major, target.cudnn or 0))
    if wheel and context.host.platform in wheel.digests:
        # No exact CUDA version, so that one that was fetched before (a tarball's) serves as well.
        request = Request(cudnn=str(target.cudnn), options={"CUDA": str(major)})
        root = context.fetch("cudnn", request)
        return Cudnn(
            str(root / "include"), str(root / "lib64"), cudnn_version(root / "include"), major
        )
    conflicts = [text for found in context.host.cudnns if (text := conflict(found))]
    raise MissingTool(
        "; ".join([f"cuDNN {target.cudnn} for CUDA {major} is not on this machine", *conflicts]),
        hint="get it with `artcache fetch cudnn --source FILE --to /usr/local/cuda`, "
        "or build without it: --cudnn none",
    )


def lay_cuda(kit: Toolkit, scratch: Path) -> None:
    """Make `scratch/cuda` lead to the toolkit's `bin` and `include`, with the libraries in `lib64`.

    Raises:
        MissingTool: the toolkit is only a part of one.
    """
    root, folder = Path(kit.root), scratch / "cuda"
    places = (root / "include", Path("/usr/include"))
    missing = [name for name in _HEADERS if not any((place / name).exists() for place in places)]
    folder.mkdir()
    for name in ("bin", "include"):
        (folder / name).symlink_to((root / name).absolute())
    found = [_link_library(name, root, folder / "lib64") for name in _LIBRARIES]
    missing += [] if found[0] else ["libcudart.so"]
    if missing:
        raise MissingTool(
            f"the CUDA toolkit in {root} is not whole: it lacks {', '.join(missing)}",
            hint="cuBLAS and cuRAND are packages of their own: install their development files too",
        )


def lay_cudnn(cudnn: Cudnn, scratch: Path) -> None:
    """Make `scratch/cudnn` lead to cuDNN's `include`, with the library in `lib64`.

    Raises:
        MissingTool: there is no library in its folder.
    """
    folder = scratch / "cudnn"
    folder.mkdir()
    (folder / "include").symlink_to(Path(cudnn.include).absolute())
    if not _link_library("cudnn", Path(cudnn.library), folder / "lib64"):
        raise MissingTool(f"there is no libcudnn.so in {cudnn.library}", hint="install cuDNN anew")


def _link_library(name: str, root: Path, into: Path) -> bool:
    """Link all names of a library that `root` has; also the plain one, which the linker needs.

    The vendor's wheels have `libcudart.so.13` and no `libcudart.so`.
    """
    into.mkdir(exist_ok=True)
    for place in (root / folder for folder in _LIBRARY_FOLDERS):
        found = sorted(place.glob(f"lib{name}.so*"))
        for path in found:
            (into / path.name).symlink_to(path.absolute())
        if found:
            plain = into / f"lib{name}.so"
            if not plain.exists():
                plain.symlink_to(found[0].absolute())
            return True
    return False


def lay_driver_stub(runner: Runner, source: Path, scratch: Path) -> None:
    """Make `scratch/driver/libcuda.so`, to link against where there is no driver.

    It has the driver's SONAME and the few functions that the tree calls.
    Always used, so that a build's bytes don't depend on a driver being there.
    """
    calls: set[bytes] = {b"cuCtxGetCurrent"}
    for path in sorted(source.rglob("*")):
        if path.suffix in (".c", ".cpp", ".cu", ".h", ".hpp") and path.is_file():
            calls.update(_DRIVER_CALL.findall(path.read_bytes()))
    folder = scratch / "driver"
    folder.mkdir()
    text = "".join(f"void {name.decode()}(void) {{}}\n" for name in sorted(calls))
    (folder / "stub.c").write_text(text)
    runner.run(
        ["gcc", "-shared", "-fPIC", "-Wl,-soname,libcuda.so.1", "-o", "libcuda.so", "stub.c"],
        cwd=folder,
    )
