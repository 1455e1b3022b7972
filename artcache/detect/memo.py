"""What the driver said, remembered for as long as boot, driver and devices are the same.

NVML takes 50 to 300 ms to ask, more than a whole warm hit.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path

from ..disk import boot_id, replace_file
from ..toolchain import CudaVersion, Gpu, HostFacts
from . import listed, text_of


def recall(memo: Path, facts: HostFacts, root: Path) -> HostFacts | None:
    """`facts` with GPUs and driver filled in; None if nothing fitting is remembered."""
    try:
        body = json.loads(memo.read_bytes())
        if body["stamp"] != _stamp(root):
            return None
        return facts._replace(
            gpus=tuple(Gpu(*row) for row in body["gpus"]),
            driver=body["driver"],
            driver_cuda=CudaVersion(*body["driver_cuda"]) if body["driver_cuda"] else None,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


def remember(memo: Path, facts: HostFacts, root: Path) -> None:
    """Only what was found whole; a driver in trouble is asked again each time."""
    if not facts.gpus or not facts.driver:
        return
    cuda = facts.driver_cuda
    body = {
        "stamp": _stamp(root),
        "gpus": [[gpu.name, gpu.capability, gpu.tegra] for gpu in facts.gpus],
        "driver": facts.driver,
        "driver_cuda": [cuda.major, cuda.minor] if cuda else None,
    }
    with contextlib.suppress(OSError):  # only slower next time
        replace_file(memo, json.dumps(body).encode())


def _stamp(root: Path) -> list[object]:
    return [
        boot_id(),
        text_of(root / "proc/driver/nvidia/version"),
        sorted(listed(root / "proc/driver/nvidia/gpus")),
        sorted(name for name in listed(root / "dev") if name.startswith("nvidia")),
        os.environ.get("CUDA_VISIBLE_DEVICES", ""),
    ]
