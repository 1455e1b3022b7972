"""The build: a tree, its repairs, one call of make, and what of it becomes the artifact."""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from artcache.errors import BuildFailed, EmptyBuild
from artcache.process import require_tool
from artcache.recipe import BuildContext
from artcache.toolchain import Toolkit

from . import libraries
from .objects import cuda_objects, cut_down
from .obtain import obtain
from .options import make_words
from .unpack import copy_file, copy_folder

if TYPE_CHECKING:
    from .darknet import Plan

SOURCE_DATE = "1577836800"
"""For `__DATE__` and `__TIME__`: the first day of 2020, whenever and wherever it is built."""

RUN_PATH = "$ORIGIN/lib:$ORIGIN/../lib:/usr/local/cuda/lib64"
"""Where a build looks for CUDA and cuDNN: beside itself, as artcache supplies them, then where
the vendor installs them. As the old DT_RPATH: what cuDNN loads later is looked for there too."""

_LICENCES = re.compile(r"(?i)(licen[cs]e|copying|notice)(\..*)?")
_BINDINGS = ("darknet.py", "python/darknet.py", "include/darknet.h", "include/yolo_v2_class.hpp")


def build(context: BuildContext, plan: Plan) -> None:
    """Fill `context.tree` with `darknet`, `cfg`, `data` and the licences.

    Raises:
        MissingTool: no compiler, no toolkit or no cuDNN, said before anything is downloaded.
        SourceUnavailable: the source could not be had.
        CommandFailed: make failed; the message has its last lines.
        BuildFailed: the source is not one that this recipe can build.
    """
    source = prepare(context, plan)
    make(context, plan, source)
    _collect(source, context.tree, plan.options)


def build_group(contexts: Sequence[BuildContext], plans: Sequence[Plan]) -> None:
    """Fill each context's tree from one compilation for all of their architectures.

    nvcc compiles a file's host part once, however many architectures it is asked
    for, and packs their code into one section of the object. Cut down to one
    architecture's part, the object links to the same bytes as one compiled for it
    alone (stripped: temporary names are in the symbols).

    Raises:
        As `build`.
    """
    context = contexts[0]
    every = tuple(sorted({arch for plan in plans for arch in plan.target.archs}))
    plan = plans[0]._replace(target=plans[0].target._replace(archs=every))
    source = prepare(context, plan)
    make(context, plan, source)
    objects = cuda_objects(source / "obj", context.scratch / "objects")
    made = dict(context.provenance)
    for one, its_plan in zip(contexts, plans, strict=True):
        one.provenance.update(made, commands=list(made["commands"]))
        cut_down(one.runner, objects, source / "obj", its_plan.target.archs)
        for name in _targets(its_plan.options):
            (source / name).unlink()
        if one is not context:
            its_plan.library_folders[:] = plan.library_folders
        make(one, its_plan, source, only_link=True)
        _collect(source, one.tree, its_plan.options)


def prepare(context: BuildContext, plan: Plan) -> Path:
    """The source, patched and with its Makefile pointed at CUDA and cuDNN."""
    compilers = require_tools(context, plan)
    source = _named_source(context, obtain(context, plan.source))
    _check_makefile(context, source, plan)
    _prepare(context, plan, source)
    context.provenance.update(
        source=plan.source.name,
        commit=plan.source.commit,
        patches=[patch.name for patch in plan.patches],
        compilers=compilers,
        dirty=False,
    )
    return source


def make(context: BuildContext, plan: Plan, source: Path, *, only_link: bool = False) -> None:
    """Compile and link. Raises `CommandFailed`."""
    # -B: a tree may come with objects of other flags, and make would take them as they are.
    force = [] if only_link else ["-B"]
    words = ["make", *force, f"-j{max(1, context.jobs)}", *_targets(plan.options)]
    words += make_words(plan.options, plan.target.archs)
    if plan.options["GPU"]:
        # Only its command line names nvcc for sure; temporary names would get into the bytes.
        words.append("NVCC=../cuda/bin/nvcc --objdir-as-tempdir")
    context.provenance.setdefault("commands", []).append(shlex.join(words))
    context.phase("link" if only_link else "compile")
    context.runner.run(words, cwd=source, env={"SOURCE_DATE_EPOCH": SOURCE_DATE})


def require_tools(context: BuildContext, plan: Plan) -> dict[str, str]:
    """Lay out CUDA and cuDNN; the versions of all that compiles. Raises `MissingTool`."""
    compilers = libraries.require_compilers(context.runner)
    if plan.source.kind in ("git", "clone"):
        require_tool("git")
    if plan.options["OPENCV"]:
        compilers["opencv"] = libraries.opencv_version(context.runner)
    if plan.target.cuda:
        compilers.update(_require_cuda(context, plan))
    return compilers


def _require_cuda(context: BuildContext, plan: Plan) -> dict[str, str]:
    """Lay out CUDA and cuDNN; what this machine has is looked at before anything is downloaded."""
    kit = libraries.toolkit_here(context.host, plan.target, plan.toolchain)
    versions = {"nvcc": _use(context, plan, kit)} if kit else {}
    with ThreadPoolExecutor(1) as pool:  # on a bare machine both are long downloads
        coming = None if kit else pool.submit(libraries.toolkit_of_wheels, context, plan.target)
        if plan.target.cudnn:
            cudnn = libraries.cudnn_for(context, plan.target)
            libraries.lay_cudnn(cudnn, context.scratch)
            plan.library_folders.append(cudnn.library)
            versions["cudnn"] = cudnn.version
        if coming:
            versions["nvcc"] = _use(context, plan, coming.result())
    return versions


def _use(context: BuildContext, plan: Plan, kit: Toolkit) -> str:
    """What its nvcc says of itself."""
    libraries.lay_cuda(kit, context.scratch)
    plan.library_folders.append(f"{kit.root}/lib64")
    nvcc = require_tool(
        str(Path(kit.root) / "bin/nvcc"),
        hint=f"the CUDA toolkit in {kit.root} has no nvcc: install it anew",
    )
    return libraries.nvcc_release(context.runner, nvcc)


def _named_source(context: BuildContext, tree: Path) -> Path:
    """Move the tree to where `../cuda` is right, under one name for all sources."""
    source = context.scratch / "source"
    tree.rename(source)
    return source


def _check_makefile(context: BuildContext, source: Path, plan: Plan) -> None:
    makefile = source / "Makefile"
    if not makefile.is_file():
        raise BuildFailed(
            f"the source {plan.source.name} has no Makefile, so it is no darknet that this "
            "recipe can build",
            hint="of those that build with CMake only, hank-ai's is known: --source hank-ai",
        )
    text = makefile.read_text(errors="replace")
    if plan.options["OPENCV"] and "opencv4" not in text:
        libraries.require_old_opencv(context.runner, plan.source.name)
    for name, on in plan.options.items():
        always_made = name == "LIBSO" and "libdarknet.so" in text
        if on and f"$({name})" not in text and not always_made:
            raise BuildFailed(f"the Makefile of {plan.source.name} has no {name}")


def _prepare(context: BuildContext, plan: Plan, source: Path) -> None:
    """Apply the patches, and make the Makefile find CUDA and cuDNN beside the tree."""
    flags = [patch.flags for patch in plan.patches]
    for patch in plan.patches:
        if patch.path:
            (source / patch.path).parent.mkdir(exist_ok=True)
            (source / patch.path).write_text(patch.text)
    # Symbols hold names of nvcc's temporary files, which are others in a group.
    links = ["-s"]
    if plan.target.cuda:
        libraries.lay_driver_stub(context.runner, source, context.scratch)
        links += ["-L../driver", "-Wl,--allow-shlib-undefined", "-Wl,-rpath-link,../cuda/lib64"]
        links += ["-Wl,--disable-new-dtags", f"-Wl,-rpath,'{RUN_PATH.replace('$', '$$')}'"]
    if plan.target.cudnn:
        flags.append("-I../cudnn/include")
        links.append("-L../cudnn/lib64")
    makefile = source / "Makefile"
    text = makefile.read_text(errors="surrogateescape")
    text = re.sub(r"/usr/local/cuda(-[\d.]+)?(?=[/\s]|$)", "../cuda", text)
    text = text.replace("/usr/local/cudnn", "../cudnn")
    # Added at the end: make expands these in its commands, when all is read.
    text += f"\nCOMMON+= {' '.join(flags)}\nLDFLAGS+= {' '.join(links)}\n"
    makefile.write_text(text, errors="surrogateescape")
    # Some Makefiles make this folder beside, not before, what goes into it: a race under -j.
    (source / "obj").mkdir(exist_ok=True)
    for name in ("darknet", "libdarknet.so"):  # what is there afterwards was made here
        (source / name).unlink(missing_ok=True)


def _targets(options: Mapping[str, bool]) -> list[str]:
    return ["darknet", "libdarknet.so"] if options["LIBSO"] else ["darknet"]


def _collect(source: Path, tree: Path, options: Mapping[str, bool]) -> None:
    """Copy what users need; objects and sources stay behind."""
    made = _targets(options)
    for name in made:
        if not (source / name).is_file():
            raise EmptyBuild(
                f"make ended well but left no {name}", hint="what does its Makefile make?"
            )
        copy_file(source / name, tree / name)
        (tree / name).chmod(0o755)
    for folder in ("cfg", "data"):
        copy_folder(source / folder, tree / folder)
    copy_licences(source, tree)
    if options["LIBSO"]:
        for name in _BINDINGS:
            if (source / name).is_file():
                copy_file(source / name, tree / name)


def copy_licences(source: Path, tree: Path) -> None:
    for path in sorted(source.iterdir()):
        if path.is_file() and _LICENCES.fullmatch(path.name):
            copy_file(path, tree / path.name)
            (tree / path.name).chmod(0o644)
