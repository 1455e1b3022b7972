"""Reads out of built files what they need at run time and which GPU code is in them.

`scan_file` answers for one ELF file, `scan_tree` for an artifact. Nothing is
run and nothing is asked of the compiler: `make` exits 0 with the wrong
architecture, the binary doesn't lie.
"""

from __future__ import annotations

import mmap
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from . import fatbin
from .compat import covers, minimum_driver, parse_targets
from .elf import SIGNATURE, Elf, Image, Kind
from .errors import Corrupt, LocalDisk
from .needs import Needs
from .toolchain import CudaVersion

_GLIBC_MARKERS = {"GLIBC_ABI_DT_RELR": "2.36"}
"""Versions without a number: glibc refuses packed relocations before that release."""

_CUDA_LIBRARY = re.compile(r"lib(?:cudart|cublas|cublasLt)\.so\.(\d+)(?:\.\d+)*")
_VENDOR = re.compile(
    r"lib(?:cu(?:blas|dart|dnn|dss|fft|file|pti|rand|solver|sparse|tensor)|nccl|npp"
    r"|nv(?:blas|infer|JitLink|jpeg|rtc|shmem|ToolsExt|vm))\w*\.so"
)
"""NVIDIA's own libraries: they hold parts for single architectures and pick for themselves."""


@dataclass(frozen=True, slots=True)
class ElfFacts:
    """What one ELF file says of itself."""

    kind: Kind
    machine: str
    """As in `os.uname`; for rare ones as ELF calls them."""
    soname: str = ""
    needed: tuple[str, ...] = ()
    """DT_NEEDED, in the file's order."""
    rpath: str = ""
    runpath: str = ""
    versions: tuple[tuple[str, str], ...] = ()
    """Symbol versions needed, each with its library: `("libc.so.6", "GLIBC_2.34")`."""
    sass: tuple[str, ...] = ()
    ptx: tuple[str, ...] = ()
    cuda_major: int = 0
    """Of the toolkit that made its GPU code, or 0 if that does not show."""

    @property
    def glibc(self) -> str:
        return newest(self.versions, "GLIBC")

    @property
    def glibcxx(self) -> str:
        return newest(self.versions, "GLIBCXX")

    @property
    def cxxabi(self) -> str:
        return newest(self.versions, "CXXABI")


def newest(versions: Iterable[tuple[str, str]], family: str) -> str:
    """The highest number of one family: `2.34` of GLIBC_2.17 and GLIBC_2.34; or empty."""
    numbers = [_GLIBC_MARKERS[name] for _, name in versions if name in _GLIBC_MARKERS]
    found = numbers if family == "GLIBC" else []
    for _, name in versions:
        if match := re.fullmatch(rf"{family}_(\d+(?:\.\d+){{1,3}})", name):
            found.append(match[1])
    return max(found, key=_ordered, default="")


def _ordered(version: str) -> tuple[int, ...]:
    return tuple(int(word) for word in version.split("."))


# -- one file -----------------------------------------------------------------------------


def scan_file(path: Path) -> ElfFacts | None:
    """Read one file; None if it does not begin like a 64-bit little-endian ELF file.

    Raises:
        Corrupt: it begins like one, but is cut off or contradicts itself. No
            content makes this raise anything else, or loop for long.
        LocalDisk: it cannot be read.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(SIGNATURE)) != SIGNATURE:
                return None
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
                return _scan(image)
    except OSError as error:
        raise LocalDisk(f"{path} cannot be read: {error.strerror or error}") from error
    except Corrupt as error:
        raise Corrupt(f"{path.name}: {error}", hint="build it anew") from error


def _scan(image: Image) -> ElfFacts:
    elf = Elf(image)
    targets = fatbin.Targets()
    # In a linked file the relocatable containers were only nvlink's input.
    names = {".nv_fatbin", "__nv_relfatbin"} if elf.kind == "object" else {".nv_fatbin"}
    for section in elf.sections:
        if section.name in names:
            fatbin.read(image, section.offset, section.offset + section.size, targets)
    return ElfFacts(
        kind=elf.kind,
        machine=elf.machine,
        soname=elf.soname,
        needed=elf.needed,
        rpath=elf.rpath,
        runpath=elf.runpath,
        versions=tuple(elf.versions()),
        sass=tuple(sorted(targets.sass)),
        ptx=tuple(sorted(targets.ptx)),
        cuda_major=targets.cuda_major,
    )


# -- a tree -------------------------------------------------------------------------------


def scan_tree(root: Path, files: Iterable[str]) -> Needs:
    """What a whole artifact needs: the sum over its executables and shared libraries.

    Libraries that the tree brings along are not asked of the host. Objects and
    archives are not looked at: nothing loads them.

    Args:
        files: Paths relative to `root`. Symlinks count as names, not as files.

    Raises:
        Corrupt: one of them is a broken ELF file.
        LocalDisk: one of them cannot be read.
    """
    provided: set[str] = set()
    scanned: list[tuple[str, ElfFacts]] = []
    for name in sorted(files):
        base = name.rpartition("/")[2]
        path = root / name
        if path.is_symlink():
            provided.add(base)
            continue
        facts = scan_file(path)
        if facts is not None and facts.kind in ("executable", "shared"):
            provided.update({base, facts.soname or base})
            scanned.append((base, facts))
    every = [facts for _, facts in scanned]
    versions = [
        (library, version)
        for facts in every
        for library, version in facts.versions
        if library not in provided
    ]
    sass, ptx = _common_targets(scanned)
    return Needs(
        sonames=tuple(sorted({name for facts in every for name in facts.needed} - provided)),
        glibc=newest(versions, "GLIBC"),
        glibcxx=newest(versions, "GLIBCXX"),
        cxxabi=newest(versions, "CXXABI"),
        sass=sass,
        ptx=ptx,
        driver=_driver(every),
        machine=_machine(every),
    )


def _common_targets(scanned: list[tuple[str, ElfFacts]]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The targets on which every file with GPU code runs.

    A tree of darknet for sm_75 that brings cuDNN along for every GPU runs on
    sm_75. So NVIDIA's libraries count only where there is nothing else. Files
    that have no target in common (one plugin an architecture) are added up.
    """
    coded = [(name, facts) for name, facts in scanned if facts.sass or facts.ptx]
    own = [facts for name, facts in coded if not _VENDOR.match(facts.soname or name)]
    counted = own or [facts for _, facts in coded]
    everything = {word for facts in counted for word in (*facts.sass, *facts.ptx)}
    common = everything
    if own:
        each = [parse_targets((*facts.sass, *facts.ptx)) for facts in own]
        common = {
            str(want)
            for want in parse_targets(everything)
            if all(any(covers(have, want) for have in file) for file in each)
        } or everything
    return (
        tuple(sorted(word for word in common if word.startswith("sm_"))),
        tuple(sorted(word for word in common if word.startswith("compute_"))),
    )


def _driver(every: list[ElfFacts]) -> str:
    """The oldest driver by the CUDA runtime linked, else by the toolkit of the GPU code."""
    names = {name for facts in every for name in (*facts.needed, facts.soname)}
    majors = {int(match[1]) for name in names if (match := _CUDA_LIBRARY.fullmatch(name))}
    major = max(majors or {facts.cuda_major for facts in every}, default=0)
    return minimum_driver(CudaVersion(major, 0))


def _machine(every: list[ElfFacts]) -> str:
    """The one that most files are for."""
    counted = Counter(facts.machine for facts in every)
    return max(counted, key=lambda name: (counted[name], name), default="")


def differing_sections(one: Path, other: Path) -> list[str]:
    """The names of the sections in which two ELF files differ, sorted; [] if either is none."""
    tables: list[dict[str, bytes]] = []
    for path in (one, other):
        data = path.read_bytes()
        if not data.startswith(SIGNATURE):
            return []
        try:
            sections = Elf(data).sections
        except Corrupt:
            return []
        tables.append({part.name: data[part.offset : part.offset + part.size] for part in sections})
    left, right = tables
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
