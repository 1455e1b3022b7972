"""The build of hank-ai's darknet, which is CMake's work and needs OpenCV.

Its CMake files take what they find: OpenBLAS, OpenMP, protobuf, the CPU that
they run on. A build that serves other machines says yes or no to each of them.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from artcache.errors import BuildFailed, EmptyBuild, MissingTool
from artcache.process import require_tool
from artcache.recipe import BuildContext

from . import libraries
from .build import RUN_PATH, SOURCE_DATE, copy_licences, require_tools
from .obtain import obtain
from .unpack import copy_file, copy_folder

if TYPE_CHECKING:
    from artcache.process import Runner
    from artcache.toolchain import GpuArch

    from .darknet import Plan

OLDEST = (3, 24)
"""Older ones cannot read its files."""

_PIP = "pip install cmake, or apt-get install -y cmake"
_TARGETS = {"darknet": "darknetcli", "libdarknet.so": "darknet"}
"""What CMake calls them."""
_CUDA_LIBRARIES = ("cudart", "cublas", "curand")
_ODD = re.compile(r"[^A-Za-z0-9_./+-]")
"""Neither nvcc nor a list of compiler flags stands such characters in a path."""
_SWITCHES = {
    "AVX": "ENABLE_SSE_AND_AVX",
    "GPU": "DARKNET_TRY_CUDA",
}
_OFF = (
    *("DARKNET_TRY_ROCM", "DARKNET_TRY_OPENBLAS", "DARKNET_TRY_ONNX"),
    # Set to what is no `-NOTFOUND`, a library is not looked for: no tests are built.
    "GTEST",
)
_BINDINGS = ("src-python/darknet.py", "src-lib/darknet.h", "src-lib/darknet_version.h")
_SILENT_GIT = """\
#!/bin/sh
# The source tree is no repository here, and its CMake files ask git for their version.
case "$1" in
describe) echo {version} ;;
branch | symbolic-ref) echo master ;;
rev-parse) echo {commit} ;;
*) exit 1 ;;
esac
"""


def build(context: BuildContext, plan: Plan) -> None:
    """Fill `context.tree` with `darknet`, `cfg` and the licence.

    Raises:
        MissingTool: no compiler, CMake, OpenCV, toolkit or cuDNN, said before anything is fetched.
        SourceUnavailable: the source could not be had.
        CommandFailed: CMake or a compiler failed; the message has its last lines.
        BuildFailed: the source is not one that this recipe can build, or was built without
            what was asked for.
    """
    compilers = {"cmake": require_cmake(context.runner), **require_tools(context, plan)}
    source = context.scratch / "source"
    obtain(context, plan.source).rename(source)
    if not (source / "CMakeLists.txt").is_file():
        raise BuildFailed(f"{plan.source.name} has no CMakeLists.txt at {plan.source.commit}")
    _patch(source, plan)
    if plan.target.cuda:
        libraries.lay_driver_stub(context.runner, source, context.scratch)
        # CMake links to the device runtime, of which nothing is used: an archive with nothing in.
        (context.scratch / "cuda/lib64/libcudadevrt.a").write_bytes(b"!<arch>\n")
    context.provenance.update(
        source=plan.source.name,
        commit=plan.source.commit,
        patches=[patch.name for patch in plan.patches],
        compilers=compilers,
        dirty=False,
    )
    with _plain_path(context.scratch) as place:
        _compile(context, plan, place)
    _collect(context, plan)


def require_cmake(runner: Runner) -> str:
    """CMake's version.

    Raises:
        MissingTool: it is not there, or too old.
    """
    program = require_tool("cmake", hint=f"install it, for example: {_PIP}")
    said = libraries.version_of(runner, program)
    match = re.search(r"(\d+)\.(\d+)\S*", said)
    if not match or (int(match[1]), int(match[2])) < OLDEST:
        raise MissingTool(
            f"cmake {match[0] if match else said} is too old: this darknet needs "
            f"{'.'.join(map(str, OLDEST))} or newer",
            hint=f"install a newer one, for example: {_PIP}",
        )
    return match[0]


@contextlib.contextmanager
def _plain_path(scratch: Path) -> Iterator[Path]:
    """A way to `scratch` without spaces and the like."""
    if not _ODD.search(str(scratch.absolute())):
        yield scratch.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="artcache-") as folder:
        (Path(folder) / "build").symlink_to(scratch.absolute())
        yield Path(folder) / "build"


def _patch(source: Path, plan: Plan) -> None:
    for path in sorted([*source.rglob("CMakeLists.txt"), *source.rglob("*.cmake")]):
        before = text = path.read_text(errors="surrogateescape")
        for patch in plan.patches:
            for word, other in patch.replaced:
                text = text.replace(word, other)
        if text != before:
            path.write_text(text, errors="surrogateescape")


def _compile(context: BuildContext, plan: Plan, place: Path) -> None:
    tools = place / "tools"
    tools.mkdir()
    version = plan.source.flavour.version_at(plan.source.commit)
    answers = _SILENT_GIT.format(version=version, commit=plan.source.commit)
    (tools / "git").write_text(answers)
    (tools / "git").chmod(0o755)
    env = {"SOURCE_DATE_EPOCH": SOURCE_DATE, "PATH": f"{tools}:{os.environ.get('PATH', '')}"}
    if plan.target.cudnn:
        env["CUDNN_HOME"] = str(place / "cudnn")
    configure = ["cmake", "-G", "Unix Makefiles", "-S", f"{place}/source", "-B", f"{place}/build"]
    configure += [f"-D{name}={value}" for name, value in definitions(plan, place).items()]
    make = ["cmake", "--build", f"{place}/build", "--parallel", str(max(1, context.jobs))]
    make += ["--target", *(_TARGETS[name] for name in _made(plan))]
    context.provenance["commands"] = [
        shlex.join(words).replace(str(place), ".") for words in (configure, make)
    ]
    context.phase("configure")
    said = context.runner.run(configure, cwd=context.scratch, env=env)
    _check_opencv(said, str(context.key.get("opencv")))
    context.phase("compile")
    context.runner.run(make, cwd=context.scratch, env=env)


def _check_opencv(said: str, wanted: str) -> None:
    """CMake looks for OpenCV in other places than pkg-config, which the key's version is of."""
    found = re.search(r"Found OpenCV (\d+(?:\.\d+)+)", said)
    if found and found[1] != wanted:
        raise BuildFailed(
            f"two OpenCVs in conflict: pkg-config has {wanted}, CMake found {found[1]}",
            hint="remove one of them",
        )


def definitions(plan: Plan, place: Path) -> dict[str, str]:
    """CMake's variables for a build in `place`."""
    flags = f"-ffile-prefix-map={place}/=/"
    # As needed: CMake names all of OpenCV's libraries, and a few are used.
    links = "-s -Wl,--as-needed -Wl,--disable-new-dtags"
    if plan.target.cuda:
        links += f" -L{place}/cuda/lib64 -Wl,--allow-shlib-undefined"
        links += f" -Wl,-rpath-link,{place}/cuda/lib64"
    return {
        "CMAKE_BUILD_TYPE": "Release",
        **{f"CMAKE_{language}_FLAGS": flags for language in ("C", "CXX")},
        **{f"CMAKE_{kind}_LINKER_FLAGS": links for kind in ("EXE", "SHARED")},
        **{f"CMAKE_{kind}_OUTPUT_DIRECTORY": f"{place}/made" for kind in ("RUNTIME", "LIBRARY")},
        "CMAKE_BUILD_WITH_INSTALL_RPATH": "ON",
        "CMAKE_INSTALL_RPATH": f"$ORIGIN:{RUN_PATH}",
        "CMAKE_DISABLE_FIND_PACKAGE_Doxygen": "ON",
        "CMAKE_DISABLE_FIND_PACKAGE_OpenMP": _word(not plan.options["OPENMP"]),
        **{variable: _word(plan.options[name]) for name, variable in _SWITCHES.items()},
        **dict.fromkeys(_OFF, "OFF"),
        **(_cuda_definitions(plan, place, flags) if plan.target.cuda else {}),
    }


def _cuda_definitions(plan: Plan, place: Path, flags: str) -> Mapping[str, str]:
    archs = ";".join(map(cmake_arch, plan.target.archs))
    cudnn = plan.target.cudnn is not None
    return {
        "DARKNET_CUDA_ARCHITECTURES": archs,
        "CMAKE_CUDA_ARCHITECTURES": archs,
        "CMAKE_CUDA_COMPILER": f"{place}/cuda/bin/nvcc",
        "CMAKE_CUDA_FLAGS": f"--objdir-as-tempdir -Xcompiler={flags}",
        "CMAKE_CUDA_RUNTIME_LIBRARY": "Shared",
        "CUDAToolkit_ROOT": f"{place}/cuda",
        "CUDA_cuda_driver_LIBRARY": f"{place}/driver/libcuda.so",
        **{f"CUDA_{n}_LIBRARY": f"{place}/cuda/lib64/lib{n}.so" for n in _CUDA_LIBRARIES},
        "cudnn": f"{place}/cudnn/lib64/libcudnn.so" if cudnn else "OFF",
        "cudnn_include": f"{place}/cudnn/include" if cudnn else "OFF",
    }


def cmake_arch(arch: GpuArch) -> str:
    """`75-real` for `sm_75`, `90-virtual` for `compute_90`."""
    return f"{arch.capability}{arch.suffix}-{'virtual' if arch.ptx else 'real'}"


def _word(on: bool) -> str:
    return "ON" if on else "OFF"


def _made(plan: Plan) -> Sequence[str]:
    return ("darknet", "libdarknet.so") if plan.options["LIBSO"] else ("darknet",)


# -- what was made -------------------------------------------------------------------------


def _collect(context: BuildContext, plan: Plan) -> None:
    source, made, tree = context.scratch / "source", context.scratch / "made", context.tree
    names = list(_made(plan))
    if not (made / "darknet").is_file():
        raise EmptyBuild("CMake ended well but left no darknet", hint="what do its files make?")
    needed = _needed(context.runner, made / "darknet")
    if "libdarknet.so" in needed and "libdarknet.so" not in names:
        names.append("libdarknet.so")  # as up to version 5.0
    for name in names:
        copy_file(made / name, tree / name)
        (tree / name).chmod(0o755)
    check_needed(plan, needed.union(*(_needed(context.runner, tree / name) for name in names)))
    copy_folder(source / "cfg", tree / "cfg")
    (tree / "cfg/CMakeLists.txt").unlink(missing_ok=True)
    copy_licences(source, tree)
    if plan.options["LIBSO"]:
        for path in (source / name for name in _BINDINGS):
            if path.is_file():
                folder = tree / "include" if path.suffix == ".h" else tree
                copy_file(path, folder / path.name)


def _needed(runner: Runner, program: Path) -> set[str]:
    readelf = require_tool("readelf", package="binutils")
    return set(re.findall(r"\(NEEDED\).*\[(.+)\]", runner.run([readelf, "-dW", program])))


def check_needed(plan: Plan, needed: Iterable[str]) -> None:
    """Its CMake files only warn when they do not find CUDA or cuDNN, and go on without it.

    Raises:
        BuildFailed: it needs another set of CUDA's libraries than the key says.
    """
    parts = {
        "CUDA": (plan.target.cuda, ("libcudart.so.", "libcublas.so.")),
        "cuDNN": (plan.target.cudnn, ("libcudnn",)),
    }
    names = sorted(needed)
    for part, (asked, starts) in parts.items():
        found = [name for name in names if name.startswith(starts)]
        if asked and not found:
            raise BuildFailed(
                f"the new darknet was built without {part}, which was asked for",
                hint="CMake's output, in the log, says what it looked for",
            )
        if found and not asked:
            raise BuildFailed(f"the new darknet needs {found[0]}, though {part} was not asked for")
