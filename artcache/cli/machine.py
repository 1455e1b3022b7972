"""`host`: what this machine is, as far as it decides what is built and what runs."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from .options import Session, common
from .output import human_seconds, human_size

if TYPE_CHECKING:
    from artcache.detect.report import HostReport


@click.command("host")
@common
def host_command(session: Session) -> None:
    """Show GPUs, driver, CUDA toolkits, cuDNN and the C library that were found."""
    from artcache.detect import host_report

    start = time.perf_counter()
    report = host_report()
    seconds = time.perf_counter() - start
    for name, values in _lines(report):
        for value in values or ["none found"]:
            session.output.text(f"{name:<10} {value}")
            name = ""
    for note in report.facts.notes:
        session.output.warn(note)
    session.output.detail(f"found out in {human_seconds(seconds)}")
    session.output.result({**_plain(report), "seconds": round(seconds, 6)})


def _lines(report: HostReport) -> list[tuple[str, list[str]]]:
    facts = report.facts
    version = f"{facts.driver} (up to CUDA {facts.driver_cuda})" if facts.driver else ""
    override = [f"ARTCACHE_ARCH {arch}" for arch in facts.arch_override]
    if facts.cuda_override:
        override.append(f"ARTCACHE_CUDA {facts.cuda_override}")
    lines = [
        ("system", [f"{report.system}, kernel {report.kernel}, {facts.platform}"]),
        ("libc", [f"{facts.libc}, libstdc++ GLIBCXX_{facts.glibcxx or '?'}"]),
        ("cpu", [f"{report.cpu}, {report.cpus} cores ({' '.join(report.cpu_flags)})"]),
        ("gpu", [f"{gpu.name}, sm_{gpu.capability}" for gpu in facts.gpus]),
        ("driver", [version] if version else []),
        ("cuda", [f"{kit.full_version} in {kit.root} ({kit.origin})" for kit in facts.toolkits]),
        ("cudnn", [f"{found.version} in {found.library}" for found in facts.cudnns]),
        ("opencv", [report.opencv] if report.opencv else []),
        ("disk", [f"{human_size(report.disk_free)} free"] if report.disk_free else []),
        ("service", [facts.service] if facts.service else []),
    ]
    return [*lines, ("override", override)] if override else lines


def _plain(value: Any) -> Any:
    """Records, versions and architectures as JSON: objects, lists and strings."""
    from dataclasses import fields, is_dataclass

    from artcache.toolchain import CudaVersion, GpuArch

    if isinstance(value, CudaVersion | GpuArch):
        return str(value)
    if hasattr(value, "_asdict"):
        return {name: _plain(member) for name, member in value._asdict().items()}
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value
