"""What a build is for: a CUDA version, architectures, a cuDNN; or the CPU alone.

Pure: decided from the request and the host's facts, and refused here, before
anything is fetched, where no compiler could do it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from artcache.errors import MissingTool, UsageError
from artcache.recipe import Request
from artcache.toolchain import CudaVersion, GpuArch, HostFacts, Toolkit, compiles_for

_TOOLKITS_TO_NAME = tuple(
    CudaVersion(*pair) for pair in ((10, 2), (11, 8), (12, 4), (12, 8), (12, 9), (13, 0))
)
"""Offered in hints, where they would do."""


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
    return Target(cuda, archs, _cudnn(host, request, given, cuda))


def usable_toolkits(host: HostFacts, request: Request) -> tuple[Toolkit, ...]:
    """The host's toolkits that `--toolchain` allows, the preferred one first."""
    wish = request.toolchain
    return tuple(
        kit for kit in host.toolkits if wish is None or wish in (kit.origin, kit.root.rstrip("/"))
    )


def _is_none(word: str | None) -> bool:
    return word is not None and word.strip().lower() == "none"


def _cpu(request: Request, given: Mapping[str, bool], because: str) -> Target:
    asked = {
        "--arch": bool(request.archs),
        "--cuda": bool(request.cuda) and not _is_none(request.cuda),
        "--cudnn": bool(request.cudnn) and not _is_none(request.cudnn),
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
        return named
    kits = usable_toolkits(host, request)
    for kit in kits:
        if not _refusals(kit.version, archs):
            return kit.version
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
    host: HostFacts, request: Request, given: Mapping[str, bool], cuda: CudaVersion
) -> int | None:
    wish, option = request.cudnn, given.get("CUDNN")
    if _is_none(wish) or option is False:
        if option or (wish and not _is_none(wish)):
            raise UsageError("the wishes for cuDNN contradict each other: --cudnn and CUDNN=")
        return None
    if wish:
        return _major(wish)
    fitting = [c.major for c in host.cudnns if c.cuda_major in (None, cuda.major)]
    if not fitting and option:
        raise MissingTool(
            f"CUDNN=1, and there is no cuDNN for CUDA {cuda.major} on this machine",
            hint="install it (nvidia-cudnn-cu"
            f"{cuda.major} from PyPI), or say --cudnn 9 to fetch what others built",
        )
    return fitting[0] if fitting else None


def _major(text: str) -> int:
    major = text.strip().partition(".")[0]
    if not major.isascii() or not major.isdigit() or not 4 <= int(major) <= 99:
        raise UsageError(f"{text!r} is no cuDNN version", hint="write it like 9, or none")
    return int(major)
