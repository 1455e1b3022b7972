"""What NVIDIA gives out, imitated in small: cuDNN tarballs of every layout, wheels, hosts."""

from __future__ import annotations

import base64
import functools
import hashlib
import io
import stat
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import pytest

import artcache
from artcache.events import Observer
from artcache.toolchain import CudaVersion, Gpu, GpuArch, HostFacts, Toolkit

BARE = HostFacts(platform="linux-x86_64", libc="glibc2.36")
"""No GPU, no toolkit, no cuDNN."""
T4 = BARE._replace(gpus=(Gpu("Tesla T4", 75),), driver="580.65.06", driver_cuda=CudaVersion(13, 0))
CUDA_12 = Toolkit("/usr/local/cuda-12.8", CudaVersion(12, 8), "12.8.93")
SM_75 = GpuArch.parse("75")
_MACHINES = {"x86_64": 62, "aarch64": 183}


class Heard(Observer):
    """Remembers what a user would have read."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.warnings: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def cache(folder: Path, host: HostFacts = BARE, *stores: object) -> tuple[artcache.Cache, Heard]:
    heard = Heard()
    return artcache.Cache(list(stores), home=folder, host=host, observer=heard), heard  # type: ignore[arg-type]


@functools.cache
def _compiled() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "lib.so")
        command = ["gcc", "-shared", "-nostdlib", "-x", "c", "/dev/null", "-o", str(made)]
        try:
            subprocess.run(command, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError) as error:
            pytest.skip(f"no gcc to make a library: {error}")
        return made.read_bytes()


def library(text: str = "", cpu: str = "x86_64") -> bytes:
    """A real shared library for that CPU, with some text in it."""
    body = bytearray(_compiled())
    body[18:20] = _MACHINES[cpu].to_bytes(2, "little")
    return bytes(body) + text.encode() + b"\0"


def header(version: str) -> bytes:
    names = zip(("MAJOR", "MINOR", "PATCHLEVEL"), version.split("."), strict=True)
    return "".join(f"#define CUDNN_{name} {number}\n" for name, number in names).encode()


# -- cuDNN ----------------------------------------------------------------------------------


def cudnn_files(
    version: str, *, top: str, lib: str, cuda: int | None = 12, cpu: str = "x86_64"
) -> dict[str, bytes | str]:
    """Path -> bytes, or what a link leads to, as NVIDIA packs it."""
    major = version.partition(".")[0]
    parts = {"7": [""], "8": ["", "_ops_infer"], "9": ["", "_ops", "_graph"]}[major]
    where = "cudnn.h" if major == "7" else "cudnn_version.h"
    files: dict[str, bytes | str] = {
        f"{top}/LICENSE": b"yours to use, not to give away\n",
        f"{top}/include/cudnn.h": b"/* cuDNN */\n",
        f"{top}/include/{where}": header(version),
    }
    for part in parts:
        stem = f"{top}/{lib}/libcudnn{part}.so"
        needs = f"libcublasLt.so.{cuda}" if part and cuda else ""
        files[f"{stem}.{version}"] = library(needs, cpu)
        files[f"{stem}.{major}"] = f"libcudnn{part}.so.{version}"
        files[stem] = f"libcudnn{part}.so.{major}"
        files[f"{top}/{lib}/libcudnn{part}_static.a"] = b"!<arch>\n" + bytes(1000)
    return files


LAYOUTS = {
    "cudnn-10.0-linux-x64-v7.5.0.56.tgz": ("7.5.0", "cuda", "lib64", 10),
    "cudnn-11.3-linux-x64-v8.2.1.32.tgz": ("8.2.1", "cuda", "lib64", 11),
    **{
        f"cudnn-linux-x86_64-{full}_cuda12-archive.tar.xz": (
            *(version, f"cudnn-linux-x86_64-{full}_cuda12-archive", "lib"),
            12,
        )
        for full, version in (("8.9.7.29", "8.9.7"), ("9.10.2.21", "9.10.2"))
    },
}
"""By file name: version, top folder, folder of the libraries, CUDA."""


def cudnn_tarball(folder: Path, name: str, *, called: str = "", cpu: str = "x86_64") -> Path:
    version, top, lib, cuda = LAYOUTS[name]
    made_for = cuda if version[0] != "7" else None
    files = cudnn_files(version, top=top, lib=lib, cuda=made_for, cpu=cpu)
    return tarball(folder / (called or name), files)


def tarball(path: Path, files: Mapping[str, bytes | str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:xz" if path.name.endswith("xz") else "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
                tar.addfile(member)
            else:
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    return path


# -- wheels ---------------------------------------------------------------------------------


def wheel(
    folder: Path,
    project: str,
    version: str,
    files: Mapping[str, bytes],
    *,
    tag: str = "py3-none-any",
    record: Mapping[str, str] | None = None,
    links: frozenset[str] = frozenset(),
) -> Path:
    """A wheel that pip takes.

    Args:
        record: Lines of RECORD to put in place of the true ones; an empty one is left out.
        links: Names among `files` that are symlinks.
    """
    stem = project.replace("-", "_")
    info = f"{stem}-{version}.dist-info"
    whole = {
        **files,
        f"{info}/licenses/License.txt": b"NVIDIA's\n",
        f"{info}/METADATA": _text(
            "Metadata-Version: 2.1", f"Name: {project}", f"Version: {version}"
        ),
        f"{info}/WHEEL": _text("Wheel-Version: 1.0", "Root-Is-Purelib: true", f"Tag: {tag}"),
    }
    lines = {name: f"{name},{_digest(body)},{len(body)}" for name, body in whole.items()}
    lines.update(record or {})
    whole[f"{info}/RECORD"] = _text(*filter(None, lines.values()), f"{info}/RECORD,,")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{stem}-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, body in whole.items():
            member = zipfile.ZipInfo(name)
            kind = stat.S_IFLNK if name in links else stat.S_IFREG
            member.external_attr = (kind | (0o744 if "/bin/" in name else 0o644)) << 16
            archive.writestr(member, body)
    return path


def _text(*lines: str) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _digest(body: bytes) -> str:
    return "sha256=" + base64.urlsafe_b64encode(hashlib.sha256(body).digest()).decode().rstrip("=")


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
