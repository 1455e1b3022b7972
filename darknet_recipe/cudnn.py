"""The recipe of cuDNN: a tarball that the user saved, NVIDIA's wheels, or the machine's own.

The key has the version, the CUDA major version and the platform, wherever the
files come from: the vendor gives out the same ones in all its packages. A
tarball says these by its name; one that was renamed is looked into.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from artcache.errors import UsageError
from artcache.key import Key
from artcache.recipe import BuildContext, Recipe, Request, Supplier, Variant
from artcache.toolchain import CudaVersion, HostFacts, compiles_for

from . import cuda, wheels
from .kits import machine_cudnn

if TYPE_CHECKING:
    from artcache.process import Runner

_NAMES = (
    re.compile(
        r"cudnn-(?P<system>linux|windows)-(?P<cpu>[a-z0-9_]+)-(?P<version>\d+(?:\.\d+){2,3})"
        r"(?:_cuda(?P<cuda>\d+))?"
    ),
    re.compile(
        r"cudnn-(?P<cuda>\d+)\.\d+-(?P<system>linux|windows|osx)\d*-(?P<cpu>[a-z0-9_]+)"
        r"-v(?P<version>\d+(?:\.\d+){2,3})"
    ),
)
"""`cudnn-linux-x86_64-9.10.2.21_cuda12-archive.tar.xz`; `cudnn-10.0-linux-x64-v7.5.0.56.tgz`."""

_CPUS = {"x64": "x86_64", "sbsa": "aarch64", "aarch64sbsa": "aarch64"}
_LIBRARY = re.compile(r"libcudnn(?:_\w+)?\.so\.(\d+)")


class Origin(NamedTuple):
    """Where a cuDNN comes from."""

    version: str
    """Three numbers, as its header has them: `9.10.2`."""
    cuda_major: int
    wheel: wheels.Wheel | None = None
    archive: str = ""
    """Path of the tarball."""

    def key_fields(self, platform: str) -> dict[str, str]:
        return {
            "cudnn": self.version,
            "cudnn_major": self.version.partition(".")[0],
            "cuda_major": str(self.cuda_major),
            "platform": platform,
            "libc": wheels.LIBC,
        }


class Named(NamedTuple):
    """What a tarball's name, or that of the folder in it, says."""

    version: str
    cuda_major: int | None
    cpu: str
    system: str


class CudnnRecipe(Recipe):
    name = "cudnn"
    version = "1"
    summary = "cuDNN: of a tarball (--source FILE), of NVIDIA's wheels, or this machine's own"
    options = {"CUDA": "The major version of CUDA that it is for; --cuda 12.8 says it too"}  # noqa: RUF012
    redistributable = False
    licence = "NVIDIA's licence of cuDNN"
    pack_bytes = 618 * 10**6
    tree_bytes = 1005 * 10**6

    def variants(self, host: HostFacts, request: Request, runner: Runner) -> Sequence[Variant]:
        """The tarball that was named; else the machine's own if it fits, and then the wheel."""
        self.check_options(request)
        _refuse_nonsense(request)
        where = (request.source or "").strip()
        if where not in ("", "machine", "wheels"):
            return [self._of_archive(host, request, Path(where).expanduser())]
        major = _cuda_major(host, request)
        _refuse_old_gpus(request, major)
        found = []
        if where != "wheels" and (kept := self._on_machine(host, request, major)):
            found.append(kept)
        if where == "machine":
            if not found:
                raise UsageError(
                    f"this machine has no cuDNN {request.cudnn or ''} for CUDA {major}".replace(
                        "  ", " "
                    ),
                    hint="leave --source out to get NVIDIA's wheel, or name a tarball",
                )
            return found
        return [*found, *self._of_wheel(host, request, major, optional=bool(found))]

    def _on_machine(self, host: HostFacts, request: Request, major: int) -> Variant | None:
        kept = machine_cudnn(host, request.cudnn, major)
        if kept is None:
            return None
        origin = Origin(kept.version, major)
        apart = "" if kept.include.startswith(_root(kept.library)) else f" and {kept.include}"
        return Variant(
            Key(self.full_fields(origin.key_fields(host.platform))),
            note=f"cuDNN {kept.version} for CUDA {kept.cuda_major or major} is on this machine "
            f"already, in {kept.library}{apart}: nothing is fetched (--source wheels fetches one)",
            present=_root(kept.library),
        )

    def _of_wheel(
        self, host: HostFacts, request: Request, major: int, *, optional: bool
    ) -> list[Variant]:
        try:
            wheel = wheels.cudnn(major, request.cudnn or "9", host.platform)
        except UsageError:
            if optional:
                return []
            raise
        origin = Origin(_three(wheel.version), major, wheel)
        fields = self.full_fields(origin.key_fields(host.platform))
        return [Variant(Key(fields), origin, exact="." in (request.cudnn or ""))]

    def _of_archive(self, host: HostFacts, request: Request, path: Path) -> Variant:
        said = _by_name(path.name)
        note = ""
        if said is None or said.cuda_major is None:
            from .cudnn_files import look_into

            version, folder = look_into(path)
            said = _by_name(folder) or Named(version, None, "", "linux")
            if said.cuda_major is None:
                said = said._replace(cuda_major=_cuda_major(host, request))
                note = f"{path.name} does not say for which CUDA it is: taken for CUDA "
                note += f"{said.cuda_major} (--cuda says otherwise)"
        _check_named(said, host, request, path.name)
        assert said.cuda_major
        origin = Origin(_three(said.version), said.cuda_major, archive=str(path.absolute()))
        fields = self.full_fields(origin.key_fields(host.platform))
        return Variant(Key(fields), origin, note, exact=True)

    def build(self, context: BuildContext) -> None:
        from .cudnn_files import build

        cuda.refuse_present(context)
        build(context, context.plan)

    def supplier(self, soname: str, key: Key) -> Supplier | None:
        platform, major = str(key.get("platform")), str(key.get("cuda_major"))
        return cuda.supplier(soname, f"{major}.0", platform)


def supplier(soname: str, made_with: str, platform: str) -> Supplier | None:
    """Who has the library of cuDNN that a program made with this CUDA version needs."""
    match = _LIBRARY.fullmatch(soname)
    major = made_with.partition(".")[0]
    if not match or not major.isdigit():
        return None
    wheel = wheels.CUDNNS.get((int(major), int(match[1])))
    if wheel is None or platform not in wheel.digests:
        return None
    # No exact CUDA version, so that a cuDNN that was fetched before (a tarball's) serves as well.
    return Supplier(CudnnRecipe.name, Request(cudnn=match[1], options={"CUDA": major}))


def _by_name(name: str) -> Named | None:
    match = next((found for pattern in _NAMES if (found := pattern.search(name.lower()))), None)
    if not match:
        return None
    cpu = _CPUS.get(match["cpu"], match["cpu"])
    return Named(match["version"], int(match["cuda"] or 0) or None, cpu, match["system"])


def _check_named(said: Named, host: HostFacts, request: Request, name: str) -> None:
    if said.system != "linux":
        raise UsageError(f"{name} is a cuDNN for {said.system}", hint="get the one for Linux")
    if said.cpu and not host.platform.endswith(f"-{said.cpu}"):
        raise UsageError(
            f"{name} is a cuDNN for {said.cpu}, and this machine is {host.platform}",
            hint=f"get the one for {host.platform.partition('-')[2]}",
        )
    wish = (request.cudnn or "").split(".")
    if request.cudnn and said.version.split(".")[: len(wish)] != wish:
        raise UsageError(f"{name} is cuDNN {said.version}, and --cudnn asks for {request.cudnn}")
    asked = _asked_major(request)
    if asked and said.cuda_major != asked:
        raise UsageError(
            f"{name} is a cuDNN for CUDA {said.cuda_major}, and CUDA {asked} was asked for",
            hint="leave --cuda out, or get the other tarball",
        )


def _asked_major(request: Request) -> int | None:
    if request.cuda:
        return CudaVersion.parse(request.cuda).major
    word = request.options.get("CUDA", "")
    if word and not re.fullmatch(r"[0-9]{1,2}", word):
        raise UsageError(f"CUDA={word!r} is no major version", hint="write it like CUDA=12")
    return int(word) if word else None


def _cuda_major(host: HostFacts, request: Request) -> int:
    """The one asked for; else that of the machine's toolkit, or the newest its driver runs."""
    if asked := _asked_major(request):
        return asked
    if host.cuda_override:
        return host.cuda_override.major
    if host.toolkits:
        return host.toolkits[0].version.major
    newest = wheels.DEFAULT.major
    return min(host.driver_cuda.major, newest) if host.driver_cuda else newest


def _refuse_nonsense(request: Request) -> None:
    if request.ref:
        raise UsageError("cuDNN has no branches or commits: leave out --ref")
    for word, value in (("--cuda", request.cuda), ("--cudnn", request.cudnn)):
        if value == "none":
            raise UsageError(f"{word} none makes no cuDNN")
    if request.cudnn and not re.fullmatch(r"\d{1,2}(\.\d+){0,3}", request.cudnn):
        raise UsageError(
            f"{request.cudnn!r} is no cuDNN version", hint="write it like 9 or 9.10.2.21"
        )


def _refuse_old_gpus(request: Request, cuda_major: int) -> None:
    for arch in request.archs if cuda_major >= 13 else ():
        if reason := compiles_for(wheels.DEFAULT, arch):
            raise UsageError(reason, hint="cuDNN for CUDA 12 has code for it: --cuda 12.8")


def _three(version: str) -> str:
    return ".".join(version.split(".")[:3])


def _root(library: str) -> str:
    """`/usr/local/cuda` of `/usr/local/cuda/lib64`; a folder of many things as it is."""
    path = Path(library)
    return str(path.parent) if path.name in ("lib64", "lib") and path.parent.name else library


recipe = CudnnRecipe()
