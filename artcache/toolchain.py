"""Values of the GPU world and their spellings: architectures, CUDA versions, a host's facts.

Pure: this room reads nothing. `detect` fills these values in, recipes and
`compat` decide with them.

Source for the architecture table: CUDA C++ Programming Guide, "Compute
Capabilities", and the release notes of each toolkit named in `_TOOLKIT_RANGE`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from .errors import UsageError

KNOWN_CAPABILITIES: tuple[int, ...] = (
    *(30, 32, 35, 37, 50, 52, 53, 60, 61, 62, 70, 72, 75, 80, 86, 87, 88, 89),
    *(90, 100, 101, 103, 110, 120, 121),
)
"""Compute capabilities, times ten, that some CUDA 9 to 13 toolkit compiles for."""

_ARCH_SPELLING = re.compile(
    r"(?:sm_|compute_|sm|)(?P<number>\d{1,2}\.\d|\d{2,3})(?P<suffix>[af]?)"
    r"(?P<kind>-real|-virtual|\+ptx|)",
)


class GpuArch(NamedTuple):
    """One compilation target: a compute capability, as machine code or as PTX."""

    capability: int
    """Major times ten plus minor: 75 for Turing, 120 for Blackwell's workstation cards."""
    suffix: str = ""
    """`a`: this exact device only. `f`: its family. Empty: binary compatible within the major."""
    ptx: bool = False

    def __str__(self) -> str:
        return f"{'compute' if self.ptx else 'sm'}_{self.capability}{self.suffix}"

    @property
    def major(self) -> int:
        return self.capability // 10

    @property
    def minor(self) -> int:
        return self.capability % 10

    @property
    def dotted(self) -> str:
        return f"{self.major}.{self.minor}{self.suffix}"

    @classmethod
    def parse(cls, text: str) -> tuple[GpuArch, ...]:
        """Read one target as users write it.

        `75`, `7.5`, `sm_75`, `75-real` and `sm_90a` name machine code,
        `compute_75` and `75-virtual` PTX, `9.0+PTX` both.

        Raises:
            UsageError: not such a word, or a capability that no toolkit knows.
        """
        word = text.strip().lower()
        match = _ARCH_SPELLING.fullmatch(word)
        if not match:
            raise UsageError(
                f"{text!r} is no GPU architecture", hint="write it like sm_75, 7.5 or 9.0+PTX"
            )
        capability = int(match["number"].replace(".", ""))
        suffix, kind = match["suffix"], match["kind"]
        if capability not in KNOWN_CAPABILITIES:
            raise UsageError(
                f"no GPU has the compute capability {text!r}", hint=_nearest_arch(capability)
            )
        first = 100 if suffix == "f" else 90
        if suffix and capability < first:
            raise UsageError(f"{text!r}: only sm_{first} and newer have {suffix!r} targets")
        virtual = word.startswith("compute_") or kind == "-virtual"
        if kind == "+ptx" and not virtual:
            return cls(capability, suffix), cls(capability, suffix, True)
        return (cls(capability, suffix, virtual),)

    @classmethod
    def parse_list(cls, text: str | Iterable[str]) -> tuple[GpuArch, ...]:
        """Read a list separated by commas, semicolons or spaces; sorted, each once."""
        words = re.split(r"[,;\s]+", text) if isinstance(text, str) else list(text)
        found = {arch for word in words if word for arch in cls.parse(word)}
        if not found:
            raise UsageError("no GPU architecture given", hint="write it like sm_75,sm_80")
        return tuple(sorted(found))


def _nearest_arch(capability: int) -> str:
    near = sorted(KNOWN_CAPABILITIES, key=lambda known: (abs(known - capability), known))[:3]
    return "did you mean " + ", ".join(f"sm_{number}" for number in near) + "?"


class CudaVersion(NamedTuple):
    """A toolkit's or driver's CUDA version. The patch level never changes compatibility."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"

    @classmethod
    def parse(cls, text: str) -> CudaVersion:
        """Read `12.8`, `12.8.1`, `cu128` or `cu1210` (12.10, not 121.0).

        Raises:
            UsageError: not such a word.
        """
        word = text.strip().lower()
        if match := re.fullmatch(r"(\d{1,2})\.(\d{1,2})(?:\.\d+)*", word):
            return cls(int(match[1]), int(match[2]))
        if match := re.fullmatch(r"cu(?:da)?(\d{2})(\d{1,2})", word):
            return cls(int(match[1]), int(match[2]))
        raise UsageError(f"{text!r} is no CUDA version", hint="write it like 12.8")

    @classmethod
    def from_integer(cls, number: int) -> CudaVersion:
        """Read the form of `CUDA_VERSION` and NVML: 12080 is 12.8."""
        return cls(number // 1000, number % 1000 // 10)


# Lowest and highest capability that nvcc of this version and newer (up to the
# next row) accepts. Source: release notes ("deprecated architectures") and
# `nvcc --list-gpu-arch` of each.
_TOOLKIT_RANGE: tuple[tuple[CudaVersion, int, int], ...] = (
    (CudaVersion(9, 0), 30, 70),
    (CudaVersion(9, 2), 30, 72),
    (CudaVersion(10, 0), 30, 75),
    (CudaVersion(11, 0), 35, 80),
    (CudaVersion(11, 1), 35, 86),
    (CudaVersion(11, 5), 35, 87),
    (CudaVersion(11, 8), 35, 90),
    (CudaVersion(12, 0), 50, 90),
    (CudaVersion(12, 8), 50, 120),
    (CudaVersion(12, 9), 50, 121),
    (CudaVersion(13, 0), 75, 121),
)
_FIRST_TOOLKIT = {103: CudaVersion(12, 9), 88: CudaVersion(13, 0), 110: CudaVersion(13, 0)}


def compiles_for(cuda: CudaVersion, arch: GpuArch) -> str:
    """Say why nvcc of this version cannot compile for `arch`; empty if it can."""
    rows = [row for row in _TOOLKIT_RANGE if row[0] <= cuda]
    if not rows:
        return f"CUDA {cuda} is older than any this version knows"
    _, low, high = rows[-1]
    if arch.capability < low:
        return f"CUDA {cuda} has no {arch}: it starts at sm_{low}"
    if arch.capability > high:
        return f"CUDA {cuda} has no {arch}: it ends at sm_{high}"
    if arch.capability == 101 and cuda >= CudaVersion(13, 0):
        return f"CUDA {cuda} has no {arch}: it is called sm_110 from CUDA 13 on"
    first = _FIRST_TOOLKIT.get(arch.capability)
    if first and cuda < first:
        return f"CUDA {cuda} has no {arch}: it starts with CUDA {first}"
    if arch.suffix == "f" and cuda < CudaVersion(12, 9):
        return f"CUDA {cuda} has no {arch}: family targets start with CUDA 12.9"
    if arch.suffix == "a" and arch.capability == 90 and cuda < CudaVersion(12, 0):
        return f"CUDA {cuda} has no {arch}: it starts with CUDA 12.0"
    return ""


class Gpu(NamedTuple):
    name: str
    capability: int
    """Major times ten plus minor."""
    tegra: bool = False


class Toolkit(NamedTuple):
    """An nvcc with its headers and libraries."""

    root: str
    version: CudaVersion
    full_version: str
    """As the toolkit itself says it: `13.0.88`."""
    origin: str = "machine"
    """`machine` or `wheels`."""


class Cudnn(NamedTuple):
    include: str
    """The folder that holds `cudnn.h`."""
    library: str
    """The folder that holds `libcudnn.so*`."""
    version: str
    """`9.10.2`."""
    cuda_major: int | None = None

    @property
    def major(self) -> int:
        return int(self.version.split(".")[0])


class HostFacts(NamedTuple):
    """What a machine is, as far as it decides what can be built or run on it.

    A fact that could not be found out is None or empty, never an error.
    """

    platform: str = "linux-x86_64"
    libc: str = "glibc2.35"
    """`glibc<major>.<minor>`, or `musl`."""
    gpus: tuple[Gpu, ...] = ()
    driver: str | None = None
    """`580.65.06`."""
    driver_cuda: CudaVersion | None = None
    """The newest CUDA version that the driver supports."""
    toolkits: tuple[Toolkit, ...] = ()
    """The one to be preferred first."""
    cudnns: tuple[Cudnn, ...] = ()
    arch_override: tuple[GpuArch, ...] = ()
    """From `ARTCACHE_ARCH`."""
    cuda_override: CudaVersion | None = None
    """From `ARTCACHE_CUDA`."""
    service: str = ""
    """`colab`, `kaggle`, `codespaces`..., see `detect.service`; or empty."""
    notes: tuple[str, ...] = ()
    """What was found broken, for `artcache host`."""
    glibcxx: str | None = None
    """The newest GLIBCXX version of the system's libstdc++, `3.4.30`; None if nobody looked."""

    @property
    def archs(self) -> tuple[GpuArch, ...]:
        """What a build for this machine compiles for: the override, else every GPU here."""
        return self.arch_override or tuple(sorted({GpuArch(gpu.capability) for gpu in self.gpus}))
