"""Finds CUDA toolkits and cuDNN by their files: no compiler is run, no library loaded."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from ..toolchain import CudaVersion, Cudnn, Toolkit
from . import MACHINE, below, listed, text_of

_SERIES = re.compile(r"cuda-(\d+)(?:\.(\d+))?")
_CUDNN_NUMBERS = re.compile(r"#define\s+CUDNN_(MAJOR|MINOR|PATCHLEVEL)\s+(\d+)")
_CUDNN_WHEEL = re.compile(r"nvidia_cudnn_cu(\d+)-[\d.]+\.dist-info")
_NVCC_WHEEL = re.compile(r"nvidia_cuda_nvcc(?:_cu\d+)?-([\d.]+)\.dist-info")
_CUDNN_HOMES = ("CUDNN_HOME", "CUDNN_PATH", "CUDNN_ROOT")


def find(
    root: Path, environ: Mapping[str, str], site_packages: Iterable[Path] | None, notes: list[str]
) -> list[Toolkit]:
    """Every toolkit that has an nvcc, each once, the one to be preferred first.

    What the environment names goes before PATH, that before the usual places
    (`/usr/local/cuda`, then the newest), and pip's wheels come last.
    """
    found: dict[str, Toolkit] = {}
    for folder, origin, named_by in _candidates(root, environ, site_packages):
        real = os.path.realpath(folder)
        if real in found:
            continue
        if not os.path.isfile(folder / "bin/nvcc"):
            if named_by:
                notes.append(f"{named_by} names {folder}, which has no bin/nvcc")
            continue
        version = _version(folder)
        if version is None:
            notes.append(f"{folder} has an nvcc but no cuda.h: its version is unknown")
        else:
            found[real] = Toolkit(str(folder), version, _full_version(folder, version), origin)
    return list(found.values())


def _candidates(
    root: Path, environ: Mapping[str, str], site_packages: Iterable[Path] | None
) -> Iterator[tuple[Path, str, str]]:
    """Folders in order of preference: where, of which origin, named by which variable."""
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if environ.get(name):
            yield below(root, environ[name]), "machine", name
    for folder in environ.get("PATH", "").split(os.pathsep):
        program = below(root, folder) / "nvcc"
        if folder and os.path.isfile(program):
            yield _home_of(program, root), "machine", ""
    local = below(root, "/usr/local")
    yield local / "cuda", "machine", ""
    series = [name for name in listed(local) if _SERIES.fullmatch(name)]
    for name in sorted(series, key=_series_number, reverse=True):
        yield local / name, "machine", ""
    yield below(root, "/opt/cuda"), "machine", ""
    for packages in _packages(root, site_packages):
        names = listed(packages / "nvidia")
        wheels = [name for name in names if re.fullmatch(r"cu\d+|cuda_nvcc", name)]
        yield from ((packages / "nvidia" / name, "wheels", "") for name in reversed(wheels))


def _series_number(name: str) -> tuple[int, int]:
    """For sorting; `cuda-12` is a link to the newest 12.x."""
    match = _SERIES.fullmatch(name)
    return (int(match[1]), int(match[2] or 99)) if match else (0, 0)


def _home_of(program: Path, root: Path) -> Path:
    """The toolkit of an nvcc on PATH, which may be a link or a two-line script."""
    real = program.resolve()
    if text_of(real, 2) == "#!":
        for word in text_of(real, 4096).replace('"', " ").split():
            if word.startswith("/") and word.endswith("/nvcc"):
                real = below(root, word).resolve()
                break
    return real.parent.parent


def _version(home: Path) -> CudaVersion | None:
    """By the header; conda and NVIDIA's cross packages keep it below `targets`."""
    places = [home, *(home / "targets" / name for name in listed(home / "targets"))]
    for place in places:
        said = text_of(place / "include/cuda.h", 1 << 20)
        if match := re.search(r"#define\s+CUDA_VERSION\s+(\d{4,6})\b", said):
            return CudaVersion.from_integer(int(match[1]))
    return None


def _full_version(home: Path, version: CudaVersion) -> str:
    """nvcc's exact version, as far as a file says it."""
    said = text_of(home / "version.json")
    found = re.findall(r'"cuda_nvcc"\s*:\s*\{[^}]*"version"\s*:\s*"([\d.]+)"', said)
    found += re.findall(r"CUDA Version ([\d.]+)", text_of(home / "version.txt"))
    # What pip installed: beside the folder `nvidia`, or kept in the toolkit.
    for name in (*listed(home / "dist-info"), *listed(home.parent.parent)):
        found += _NVCC_WHEEL.findall(name)
    return next((word for word in found if word.startswith(f"{version}.")), str(version))


# -- cuDNN --------------------------------------------------------------------------------


def find_cudnn(
    root: Path,
    environ: Mapping[str, str],
    site_packages: Iterable[Path] | None,
    toolkits: Iterable[Toolkit],
    notes: list[str],
) -> Iterator[Cudnn]:
    """Every cuDNN with headers and a library, each once, the one to be preferred first."""
    seen: set[str] = set()
    for include, places, cuda_major in _cudnn_candidates(root, environ, site_packages, toolkits):
        real = os.path.realpath(include)
        version = "" if real in seen else _cudnn_version(include)
        if not version:
            continue
        seen.add(real)
        library = next((place for place in places if _holds_cudnn(place)), None)
        if library:
            yield Cudnn(str(include), str(library), version, cuda_major)
        else:
            notes.append(f"{include} has cuDNN {version}'s headers, but its library is not near")


def _cudnn_candidates(
    root: Path,
    environ: Mapping[str, str],
    site_packages: Iterable[Path] | None,
    toolkits: Iterable[Toolkit],
) -> Iterator[tuple[Path, tuple[Path, ...], int | None]]:
    """Include folders in order of preference, where each one's library may be, its CUDA."""
    local = below(root, "/usr/local")
    homes = [below(root, environ[name]) for name in _CUDNN_HOMES if environ.get(name)]
    homes += [local / name for name in listed(local) if name.startswith("cudnn")]
    for home in homes:
        yield home / "include", _library_places(home), None
    for toolkit in toolkits:
        home = Path(toolkit.root)
        yield home / "include", _library_places(home), toolkit.version.major
    for triplet in ("x86_64-linux-gnu", "aarch64-linux-gnu", ""):
        include = below(root, "/usr/include") / triplet
        if _cudnn_version(include):
            names = (f"/usr/lib/{triplet}", "/usr/lib64", f"/lib/{triplet}")
            yield include, tuple(below(root, name) for name in names), _packaged_cuda(root)
    for packages in _packages(root, site_packages):
        home = packages / "nvidia/cudnn"
        if os.path.isdir(home):
            yield home / "include", _library_places(home), _wheel_cuda(packages)


def _library_places(home: Path) -> tuple[Path, ...]:
    return home / "lib64", home / "lib", home / "lib/x86_64-linux-gnu"


def _holds_cudnn(folder: Path) -> bool:
    return any(name.startswith("libcudnn.so") for name in listed(folder))


def _cudnn_version(include: Path) -> str:
    """From `cudnn_version.h` (8 and newer) or `cudnn.h` (7)."""
    for name in ("cudnn_version.h", "cudnn.h"):
        numbers = dict(_CUDNN_NUMBERS.findall(text_of(include / name, 1 << 18)))
        if len(numbers) == 3:
            return "{MAJOR}.{MINOR}.{PATCHLEVEL}".format_map(numbers)
    return ""


def _packaged_cuda(root: Path) -> int | None:
    """Debian's packages of cuDNN 9 name their CUDA: `libcudnn9-cuda-12.list`."""
    for name in listed(below(root, "/var/lib/dpkg/info")):
        if match := re.fullmatch(r"libcudnn\d+-cuda-(\d+)\.list", name):
            return int(match[1])
    return None


def _wheel_cuda(packages: Path) -> int | None:
    found = (_CUDNN_WHEEL.fullmatch(name) for name in listed(packages))
    return next((int(match[1]) for match in found if match), None)


def _packages(root: Path, given: Iterable[Path] | None) -> list[Path]:
    """The folders that pip installs into, on the machine below `root`."""
    if given is not None:
        return list(given)
    if root != MACHINE:
        return []
    return [Path(path) for path in sys.path if path.endswith(("site-packages", "dist-packages"))]
