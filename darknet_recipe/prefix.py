"""A CUDA toolkit of wheels: their files in the places where builds look for them.

The wheels have libraries by their SONAMEs only, no `lib64` and nothing to
link `libcuda` against: those are made here.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from artcache.errors import CommandFailed, SmokeFailed
from artcache.recipe import BuildContext, SmokeContext

from .stub import MACHINES, shared_library
from .wheelhouse import obtain, unpack_wheel

if TYPE_CHECKING:
    from .cuda import Parts

_INSIDE = re.compile(r"nvidia/cu\d+/(?P<path>(?!\.metadata/).+)")
_RUN_TIME = re.compile(
    r"nvidia/\w+/lib/(?P<name>lib(?:cudart|cublas|cublasLt|curand|nvrtc|nvrtc-builtins)\.so[.\d]*)"
)
_LICENCE = re.compile(r"[^/]+\.dist-info/(?:licenses/)?License\.txt")
_DRIVER_CALL = re.compile(r"\bcu[A-Z]\w*")
_SMOKE = """\
#include <cublas_v2.h>
#include <cuda.h>
#include <curand.h>
__global__ void add(float *values) { values[threadIdx.x] += 1.f; }
int main() {
    cublasHandle_t blas;
    curandGenerator_t random;
    add<<<1, 32>>>(nullptr);
    return cuInit(0) + cublasCreate(&blas) + curandCreateGenerator(&random, CURAND_RNG_TEST);
}
"""


def assemble(context: BuildContext, parts: Parts) -> None:
    """Fill `context.tree` with `bin`, `nvvm`, `include` and `lib64`.

    Raises:
        LocalDisk, SourceUnavailable, BuildFailed: see `wheelhouse`.
    """
    _unpack(context, parts, _in_prefix)
    tree = context.tree
    (tree / "lib").symlink_to("lib64")
    for library in sorted((tree / "lib64").glob("lib*.so.*")):
        plain = library.with_name(library.name.partition(".so")[0] + ".so")
        if not plain.exists():
            plain.symlink_to(library.name)
    calls = _DRIVER_CALL.findall((tree / "include/cuda.h").read_text(errors="replace"))
    (tree / "lib64/stubs").mkdir()
    stub = shared_library("libcuda.so.1", calls, MACHINES[context.host.platform])
    (tree / "lib64/stubs/libcuda.so").write_bytes(stub)
    # The installer leaves this file too; it is how others find out the exact version.
    nvcc = next(wheel.version for wheel in parts.wheels if wheel.project == "nvidia-cuda-nvcc")
    versions = {"cuda_nvcc": {"name": "CUDA NVCC", "version": nvcc}}
    (tree / "version.json").write_text(json.dumps(versions, indent=1) + "\n")


def collect_libraries(context: BuildContext, parts: Parts) -> None:
    """Fill `context.tree` with `lib64`: what programs load, nothing to build with."""
    _unpack(context, parts, _in_libraries)


def _unpack(context: BuildContext, parts: Parts, place: Callable[..., str | None]) -> None:
    files = obtain(context, parts.wheels)
    context.phase("unpack")
    for number, file in enumerate(files):
        # All of them bring the same licence.
        unpack_wheel(file, context.tree, partial(place, first=not number))
    context.provenance.update(
        source="NVIDIA's wheels on PyPI", wheels=[file.name for file in files], dirty=False
    )


def _in_prefix(path: str, first: bool) -> str | None:
    if match := _INSIDE.fullmatch(path):
        return re.sub(r"^lib/", "lib64/", match["path"])
    return "EULA.txt" if first and _LICENCE.fullmatch(path) else None


def _in_libraries(path: str, first: bool) -> str | None:
    if match := _RUN_TIME.fullmatch(path):
        return f"lib64/{match['name']}"
    return "EULA.txt" if first and _LICENCE.fullmatch(path) else None


def try_compiler(context: SmokeContext, parts: Parts) -> None:
    """Ask nvcc for its version; where there is a g++, compile and link a program for a GPU.

    Raises:
        SmokeFailed: one of them fails.
    """
    nvcc = context.tree / "bin/nvcc"
    try:
        said = context.runner.run([nvcc.absolute(), "--version"], timeout=60)
        if f"release {parts.cuda}," not in said:
            raise SmokeFailed(f"the new nvcc is not of CUDA {parts.cuda}: {said.strip()}")
        if not shutil.which("g++"):
            return
        (context.scratch / "smoke.cu").write_text(_SMOKE)
        words = ["-gencode", "arch=compute_75,code=sm_75", "smoke.cu", "-o", "smoke"]
        words += ["-lcublas", "-lcurand", "-lcuda"]
        context.runner.run([nvcc.absolute(), *words], cwd=context.scratch, timeout=300)
    except CommandFailed as error:
        raise SmokeFailed(
            f"the new CUDA toolkit does not work: {error}", hint=error.hint
        ) from error
