"""The options of darknet's Makefiles: their table, their spellings, make's command line.

Pure. Every option is always written out on make's command line, since the
forks' defaults differ (the Colab fork turns GPU, CUDNN and OPENCV on), and all
of them are in the key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from artcache.errors import UsageError
from artcache.toolchain import GpuArch

MEANINGS: Mapping[str, str] = {
    "GPU": "1: compile for CUDA. Default: 1 if there is a GPU or --arch, else 0",
    "CUDNN": "1: use cuDNN. Default: 1 in a GPU build if cuDNN is there, else 0",
    "CUDNN_HALF": "1: half precision on tensor cores (sm_70 and newer). Default: 0",
    "OPENCV": "1: read videos and more image formats with OpenCV. Default: 0; 1 for hank-ai's",
    "AVX": "1: AVX2 code, which needs a CPU of 2013 or newer. Default: 0, runs on any x86-64",
    "OPENMP": "1: use all CPU cores; needs libgomp wherever it runs. Default: 0",
    "LIBSO": "1: also libdarknet.so with its header and Python binding. Default: 0",
}

SWITCHED_OFF: tuple[str, ...] = ("DEBUG", "USE_CPP", "ZED_CAMERA", "ZED_CAMERA_v2_8")
"""Makefile switches that are no options here: always passed as 0."""

_WORDS = {
    **dict.fromkeys(("1", "on", "true", "yes"), True),
    **dict.fromkeys(("0", "off", "false", "no"), False),
}


def switches(given: Mapping[str, str]) -> dict[str, bool]:
    """Read the values of the options that the user gave.

    Raises:
        UsageError: a value that is neither on nor off.
    """
    return {name: _switch(name, value) for name, value in given.items()}


def _switch(name: str, value: str) -> bool:
    word = value.strip().lower()
    if word not in _WORDS:
        raise UsageError(
            f"the option {name} cannot be {value!r}",
            hint=f"write {name}=1 or {name}=0 (on, off, true, false, yes and no do too)",
        )
    return _WORDS[word]


def complete(given: Mapping[str, bool], *, gpu: bool, cudnn: bool) -> dict[str, bool]:
    """All options, each with the value that the build will have.

    Args:
        given: From `switches`. GPU and CUDNN in it are taken as decided already.
        gpu: Whether the build is for CUDA.
        cudnn: Whether it uses cuDNN.

    Raises:
        UsageError: CUDNN_HALF without cuDNN.
    """
    values = {name: given.get(name, False) for name in MEANINGS}
    values.update(GPU=gpu, CUDNN=cudnn)
    if values["CUDNN_HALF"] and not cudnn:
        raise UsageError(
            "CUDNN_HALF=1 needs a GPU build with cuDNN",
            hint="leave CUDNN_HALF out, or add --arch, --cuda and --cudnn 9",
        )
    return values


def key_words(values: Mapping[str, bool]) -> tuple[str, ...]:
    """The key's `options`: `NAME=VALUE`, sorted."""
    return tuple(sorted(f"{name}={int(value)}" for name, value in values.items()))


def make_words(values: Mapping[str, bool], archs: Iterable[GpuArch]) -> list[str]:
    """Make's variables, as words of its command line.

    A variable given there wins over every assignment in the Makefile, also over
    `ARCH+=`: so CUDNN_HALF's own `compute_70`, which CUDA 13 refuses, is not added.
    """
    words = [f"{name}={int(value)}" for name, value in sorted(values.items())]
    words += [f"{name}=0" for name in SWITCHED_OFF]
    if values["GPU"]:
        words.append("ARCH=" + " ".join(gencode(arch) for arch in archs))
    return words


def gencode(arch: GpuArch) -> str:
    """nvcc's words for one target: `sm_75`, `sm_90a` or (PTX) `compute_90`."""
    return f"-gencode arch=compute_{arch.capability}{arch.suffix},code={arch}"
