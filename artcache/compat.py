"""May this artifact run on that machine? `runs`, `runs after JIT` or `no`, with reasons.

Pure. It decides from what was found in the binary (`Needs`), never from what
was asked of the compiler. What cannot be shown to run does not run: a `no`
costs a build, a wrong `runs` costs a crash.

Sources, all of NVIDIA: CUDA Programming Guide, "The CUDA platform" (binary and
PTX compatibility) and "Compute Capabilities" (architecture- and
family-specific features); CUDA Compatibility, "Minor Version Compatibility"
and "Forward Compatibility"; CUDA Toolkit Release Notes, tables of drivers.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable
from typing import Literal, NamedTuple

from .errors import UsageError
from .needs import Needs
from .toolchain import CudaVersion, Gpu, GpuArch, HostFacts

RUNS: Literal["runs"] = "runs"
AFTER_JIT: Literal["runs after JIT"] = "runs after JIT"
NO: Literal["no"] = "no"
Outcome = Literal["runs", "runs after JIT", "no"]

TEGRA = frozenset({32, 53, 62, 72, 87, 101, 110})
"""Capabilities of NVIDIA's systems on a chip (Jetson, Drive), times ten.

10.1 is called 11.0 from CUDA 13 on. 12.1 (GB10) is none of them: it runs the
server stack.
"""

_MINIMUM_DRIVER = {
    (9, 0): "384.81",
    (9, 1): "390.46",
    (9, 2): "396.26",
    (10, 0): "410.48",
    (10, 1): "418.39",
    (10, 2): "440.33",
    11: "450.80.02",
    12: "525.60.13",
    13: "580.65.06",
}
"""By version before 11, by major from 11 on: there minor versions are compatible."""


class ArtifactFacts(NamedTuple):
    """What an artifact is, as far as it decides where it runs."""

    needs: Needs
    cuda: str = "none"
    """The key's field: the toolkit it was compiled with, `12.8`; `none` for a CPU build."""
    platform: str = ""
    """The key's field: `linux-x86_64`; empty if it runs anywhere."""

    @property
    def uses_gpu(self) -> bool:
        needs = self.needs
        return self.cuda != "none" or bool(needs.sass or needs.ptx or needs.driver)


class Verdict(NamedTuple):
    """An outcome, and why: for `no` every obstacle, otherwise what will run on which GPU."""

    outcome: Outcome
    reasons: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return self.outcome != NO


def verdict(
    artifact: ArtifactFacts, host: HostFacts, *, libraries: Collection[str] | None = None
) -> Verdict:
    """Judge. On a host of several GPUs the artifact must run on each of them.

    Args:
        libraries: SONAMEs that the host has or a dependency supplies; None if
            nobody looked, and then they are not judged.
    """
    obstacles = [*_platform(artifact, host), *_libraries(artifact.needs, host, libraries)]
    if not artifact.uses_gpu:
        return Verdict(NO, tuple(obstacles)) if obstacles else Verdict(RUNS, ("needs no GPU",))
    cuda = _cuda_version(artifact.cuda)
    obstacles += _driver(artifact, cuda, host)
    devices = _devices(host)
    if not devices:
        obstacles.append("it needs an NVIDIA GPU, and none is visible on this machine")
    per_gpu = [_on_gpu(artifact.needs, cuda, gpu, host) for gpu in devices]
    obstacles += [reason for outcome, reason in per_gpu if outcome == NO]
    if obstacles:
        return Verdict(NO, tuple(obstacles))
    jit = any(outcome == AFTER_JIT for outcome, _ in per_gpu)
    return Verdict(AFTER_JIT if jit else RUNS, tuple(reason for _, reason in per_gpu))


# -- code and GPUs ------------------------------------------------------------------------


def machine_code_runs(target: GpuArch, capability: int) -> bool:
    """Whether SASS for `target` runs on a device of this capability (times ten).

    Same major, and a minor as new or newer; `a` on the exact device; `f` like
    plain code, since families so far end with the major. Tegra exactly: binary
    compatibility is defined for discrete GPUs only.
    """
    if target.suffix == "a" or target.capability in TEGRA or capability in TEGRA:
        return target.capability == capability
    return target.major == capability // 10 and target.capability <= capability


def ptx_compiles(target: GpuArch, capability: int) -> bool:
    """Whether a driver that is new enough can compile this PTX for such a device.

    Plain PTX goes to every newer device, `f` stays in its family, `a` on its
    device. Between Tegra and discrete GPUs nothing is passed on: the guide
    would let plain PTX cross, but the libraries around it are other ones.
    """
    if target.suffix:
        return machine_code_runs(target, capability)
    if (target.capability in TEGRA) != (capability in TEGRA):
        return False
    return target.capability <= capability


def covers(have: GpuArch, want: GpuArch) -> bool:
    """Whether `have` runs on every device that `want` runs on.

    PTX covers machine code (at the price of a JIT), machine code never PTX.
    """
    if want.ptx and not have.ptx:
        return False
    reaches = ptx_compiles if have.ptx else machine_code_runs
    if not reaches(have, want.capability):
        return False
    breadth = {"": 2, "f": 1, "a": 0}
    if want.capability in TEGRA and not want.ptx:
        return True  # One device is all that `want` runs on, whatever its suffix.
    return breadth[have.suffix] >= breadth[want.suffix]


def parse_targets(words: Iterable[str]) -> tuple[GpuArch, ...]:
    """Read `Needs.sass` or `Needs.ptx`, also architectures this version has not heard of."""
    matches = (re.fullmatch(r"(sm|compute)_(\d{2,3})([af]?)", word) for word in words)
    return tuple(
        GpuArch(int(match[2]), match[3], match[1] == "compute") for match in matches if match
    )


def _devices(host: HostFacts) -> tuple[Gpu, ...]:
    """The GPUs to be judged by: those of `ARTCACHE_ARCH` if set, else each kind here once."""
    if host.arch_override:
        capabilities = sorted({arch.capability for arch in host.arch_override})
        return tuple(Gpu("ARTCACHE_ARCH", number, number in TEGRA) for number in capabilities)
    return tuple(dict.fromkeys(host.gpus))


def _on_gpu(
    needs: Needs, cuda: CudaVersion | None, gpu: Gpu, host: HostFacts
) -> tuple[Outcome, str]:
    label = f"{gpu.name} ({gpu.capability // 10}.{gpu.capability % 10})"
    sass, ptx = parse_targets(needs.sass), parse_targets(needs.ptx)
    if not sass and not ptx:
        return RUNS, f"it has no GPU code of its own, so {label} makes no difference"
    fitting = [arch for arch in sass if machine_code_runs(arch, gpu.capability)]
    if fitting:
        return RUNS, f"{max(fitting)} machine code runs on {label}"
    compilable = [arch for arch in ptx if ptx_compiles(arch, gpu.capability)]
    if not compilable:
        has = ", ".join([*needs.sass, *needs.ptx])
        return NO, f"nothing in it runs on {label}: it has {has}"
    best = max(compilable)
    if host.driver_cuda is None and not host.gpus:
        return AFTER_JIT, f"{best} is compiled for {label} at its first start, if the driver can"
    if cuda is None or host.driver_cuda is None or host.driver_cuda < cuda:
        return NO, (
            f"{label} needs {best} compiled by the driver, which reads CUDA "
            f"{host.driver_cuda or '(unknown)'} and no {cuda or '(unknown)'}"
        )
    return AFTER_JIT, f"{best} is compiled for {label} by the driver at its first start"


# -- the machine around -------------------------------------------------------------------


def minimum_driver(cuda: CudaVersion) -> str:
    """The oldest Linux driver on which this toolkit's runtime starts; empty if unknown."""
    if cuda.major >= 11:
        return _MINIMUM_DRIVER.get(cuda.major, "")
    return _MINIMUM_DRIVER.get((cuda.major, cuda.minor), "")


def _platform(artifact: ArtifactFacts, host: HostFacts) -> list[str]:
    machine = artifact.needs.machine
    if artifact.platform and artifact.platform != host.platform:
        return [f"it was built for {artifact.platform}, this is {host.platform}"]
    if machine and not host.platform.endswith(f"-{machine}"):
        return [f"it holds {machine} machine code, this is {host.platform}"]
    return []


def _libraries(needs: Needs, host: HostFacts, libraries: Collection[str] | None) -> list[str]:
    obstacles = []
    if needs.glibc:
        found = re.fullmatch(r"glibc(\d+(?:\.\d+)+)", host.libc)
        if not found:
            obstacles.append(f"it needs glibc {needs.glibc}, this machine has {host.libc}")
        elif _numbers(found[1]) < _numbers(needs.glibc):
            obstacles.append(f"it needs glibc {needs.glibc}, this machine has glibc {found[1]}")
    if needs.glibcxx and host.glibcxx and _numbers(host.glibcxx) < _numbers(needs.glibcxx):
        obstacles.append(
            f"it needs a libstdc++ with GLIBCXX_{needs.glibcxx}, "
            f"this machine's ends at {host.glibcxx}"
        )
    if libraries is not None:
        missing = [name for name in needs.sonames if name not in libraries]
        obstacles += [f"it needs {name}, which is not on this machine" for name in missing]
    return obstacles


def _driver(artifact: ArtifactFacts, cuda: CudaVersion | None, host: HostFacts) -> list[str]:
    if artifact.cuda != "none" and cuda is None:
        return [f"its CUDA version {artifact.cuda!r} is not understood"]
    minimum = artifact.needs.driver or (minimum_driver(cuda) if cuda else "")
    if host.driver is None:
        # Without a GPU that is said elsewhere; with ARTCACHE_ARCH the user vouches for it.
        # A Tegra's driver is part of its system and has no number of its own.
        discrete = [gpu for gpu in host.gpus if not gpu.tegra]
        return ["the driver's version could not be read"] if discrete else []
    if not minimum or _numbers(host.driver) >= _numbers(minimum):
        return []
    # NVIDIA's forward-compatibility package brings a newer CUDA to an older driver.
    if cuda and host.driver_cuda and host.driver_cuda >= _least_of_its_kind(cuda):
        return []
    return [f"it needs driver {minimum} or newer, this machine has {host.driver}"]


def _least_of_its_kind(cuda: CudaVersion) -> CudaVersion:
    """The oldest version that machine code of `cuda` is content with: from 11 on, its major."""
    return CudaVersion(cuda.major, 0) if cuda.major >= 11 else cuda


def _cuda_version(text: str) -> CudaVersion | None:
    try:
        return CudaVersion.parse(text)
    except UsageError:
        return None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in re.findall(r"\d+", version))
