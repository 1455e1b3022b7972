"""What `artcache host` shows beyond the facts that decide: for people and for bug reports."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..toolchain import HostFacts
from . import host, text_of
from .loader import glibcxx, opencv


@dataclass(frozen=True, slots=True)
class HostReport:
    """A fact that could not be found out is None or empty."""

    facts: HostFacts
    """With `glibcxx` filled in."""
    system: str
    """`Debian GNU/Linux 12 (bookworm)`."""
    kernel: str
    cpu: str
    cpus: int
    """As many as this process may use."""
    cpu_flags: tuple[str, ...]
    """Of those that decide about speed: `avx2`, `sha_ni`..."""
    memory: int | None
    """Bytes, in all."""
    disk_free: int | None
    """Bytes, where the home folder is."""
    opencv: str | None


_FLAGS = frozenset("sse4_2 avx avx2 avx512f sha_ni fma asimd sve sha2".split())


def report(root: Path, environ: Mapping[str, str]) -> HostReport:
    cpu, flags = _cpu(root)
    return HostReport(
        facts=host(root, environ)._replace(glibcxx=glibcxx(root)),
        system=_system(root),
        kernel=os.uname().release,
        cpu=cpu,
        cpus=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1,
        cpu_flags=flags,
        memory=_memory(root),
        disk_free=_disk_free(environ.get("HOME") or "/"),
        opencv=opencv(root),
    )


def _system(root: Path) -> str:
    said = text_of(root / "etc/os-release")
    match = re.search(r'^PRETTY_NAME="?([^"\n]*)', said, re.MULTILINE)
    return match[1] if match else ""


def _cpu(root: Path) -> tuple[str, tuple[str, ...]]:
    said = text_of(root / "proc/cpuinfo")
    model = re.search(r"^(?:model name|Model|Hardware)\s*:\s*(.+)$", said, re.MULTILINE)
    flags = re.search(r"^(?:flags|Features)\s*:\s*(.+)$", said, re.MULTILINE)
    present = _FLAGS.intersection(flags[1].split()) if flags else ()
    return (model[1].strip() if model else ""), tuple(sorted(present))


def _memory(root: Path) -> int | None:
    match = re.search(r"^MemTotal:\s*(\d+) kB", text_of(root / "proc/meminfo"))
    return int(match[1]) * 1024 if match else None


def _disk_free(folder: str) -> int | None:
    try:
        facts = os.statvfs(folder)
    except OSError:
        return None
    return facts.f_bavail * facts.f_frsize
