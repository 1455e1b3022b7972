"""What a build is for: a CUDA version, architectures, a cuDNN; or the CPU alone.

Decided from the request and the host's facts alone (and the folder that
`--toolchain` names), and refused here, before anything is fetched, where no
compiler could do it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from artcache.errors import MissingTool, UsageError
from artcache.recipe import Request
from artcache.toolchain import CudaVersion, GpuArch, HostFacts, compiles_for

from . import wheels
from .kits import WHEELS, allowed

_TOOLKITS_TO_NAME = tuple(
    CudaVersion(*pair) for pair in ((10, 2), (11, 8), (12, 4), (12, 8), (12, 9), (13, 0))
)
"""Offered in hints, where they would do."""
_OLDEST_OF_CUDNN_9 = 50
"""The first compute capability, times ten, that cuDNN 9 has code for."""


class Target(NamedTuple):
    cuda: CudaVersion | None = None
    """None: a CPU build; then there are no architectures and no cuDNN either."""
    archs: tuple[GpuArch, ...] = ()
    cudnn: int | None = None
    """The major version."""

    def key_fields(self) -> dict[str, str | tuple[str, ...]]:
        return {
            "cuda": str(self.cuda) if self.cuda else "none",
            "arch": tuple(str(arch) for arch in self.archs) or "none",
            "cudnn": str(self.cudnn) if self.cudnn else "none",
        }


CPU = Target()


def choose(host: HostFacts, request: Request, given: Mapping[str, bool]) -> Target:
    """Decide what to build for.

    Args:
        given: The options that the user gave; GPU and CUDNN are read.

    Raises:
        UsageError: wishes that contradict each other or that no compiler can meet.
        MissingTool: there is a GPU, and no toolkit that compiles for it.
    """
    wants_gpu = given.get("GPU")
    if _is_none(request.cuda) or wants_gpu is False:
        return _cpu(request, given, "--cuda none" if _is_none(request.cuda) else "GPU=0")
    archs = tuple(sorted(set(request.archs or host.archs)))
    if not archs:
        if request.cuda or wants_gpu:
            raise UsageError(
                "this machine has no GPU to compile for, and none was named",
                hint="name the architectures, for example --arch sm_75,sm_80 "
                "(or --cuda none for a CPU build)",
            )
        return _cpu(request, given, "a machine without a GPU")
    cuda = _cuda(host, request, archs)
    return Target(cuda, archs, _cudnn(host, request, given, cuda, archs))


def _is_none(word: str | None) -> bool:
    return word is not None and word.strip().lower() == "none"


def _cpu(request: Request, given: Mapping[str, bool], because: str) -> Target:
    asked = {
        "--arch": bool(request.archs),
        "--cuda": bool(request.cuda) and not _is_none(request.cuda),
        "--cudnn": bool(request.cudnn) and not _is_none(request.cudnn),
        "--toolchain": bool(request.toolchain),
        "GPU=1": bool(given.get("GPU")),
        "CUDNN=1": bool(given.get("CUDNN")),
    }
    for word, is_asked in asked.items():
        if is_asked:
            raise UsageError(
                f"{word} contradicts {because}, which makes a CPU build",
                hint="name an architecture for a GPU build (--arch sm_75), "
                f"or leave {word} out for a CPU build",
            )
    return CPU


def _cuda(host: HostFacts, request: Request, archs: tuple[GpuArch, ...]) -> CudaVersion:
    named = CudaVersion.parse(request.cuda) if request.cuda else host.cuda_override
    if named:
        if reasons := _refusals(named, archs):
            raise UsageError("; ".join(reasons), hint=_what_would_work(named, archs))
        if request.toolchain == WHEELS:
            _by_wheels(named, archs, host)
        return named
    if request.toolchain == WHEELS:
        return _by_wheels(wheels.DEFAULT, archs, host)
    kits = allowed(host, request.toolchain).toolkits
    for kit in kits:
        if not _refusals(kit.version, archs):
            return kit.version
    if request.toolchain is None and _wheels_would_do(host, request, archs):
        return wheels.DEFAULT
    wanted = ", ".join(map(str, archs))
    if not kits:
        problem = f"there is no CUDA toolkit (nvcc) on this machine to compile for {wanted}"
    else:
        reasons = [reason for kit in kits for reason in _refusals(kit.version, archs)]
        problem = f"no CUDA toolkit of this machine compiles for {wanted}: {'; '.join(reasons)}"
    raise MissingTool(
        problem,
        hint="--cuda none makes a CPU build; a version (--cuda 12.8) fetches what others built; "
        "to build here, install a CUDA toolkit whose nvcc compiles for it",
    )


def _by_wheels(cuda: CudaVersion, archs: tuple[GpuArch, ...], host: HostFacts) -> CudaVersion:
    """`cuda`. Raises `UsageError` if the vendor's wheels cannot make that toolchain."""
    if problem := wheels.toolchain_problem(cuda, archs, host.platform):
        raise UsageError(problem, hint=wheels.toolchain_hint(archs, host.platform))
    return cuda


def _wheels_would_do(host: HostFacts, request: Request, archs: tuple[GpuArch, ...]) -> bool:
    """Whether the wheels' toolkit compiles for these, and what it makes would run here."""
    if wheels.toolchain_problem(wheels.DEFAULT, archs, host.platform):
        return False
    for_this_machine = host.gpus and not request.archs and host.driver_cuda
    return not for_this_machine or host.driver_cuda >= wheels.DEFAULT  # type: ignore[operator]


def _refusals(cuda: CudaVersion, archs: Iterable[GpuArch]) -> list[str]:
    return [reason for arch in archs if (reason := compiles_for(cuda, arch))]


def _what_would_work(cuda: CudaVersion, archs: tuple[GpuArch, ...]) -> str:
    versions = [str(v) for v in _TOOLKITS_TO_NAME if not _refusals(v, archs)]
    doable = [str(arch) for arch in archs if not compiles_for(cuda, arch)]
    ways = []
    if versions:
        ways.append(f"CUDA {' or '.join(versions)} compiles for {', '.join(map(str, archs))}")
    if doable:
        ways.append(f"CUDA {cuda} does compile for {', '.join(doable)}")
    return "; ".join(ways) or "ask for these architectures one by one, with different --cuda"


def _cudnn(
    host: HostFacts,
    request: Request,
    given: Mapping[str, bool],
    cuda: CudaVersion,
    archs: tuple[GpuArch, ...],
) -> int | None:
    wish, option = request.cudnn, given.get("CUDNN")
    if _is_none(wish) or option is False:
        if option or (wish and not _is_none(wish)):
            raise UsageError("the wishes for cuDNN contradict each other: --cudnn and CUDNN=")
        return None
    if wish:
        return _major(wish)
    # The machine's own, else the wheels': what is fast on every GPU is the default.
    fitting = [c.major for c in host.cudnns if c.cuda_major in (None, cuda.major)]
    wheel = wheels.CUDNNS.get((cuda.major, 9))
    if not fitting and wheel and host.platform in wheel.digests:
        fitting = [] if archs[0].capability < _OLDEST_OF_CUDNN_9 and not option else [9]
    if not fitting and option:
        raise MissingTool(
            f"CUDNN=1, and there is no cuDNN for CUDA {cuda.major} on this machine",
            hint="install it, or say --cudnn 9 to fetch what others built",
        )
    return fitting[0] if fitting else None


def _major(text: str) -> int:
    major = text.strip().partition(".")[0]
    if not major.isascii() or not major.isdigit() or not 4 <= int(major) <= 99:
        raise UsageError(f"{text!r} is no cuDNN version", hint="write it like 9, or none")
    return int(major)
