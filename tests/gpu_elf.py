"""Makes real ELF files with GPU code in them, as test material: by gcc alone, or by nvcc.

The fat binaries for gcc are written by hand here, from the layout that nvcc
13.0 and the wheels of CUDA 11 and 12 were seen to have, so that the reader is
tested on machines without nvcc too.
"""

from __future__ import annotations

import functools
import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest

CACHE = Path.home() / ".cache" / "artcache-tests"
KERNEL = """
__global__ void add(float *a, float b) { a[threadIdx.x] += b; }
int main() { float *p; cudaMalloc(&p, 128); add<<<1, 32>>>(p, 1.f); return 0; }
"""
FLAGS = {"": 0x11, "a": 0x100011, "f": 0x200011}
CUBIN = b"\x7fELF\x02\x01\x01\x41\x08" + bytes(70) + b"\0.text.add\0"
STUB = b"\x7fELF\x02\x01\x01\x41\x08" + bytes(70) + b"\0.symtab\0"
PTX = b".version 8.7\n.target sm_90\n.visible .entry add() { ret; }\n"
EMPTY_PTX = b".version 8.7\n.target sm_52\n.address_size 64\n"


def compiled(target: Path, source: str, *flags: str, compiler: str = "gcc") -> Path:
    """Compile one source text with gcc, g++ or nvcc; skip if there is none."""
    if not shutil.which(compiler):
        pytest.skip(f"{compiler} is not on this machine")
    suffix = {"gcc": ".c", "g++": ".cc", "nvcc": ".cu"}[compiler]
    file = target.with_name(target.name + suffix)
    file.write_text(source)
    subprocess.run(
        [compiler, str(file), "-o", str(target), *flags], check=True, capture_output=True
    )
    return target


def entry(target: str, body: bytes | None = None, *, flags: int = 0, raw_size: int = 0) -> bytes:
    """One part of a fat binary: `sm_90a` or `compute_90`."""
    ptx = target.startswith("compute_")
    arch = target.partition("_")[2]
    suffix = arch[-1] if arch[-1].isalpha() else ""
    body = (PTX if ptx else CUBIN) if body is None else body
    stored = body + bytes(-len(body) % 8)
    compressed = len(body) if flags else 0
    head = struct.pack(
        "<HHIQIIHHIIIQQQ",
        *(1 if ptx else 2, 0x101, 64, len(stored), compressed, 0, *((7, 8) if ptx else (8, 1))),
        *(int(arch.rstrip("af")), 0, 0, FLAGS[suffix] | flags, 0, raw_size),
    )
    return head + stored


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def with_fatbin(target: Path, data: bytes, *flags: str) -> Path:
    """A program (or, with `-shared`, a library) that holds these bytes as `.nv_fatbin`."""
    numbers = ",".join(str(byte) for byte in data)
    place = '__attribute__((section(".nv_fatbin"), aligned(8), used))'
    main = "" if "-shared" in flags else "int main(void) { return 0; }"
    return compiled(
        target, f"{place} const unsigned char code[] = {{{numbers}}};\n{main}\n", *flags
    )


def with_targets(target: Path, targets: str, *flags: str) -> Path:
    """The same with code for `targets`: `sm_75+compute_75`."""
    return with_fatbin(target, container(*(entry(word) for word in targets.split("+"))), *flags)


@functools.cache
def cuobjdump() -> Path:
    """NVIDIA's own reader, installed once into a cache; skip if it cannot be had."""
    tool = CACHE / "cuobjdump" / "nvidia" / "cu13" / "bin" / "cuobjdump"
    if not tool.exists():
        command = [sys.executable, "-m", "pip", "install", "-q", "--no-deps"]
        command += ["--target", str(CACHE / "cuobjdump"), "nvidia-cuda-cuobjdump>=13.2"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"cuobjdump cannot be installed: {done.stderr.strip()[-200:]}")
    return tool


def seen_by_cuobjdump(path: Path) -> tuple[set[str], set[str]]:
    """The machine code and the PTX that NVIDIA's tool finds in a file."""
    done = subprocess.run([cuobjdump(), path], capture_output=True, text=True, check=True)
    found: dict[str, set[str]] = {"elf": set(), "ptx": set()}
    kind = ""
    for line in done.stdout.splitlines():
        if line.startswith("Fatbin "):
            kind = line.split()[1]
        elif line.startswith("arch = "):
            found[kind].add(line.removeprefix("arch = ").strip())
    return found["elf"], {word.replace("sm_", "compute_") for word in found["ptx"]}
