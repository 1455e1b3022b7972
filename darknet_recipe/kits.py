"""Which CUDA toolkits `--toolchain` allows, and what a folder that it names is.

Read from the folder's files; no compiler is run here.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from artcache.errors import MissingTool, UsageError
from artcache.toolchain import CudaVersion, Cudnn, HostFacts, Toolkit

MACHINE, WHEELS = "machine", "wheels"

_ELF_MACHINES = {62: "x86_64", 183: "aarch64", 21: "ppc64le", 243: "riscv64", 3: "x86"}
_OTHERS = {b"MZ": "Windows", b"\xcf\xfa\xed\xfe": "macOS", b"\xca\xfe\xba\xbe": "macOS"}


def allowed(host: HostFacts, toolchain: str | None) -> HostFacts:
    """The host as if it had only the toolkits that the request allows.

    Args:
        toolchain: `machine`, `wheels` (none of the machine's), a folder, or None for all.

    Raises:
        UsageError: it is none of these words, and no folder either.
        MissingTool: the folder has no toolkit that runs here.
    """
    if toolchain is None:
        return host
    if toolchain == WHEELS:
        return host._replace(toolkits=())
    if toolchain == MACHINE:
        kits = tuple(kit for kit in host.toolkits if kit.origin == MACHINE)
        return host._replace(toolkits=kits)
    root = Path(toolchain).expanduser()
    named = [kit for kit in host.toolkits if kit.root.rstrip("/") == str(root)]
    if named:
        return host._replace(toolkits=(named[0],))
    if not root.is_dir():
        raise UsageError(
            f"--toolchain {toolchain}: there is no such folder",
            hint="it is machine, wheels, or the folder of a CUDA toolkit: /usr/local/cuda-12.8",
        )
    known = [kit for kit in host.toolkits if os.path.realpath(kit.root) == os.path.realpath(root)]
    return host._replace(toolkits=(known[0] if known else kit_at(root, host),))


def kit_at(root: Path, host: HostFacts) -> Toolkit:
    """The toolkit in a folder.

    Raises:
        MissingTool: it has no nvcc, one for another system, or no `cuda.h`.
    """
    nvcc = root / "bin/nvcc"
    for_others = [name for name in ("bin/nvcc.exe", "bin/x64/nvcc.exe") if (root / name).exists()]
    if not nvcc.is_file() and for_others:
        raise MissingTool(f"{root}/{for_others[0]} is a program for Windows, not for this machine")
    if not nvcc.is_file():
        raise MissingTool(
            f"{root} is no CUDA toolkit: it has no bin/nvcc",
            hint="name the folder that holds bin, include and lib64",
        )
    if problem := wrong_machine(nvcc, host.platform):
        raise MissingTool(f"{nvcc} {problem}", hint="--toolchain machine or wheels")
    for header in ("include/cuda.h", *(f"targets/{t}/include/cuda.h" for t in _targets(root))):
        said = _text(root / header)
        if match := re.search(r"#define\s+CUDA_VERSION\s+(\d{4,6})\b", said):
            version = CudaVersion.from_integer(int(match[1]))
            return Toolkit(str(root.absolute()), version, str(version))
    raise MissingTool(
        f"the CUDA toolkit in {root} is not whole: it has no include/cuda.h",
        hint="install its development files too",
    )


def wrong_machine(program: Path, platform: str) -> str:
    """Why a program or library cannot be for this platform; empty if it can."""
    with program.open("rb") as stream:
        start = stream.read(20)
    for magic, system in _OTHERS.items():
        if start.startswith(magic):
            return f"is for {system}, this is {platform}"
    if start.startswith(b"\x7fELF") and len(start) == 20:
        machine = _ELF_MACHINES.get(int.from_bytes(start[18:20], "little"), "another CPU")
        return "" if platform.endswith(f"-{machine}") else f"is for {machine}, this is {platform}"
    return "" if start.startswith(b"#!") else "is no program or library for Linux"


def _targets(root: Path) -> list[str]:
    folder = root / "targets"
    return sorted(os.listdir(folder)) if folder.is_dir() else []


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as stream:
            return stream.read(1 << 20)
    except OSError:
        return ""


# -- cuDNN ----------------------------------------------------------------------------------


def machine_cudnn(host: HostFacts, wish: str | None, cuda_major: int) -> Cudnn | None:
    """The machine's first cuDNN that fits and whose headers and library belong together.

    Args:
        wish: `9` or more of a version; None takes any.
    """
    wanted = (wish or "").split(".")[:3] if wish else []
    for found in host.cudnns:
        fits = found.version.split(".")[: len(wanted)] == wanted
        if fits and found.cuda_major in (None, cuda_major) and not conflict(found):
            return found
    return None


def conflict(cudnn: Cudnn) -> str:
    """Say in what its headers and its library are two different cuDNNs; empty if they are one."""
    names = sorted(os.listdir(cudnn.library)) if os.path.isdir(cudnn.library) else []
    found = (re.fullmatch(r"libcudnn\.so\.(\d+(?:\.\d+)*)", name) for name in names)
    theirs = [match[1] for match in found if match]
    ours = cudnn.version.split(".")
    if not theirs or any(ours[: len(t.split("."))] == t.split(".") for t in theirs):
        return ""
    return (
        f"two cuDNNs in conflict: the headers in {cudnn.include} are of {cudnn.version}, "
        f"the library in {cudnn.library} is {max(theirs, key=len)}"
    )
