"""The GPUs and their driver: from NVML where it answers in time, else from files.

Imported only where there is a sign of a driver. NVML is NVIDIA's own library
(`libnvidia-ml.so.1`, bound by `nvidia-ml-py`); it can hang for minutes on a GPU
that fell off the bus, hence the thread and the limit.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..compat import TEGRA
from ..toolchain import CudaVersion, Gpu, HostFacts
from . import text_of

TIME_LIMIT = 5.0
"""Seconds that NVML gets for everything. A healthy one needs 0.02 to 0.3."""

_LIBRARY_PLACES = ("usr/lib64-nvidia", "usr/lib/wsl/lib")
"""Of Colab and of WSL: known to the loader only if the environment says so."""

_TEGRA_CHIPS = {
    "nvidia,tegra210": 53,
    "nvidia,tegra186": 62,
    "nvidia,tegra194": 72,
    "nvidia,tegra234": 87,
    "nvidia,tegra264": 110,
}
"""Device-tree names: Nano, TX2, Xavier, Orin, Thor."""


def add(facts: HostFacts, root: Path) -> HostFacts:
    """`facts` with GPUs, driver and notes filled in. Never raises, never hangs."""
    answer: dict[str, Any] = {}
    problem = _in_time(lambda: _ask_nvml(root, answer))
    answer = dict(answer)  # A thread that is still at it must not change it any more.
    gpus = answer.get("gpus") or _tegra(root)
    note = (problem,) if problem and not gpus else ()
    return facts._replace(
        gpus=tuple(gpus),
        driver=answer.get("driver") or _driver_by_file(root),
        driver_cuda=answer.get("driver_cuda"),
        notes=(*facts.notes, *note),
    )


def _in_time(work: Callable[[], str]) -> str:
    """Do it in a thread of its own; returns its answer, or that there was none in time."""
    said: list[str] = []
    thread = threading.Thread(target=lambda: said.append(work()), daemon=True)
    thread.start()
    thread.join(TIME_LIMIT)
    if thread.is_alive():
        return f"the NVIDIA driver did not answer within {TIME_LIMIT:g} s; see `dmesg`"
    return said[0] if said else "asking the NVIDIA driver failed"


def _ask_nvml(root: Path, answer: dict[str, Any]) -> str:
    """Put what NVML says into `answer`; returns what went wrong, or an empty string."""
    try:
        import pynvml
    except ImportError:
        return "the GPUs cannot be asked: install nvidia-ml-py"
    _load_from_unusual_places(root)
    try:
        pynvml.nvmlInit()
    except Exception as error:  # Its own error class, and OSError or AttributeError of ctypes.
        return f"the NVIDIA driver is there but does not work: {error}"
    try:
        answer["driver"] = _text(pynvml.nvmlSystemGetDriverVersion())
        answer["driver_cuda"] = CudaVersion.from_integer(pynvml.nvmlSystemGetCudaDriverVersion_v2())
        answer["gpus"] = [_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())]
    except Exception as error:
        return f"the NVIDIA driver does not answer as it should: {error}"
    finally:
        _shut_down(pynvml)
    return "" if answer["gpus"] else "the NVIDIA driver works, but there is no GPU"


def _gpu(pynvml: Any, index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    major, minor = pynvml.nvmlDeviceGetCudaComputeCapability(handle)
    capability = major * 10 + minor
    return Gpu(_text(pynvml.nvmlDeviceGetName(handle)), capability, capability in TEGRA)


def _shut_down(pynvml: Any) -> None:
    try:
        pynvml.nvmlShutdown()
    except Exception:
        return  # Everything has been read.


def _text(value: str | bytes) -> str:
    """Older bindings return bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _load_from_unusual_places(root: Path) -> None:
    """Load NVML by its path, so that loading it by name finds it already there."""
    import ctypes

    for place in _LIBRARY_PLACES:
        path = root / place / "libnvidia-ml.so.1"
        if os.path.exists(path):
            try:
                ctypes.CDLL(str(path))
            except OSError:
                continue
            return


def _driver_by_file(root: Path) -> str | None:
    for name in ("sys/module/nvidia/version", "proc/driver/nvidia/version"):
        if match := re.search(r"\b\d{3}\.\d+(?:\.\d+)?\b", text_of(root / name)):
            return match[0]
    return None


def _tegra(root: Path) -> list[Gpu]:
    """Jetsons up to JetPack 5 have no NVML, but a device tree that names the chip."""
    tree = root / "proc/device-tree"
    words = text_of(tree / "compatible").split("\0")
    model = text_of(tree / "model").strip("\0\n ")
    found = [_TEGRA_CHIPS[word] for word in words if word in _TEGRA_CHIPS]
    return [Gpu(model or "Tegra", found[0], True)] if found else []
