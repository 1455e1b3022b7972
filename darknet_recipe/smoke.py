"""The smoke test: the new `darknet` loads a small network and runs an image through it.

darknet exits with 0 whatever happens, so what counts is what it prints.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from artcache.errors import CommandFailed, MissingTool, SmokeFailed
from artcache.recipe import SmokeContext
from artcache.toolchain import GpuArch, HostFacts

if TYPE_CHECKING:
    from .darknet import Plan

SECONDS = 300.0
"""The first start on a GPU may compile PTX."""

NETWORK = """\
[net]
batch=1
subdivisions=1
width=32
height=32
channels=3

[convolutional]
filters=18
size=3
stride=1
pad=1
activation=leaky

[maxpool]
size=2
stride=2

[yolo]
mask=0,1,2
anchors=1,2, 3,4, 5,6
classes=1
num=3
"""
"""Weights are random: this asks whether it runs, not what it sees."""


def smoke(context: SmokeContext, plan: Plan) -> None:
    """Run a forward pass; on a machine that cannot run this GPU build, look at the file only.

    Raises:
        SmokeFailed: it does not start, or does not get through the network.
    """
    program = context.tree / "darknet"
    _check_file(program)
    if plan.target.cuda and not _runs_here(plan.target.archs, context.host):
        return  # without a GPU and its driver such a program does not even start
    _write_inputs(context.scratch, context.tree)
    words: list[str | Path] = [program.absolute(), "detector", "test", "smoke.data", "tiny.cfg"]
    if b"-dont_show" in program.read_bytes():  # where it is unknown, it would name a weights file
        words.append("-dont_show")
    try:
        said = context.runner.run(
            words,
            cwd=context.scratch,
            env=_library_path(context.host, plan),
            stdin="smoke.bmp\n",
            timeout=SECONDS,
            check=False,
        )
    except (CommandFailed, MissingTool) as error:
        raise SmokeFailed(f"the new darknet does not run: {error}") from error
    if "smoke.bmp: Predicted in" not in said and not _drew(context, plan):
        shown = "".join(f"\n  | {line}" for line in said.splitlines()[-10:])
        raise SmokeFailed(
            f"the new darknet did not get an image through a network of three layers{shown}",
            hint=f"the whole log: {context.runner.log_path}" if context.runner.log_path else "",
        )


def _drew(context: SmokeContext, plan: Plan) -> bool:
    """hank-ai's does not say that it predicted, but leaves a picture of it, as all do."""
    return plan.source.flavour.cmake and any(context.scratch.glob("predictions.*"))


def _check_file(program: Path) -> None:
    try:
        with program.open("rb") as stream:
            start = stream.read(4)
    except OSError as error:
        raise SmokeFailed(f"the build has no readable darknet: {error.strerror}") from error
    if start != b"\x7fELF" or not os.access(program, os.X_OK):
        raise SmokeFailed("the new darknet is no program that this machine could run")


def _runs_here(archs: tuple[GpuArch, ...], host: HostFacts) -> bool:
    """Whether the first GPU, which darknet takes, is one of those it was compiled for."""
    if not host.gpus:
        return False
    have = host.gpus[0].capability
    for arch in archs:
        if arch.suffix == "a":
            fits = arch.capability == have
        elif arch.ptx:
            fits = arch.capability <= have
        else:
            fits = arch.capability <= have and arch.major == have // 10
        if fits:
            return True
    return False


def _library_path(host: HostFacts, plan: Plan) -> dict[str, str]:
    """Where the build's own CUDA and cuDNN are, before what the machine prefers."""
    if not plan.target.cuda:
        return {}
    folders = [
        *plan.library_folders,
        *(
            f"{kit.root}/{name}"
            for kit in host.toolkits
            if kit.version == plan.target.cuda
            for name in ("lib64", "targets/x86_64-linux/lib", "lib")
        ),
    ]
    folders += [cudnn.library for cudnn in host.cudnns if cudnn.major == plan.target.cudnn]
    folders += [os.environ.get("LD_LIBRARY_PATH", "")]
    return {"LD_LIBRARY_PATH": ":".join(filter(None, folders))}


def _write_inputs(scratch: Path, tree: Path) -> None:
    (scratch / "tiny.cfg").write_text(NETWORK)
    (scratch / "smoke.data").write_text("classes=1\nnames=smoke.names\n")
    (scratch / "smoke.names").write_text("thing\n")
    (scratch / "smoke.bmp").write_bytes(_image(16))
    # darknet looks for the letters of its labels in ./data, and writes its picture to ./
    (scratch / "data").symlink_to((tree / "data").absolute())


def _image(side: int) -> bytes:
    """A grey square as a BMP file of 24 bits a pixel."""
    pixels = bytes([128]) * (side * side * 3)
    header = b"BM" + (54 + len(pixels)).to_bytes(4, "little") + bytes(4) + b"\x36\0\0\0"
    info = (40, side, side)
    sizes = b"".join(number.to_bytes(4, "little") for number in info)
    return (
        header
        + sizes
        + b"\x01\0\x18\0"
        + bytes(4)
        + len(pixels).to_bytes(4, "little")
        + (bytes(16))
        + pixels
    )
