"""The facts of this machine: `host()` for what is built and run, `host_report()` for people.

No process is started and no network is asked. A fact that cannot be found out
is missing, with a line in `HostFacts.notes`; a broken driver is such a line and
no error. Every path is taken below `root`, so that tests bring their own machines.

This module is on the way of every warm hit: it imports next to nothing, and the
GPUs' own library only where there is a sign of a driver.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..toolchain import CudaVersion, GpuArch, HostFacts

if TYPE_CHECKING:
    from .report import HostReport

MACHINE = Path("/")

_DRIVER_SIGNS = (
    *("proc/driver/nvidia/version", "dev/nvidiactl", "dev/nvidia0"),
    *("dev/dxg", "usr/lib64-nvidia/libnvidia-ml.so.1", "etc/nv_tegra_release"),
)
"""The kernel module, its devices, WSL, Colab, Jetson."""


_SIGNED = {
    "CODESPACES": "codespaces",
    "GITHUB_ACTIONS": "github-actions",
    "GITLAB_CI": "gitlab-ci",
}
"""Variables that services set to `true`."""


def host(
    root: Path = MACHINE,
    environ: Mapping[str, str] | None = None,
    *,
    site_packages: Iterable[Path] | None = None,
    memo: Path | None = None,
) -> HostFacts:
    """Look at this machine. Takes milliseconds; with a driver, at most some 5 s.

    Args:
        environ: By default `os.environ`.
        memo: A file that remembers what the driver said.
        site_packages: Folders to look for NVIDIA's wheels in; by
            default those of this interpreter.

    Raises:
        UsageError: `ARTCACHE_ARCH` or `ARTCACHE_CUDA` makes no sense.
    """
    from . import toolkits

    environ = os.environ if environ is None else environ
    notes: list[str] = []
    arch_override = _arch_override(environ)
    cuda_override = _cuda_override(environ)
    found = toolkits.find(root, environ, site_packages, notes)
    if cuda_override:
        # Stable: among those of the wished-for version, the order of preference stays.
        found = sorted(found, key=lambda toolkit: toolkit.version != cuda_override)
    cudnns = tuple(toolkits.find_cudnn(root, environ, site_packages, found, notes))
    facts = HostFacts(
        platform=platform(),
        libc=libc(root),
        toolkits=tuple(found),
        cudnns=cudnns,
        arch_override=arch_override,
        cuda_override=cuda_override,
        service=service(root, environ),
        notes=tuple(notes),
    )
    if any(os.path.lexists(root / sign) for sign in _DRIVER_SIGNS):
        return _with_gpus(facts, root, memo)
    return facts


def _with_gpus(facts: HostFacts, root: Path, memo: Path | None) -> HostFacts:
    from .memo import recall, remember

    if memo and (known := recall(memo, facts, root)):
        return known
    from . import gpus

    found = gpus.add(facts, root)
    if memo:
        remember(memo, found, root)
    return found


def host_report(root: Path = MACHINE, environ: Mapping[str, str] | None = None) -> HostReport:
    """`host()` and more that only people want to know: CPU, memory, disk, OpenCV.

    Raises:
        UsageError: as `host`.
    """
    from .report import report

    return report(root, os.environ if environ is None else environ)


def platform() -> str:
    """`linux-x86_64`, `linux-aarch64`."""
    facts = os.uname()
    return f"{facts.sysname.lower()}-{facts.machine}"


def libc(root: Path = MACHINE) -> str:
    """`glibc2.36`, `musl` or `unknown`."""
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
    except (AttributeError, OSError, ValueError):
        name = version = ""
    if name == "glibc" and version:
        return f"glibc{version}"
    loaders = [name for name in listed(root / "lib") if name.startswith("ld-musl-")]
    return "musl" if loaders else "unknown"


def service(root: Path, environ: Mapping[str, str]) -> str:
    """`colab`, `kaggle`, `sagemaker`, `codespaces`, `github-actions`, `gitlab-ci` or empty.

    Kaggle's image is made of Colab's, so it is asked first.
    """
    if "KAGGLE_KERNEL_RUN_TYPE" in environ or os.path.isdir(root / "kaggle/working"):
        return "kaggle"
    if "COLAB_RELEASE_TAG" in environ or os.path.isdir(root / "content/sample_data"):
        return "colab"
    if os.path.isfile(root / "opt/ml/metadata/resource-metadata.json"):
        return "sagemaker"
    for name, signed in _SIGNED.items():
        if environ.get(name) == "true":
            return signed
    return ""


def glibcxx(root: Path = MACHINE) -> str | None:
    """The newest GLIBCXX version that the system's libstdc++ offers: `3.4.30`.

    Apart from `host`, because it reads two megabytes.
    """
    from .loader import glibcxx as find

    return find(root)


def libraries(
    names: Iterable[str], root: Path = MACHINE, environ: Mapping[str, str] | None = None
) -> set[str]:
    """Those of the SONAMEs that the dynamic loader of this machine would find."""
    from .loader import present

    return present(names, root, os.environ if environ is None else environ)


def _arch_override(environ: Mapping[str, str]) -> tuple[GpuArch, ...]:
    text = environ.get("ARTCACHE_ARCH", "").strip()
    try:
        return GpuArch.parse_list(text) if text else ()
    except UsageError as error:
        raise UsageError(f"ARTCACHE_ARCH: {error}", hint=error.hint) from None


def _cuda_override(environ: Mapping[str, str]) -> CudaVersion | None:
    text = environ.get("ARTCACHE_CUDA", "").strip()
    try:
        return CudaVersion.parse(text) if text else None
    except UsageError as error:
        raise UsageError(f"ARTCACHE_CUDA: {error}", hint=error.hint) from None


# -- for the rooms beside this one --------------------------------------------------------


def below(root: Path, path: str) -> Path:
    """An absolute path of the machine that lies below `root`."""
    return root / path.lstrip("/")


def listed(folder: Path) -> list[str]:
    """The sorted names in a folder; none if it cannot be read."""
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []


def text_of(path: Path, limit: int = 65536) -> str:
    """The first `limit` bytes of a file; empty if it cannot be read."""
    try:
        with path.open("rb") as file:
            return file.read(limit).decode(errors="replace")
    except OSError:
        return ""
