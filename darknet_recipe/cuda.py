"""Two recipes of CUDA itself: a toolchain of NVIDIA's wheels, and the libraries to run with.

`cuda` makes a folder like `/usr/local/cuda` where no installer ran; a toolkit
that is on the machine already is named instead. `cuda-libs` has only what a
built program loads. What assembles them (`prefix`) is imported when needed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from artcache.errors import SourceUnavailable, UsageError
from artcache.key import Key
from artcache.recipe import BuildContext, Recipe, Request, SmokeContext, Supplier, Variant
from artcache.toolchain import CudaVersion, HostFacts, compiles_for

from . import wheels
from .kits import allowed

if TYPE_CHECKING:
    from artcache.process import Runner

LICENCE = "NVIDIA's licence of the CUDA toolkit"

_LIBRARY = re.compile(r"lib(?:cudart|cublas|cublasLt|curand|nvrtc)\.so\.\d+(?:\.\d+)?")


class Parts(NamedTuple):
    """What a tree is assembled from."""

    cuda: CudaVersion
    wheels: tuple[wheels.Wheel, ...]

    def key_fields(self, platform: str) -> dict[str, str | tuple[str, ...]]:
        return {
            "cuda": str(self.cuda),
            "wheels": tuple(str(wheel) for wheel in self.wheels),
            "platform": platform,
            "libc": wheels.LIBC,
        }


class CudaRecipe(Recipe):
    name = "cuda"
    version = "1"
    summary = "a CUDA toolkit: this machine's own, or one of NVIDIA's wheels"
    program = "bin/nvcc"
    redistributable = False
    licence = LICENCE
    tree_bytes = 1400 * 10**6

    def variants(self, host: HostFacts, request: Request, runner: Runner) -> Sequence[Variant]:
        """The machine's toolkit if it fits, without making anything; else the wheels'."""
        self.check_options(request)
        _refuse_others(self.name, request)
        found = []
        for kit in allowed(host, request.toolchain).toolkits:
            if request.cuda in (None, str(kit.version)) and not any(
                compiles_for(kit.version, arch) for arch in request.archs
            ):
                note = f"CUDA {kit.full_version} is on this machine already, in {kit.root}"
                fields = {"cuda": str(kit.version), "source": "machine", "platform": host.platform}
                key = Key(self.full_fields({**fields, "libc": host.libc}))
                found.append(Variant(key, note=note, present=kit.root))
                break
        parts = _toolchain(host, request, optional=bool(found))
        if parts:
            key = Key(self.full_fields(parts.key_fields(host.platform)))
            found.append(Variant(key, parts))
        return found

    def build(self, context: BuildContext) -> None:
        from .prefix import assemble

        refuse_present(context)
        assemble(context, context.plan)

    def smoke(self, context: SmokeContext) -> None:
        from .prefix import try_compiler

        try_compiler(context, context.plan)


class CudaLibrariesRecipe(Recipe):
    name = "cuda-libs"
    version = "1"
    summary = "cudart, cuBLAS, cuRAND and nvrtc of NVIDIA's wheels, to run CUDA programs with"
    redistributable = False
    licence = LICENCE

    def key_fields(self, host: HostFacts, request: Request) -> Mapping[str, str | Sequence[str]]:
        return self._parts(host, request).key_fields(host.platform)

    def variants(self, host: HostFacts, request: Request, runner: Runner) -> Sequence[Variant]:
        self.check_options(request)
        _refuse_others(self.name, request)
        parts = self._parts(host, request)
        return [Variant(Key(self.full_fields(parts.key_fields(host.platform))), parts)]

    def _parts(self, host: HostFacts, request: Request) -> Parts:
        cuda = CudaVersion.parse(request.cuda) if request.cuda else wheels.DEFAULT
        release = wheels.runtime(cuda, host.platform)
        if release is None:
            known = ", ".join(map(str, wheels.RUNTIMES))
            raise UsageError(
                f"no wheels of CUDA {cuda}'s libraries are known for {host.platform}",
                hint=f"known are {known}, each for all of its major version up to it",
            )
        return Parts(release, wheels.RUNTIMES[release])

    def build(self, context: BuildContext) -> None:
        from .prefix import collect_libraries

        collect_libraries(context, context.plan)


def refuse_present(context: BuildContext) -> None:
    """Raises `SourceUnavailable` for the machine's own, so that what can be built is built."""
    if context.plan is None:
        raise SourceUnavailable(
            f"this machine's own {context.key.recipe} cannot be built",
            hint="--toolchain wheels or --source wheels makes one",
        )


def supplier(soname: str, made_with: str, platform: str) -> Supplier | None:
    """Who has the library of CUDA that a program made with this version needs."""
    known = _LIBRARY.fullmatch(soname) and re.fullmatch(r"\d+\.\d+", made_with)
    if not known or wheels.runtime(CudaVersion.parse(made_with), platform) is None:
        return None
    return Supplier(CudaLibrariesRecipe.name, Request(cuda=made_with))


def _toolchain(host: HostFacts, request: Request, *, optional: bool) -> Parts | None:
    """Raises `UsageError` where no wheels do it, unless `optional`."""
    cuda = CudaVersion.parse(request.cuda) if request.cuda else wheels.DEFAULT
    problem = wheels.toolchain_problem(cuda, request.archs, host.platform)
    if request.toolchain not in (None, "wheels"):
        problem = (
            f"--toolchain {request.toolchain} has no CUDA {request.cuda or 'toolkit'} that fits"
        )
    if not problem:
        return Parts(cuda, wheels.TOOLCHAINS[cuda])
    if optional:
        return None
    raise UsageError(problem, hint=wheels.toolchain_hint(request.archs, host.platform))


def _refuse_others(name: str, request: Request) -> None:
    words = {"--source": request.source, "--ref": request.ref, "--cudnn": request.cudnn}
    given = [word for word, value in words.items() if value]
    if given or request.cuda == "none":
        raise UsageError(f"the recipe {name} knows no {given[0] if given else '--cuda none'}")


recipe = CudaRecipe()
libraries = CudaLibrariesRecipe()
