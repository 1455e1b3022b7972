"""Debian's source package, by apt, without touching apt's own state.

The machine's sources say where its mirror is; their `deb` entries become
`deb-src` ones in a private list. Only the upstream tarball is used, and only
if it has the pinned digest: so apt, its mirror and its keys need no trust.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from artcache.errors import CommandFailed, MissingTool, SourceUnavailable
from artcache.process import require_tool

from .flavours import DebianPackage
from .source import sha256

if TYPE_CHECKING:
    from artcache.process import Runner

ETC_APT = Path("/etc/apt")
ANSWER_SECONDS = 10
APT_SECONDS = 300.0

_LINE = re.compile(
    r"deb\s+(?P<options>\[[^\]]*\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)(?P<components>(\s+[^\s#]+)*)"
)
_COMPONENTS = frozenset({"main", "universe"})
_POCKETS = ("-updates", "-security", "-backports", "-proposed", "-debug")
"""Suites that never hold this package: their indexes are not worth the download."""


def upstream_tarball(
    runner: Runner, package: DebianPackage, scratch: Path, downloads: Path
) -> Path:
    """The package's upstream tarball, from `downloads` if it is there already.

    Raises:
        SourceUnavailable: no apt, no sources, no answer, or another tarball than the pinned one.
    """
    kept = downloads / f"{package.name}-{package.sha256[:16]}.orig.tar"
    if kept.is_file() and sha256(kept) == package.sha256:
        return kept
    try:
        apt = require_tool("apt-get")
        options = _private_apt(scratch)
        # Ends well even if no mirror answers; a third party's without source packages is no harm.
        runner.run([apt, *options, "update"], timeout=APT_SECONDS, check=False)
        if not list((scratch / "lists").glob("*_Sources*")):
            raise _unavailable(package, "no mirror gave its list of source packages")
        runner.run(
            [apt, *options, "source", "--download-only", "--tar-only", package.name],
            cwd=scratch,
            timeout=APT_SECONDS,
        )
    except MissingTool as error:
        raise _unavailable(package, str(error)) from error
    except CommandFailed as error:
        said = [line for line in error.tail if line.startswith("E:")]
        raise _unavailable(package, said[-1] if said else "apt-get did not end") from error
    for found in sorted(scratch.glob("*.orig.tar.*")):
        if sha256(found) == package.sha256:
            return _keep(found, kept)
    raise _unavailable(package, "the mirror has another version of it")


def _unavailable(package: DebianPackage, why: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"Debian's source package {package.name} could not be had: {why}",
        hint="a local clone or tarball of darknet serves as well: --source PATH",
    )


def _keep(found: Path, kept: Path) -> Path:
    temporary = kept.with_name(f"{kept.name}.{os.getpid()}")
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(found, temporary)
        temporary.replace(kept)
    except OSError:  # a full or read-only disk: it is only downloaded again next time
        with contextlib.suppress(OSError):
            temporary.unlink()
        return found
    return kept


def _private_apt(scratch: Path) -> list[str]:
    parts = scratch / "sources"
    for folder in (parts, scratch / "lists/partial", scratch / "cache/archives/partial"):
        folder.mkdir(parents=True)
    wrote = False
    for number, text in enumerate(source_entries(ETC_APT)):
        suffix = "sources" if text.startswith("Types:") else "list"
        (parts / f"{number}.{suffix}").write_text(text)
        wrote = True
    if not wrote:
        raise MissingTool(f"no source of packages is configured in {ETC_APT}")
    empty = parts / "empty"
    empty.touch()
    values = {
        "Dir::Etc::SourceList": empty,
        "Dir::Etc::SourceParts": parts,
        "Dir::State::lists": scratch / "lists",
        "Dir::Cache": scratch / "cache",
        "APT::Sandbox::User": "root",  # the scratch folder is closed to apt's own user
        "APT::Get::List-Cleanup": "false",
        "Acquire::Languages": "none",
        "Acquire::Retries": "1",
        "Acquire::http::Timeout": ANSWER_SECONDS,
        "Acquire::https::Timeout": ANSWER_SECONDS,
    }
    return ["-q", *(f"-o{name}={value}" for name, value in values.items())]


def source_entries(etc: Path) -> Iterator[str]:
    """The machine's own binary package sources, each rewritten to name source packages."""
    files = [etc / "sources.list"]
    with contextlib.suppress(OSError):
        files += sorted((etc / "sources.list.d").iterdir())
    for file in files:
        try:
            text = file.read_text(errors="replace")
        except OSError:
            continue
        if file.suffix == ".list":
            yield from filter(None, map(_from_line, text.splitlines()))
        elif file.suffix == ".sources":
            yield from filter(None, map(_from_stanza, re.split(r"\n[ \t]*\n", text)))


def _from_line(line: str) -> str:
    match = _LINE.match(line.strip())
    if not match:
        return ""
    components = _wanted(match["components"].split())
    if not components or match["suite"].endswith(_POCKETS):
        return ""
    options = match["options"] or ""
    return f"deb-src {options}{match['uri']} {match['suite']} {' '.join(components)}\n"


def _from_stanza(stanza: str) -> str:
    """One paragraph of the deb822 form, its fields kept but for the three that matter here."""
    fields: dict[str, str] = {}
    name = ""
    for line in stanza.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t" and name:
            fields[name] += f"\n{line}"
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().title()
            fields[name] = value.strip()
    suites = [s for s in fields.get("Suites", "").split() if not s.endswith(_POCKETS)]
    components = _wanted(fields.get("Components", "").split())
    switched_off = fields.get("Enabled", "yes").lower() in ("no", "false", "0", "off")
    if switched_off or not suites or not components or "deb" not in fields.get("Types", "").split():
        return ""
    fields.update(Suites=" ".join(suites), Components=" ".join(components))
    fields.pop("Types")
    lines = [f"{name}: {value}" for name, value in fields.items()]
    return "\n".join(["Types: deb-src", *lines]) + "\n"


def _wanted(components: list[str]) -> list[str]:
    return [word for word in components if word in _COMPONENTS]
