"""What `look` and `probe` saw. Values only; what could not be found out is None or empty."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from ..detect.report import HostReport
from ..errors import ArtcacheError
from ..recipe import Tool


class Weight(NamedTuple):
    """The largest artifact that is known, for estimates."""

    name: str
    pack: int
    """Bytes of its packs, which a restore reads."""
    tree: int
    """Bytes of its tree, which the home must hold."""


class HomeFacts(NamedTuple):
    path: str
    there: bool = True
    denied: str = ""
    """Why nothing can be written there."""
    free: int | None = None
    """Bytes."""
    point: str = ""
    """Where its file system is mounted."""
    kind: str = ""
    """`ext4`, `tmpfs`, `fuse.drive`."""
    executes: bool = True
    """Whether a program there can be started."""
    entries: int = 0
    size: int = 0
    """Bytes of all entries."""
    broken: tuple[str, ...] = ()
    """What is wrong with each entry that has no sound seal."""
    litter: Mapping[str, int] = {}
    """Bytes in `tmp`, `partial`, `quarantine`, `downloads`."""
    pending: int = 0
    """Installs that were interrupted."""


class Target(NamedTuple):
    """A folder for `--to`, seen from the home."""

    path: str
    links: bool = False
    reflinks: bool = False
    executes: bool = True
    denied: str = ""


class Wanted(NamedTuple):
    """A tool that recipes call."""

    tool: Tool
    recipes: tuple[str, ...]
    path: str = ""
    """Where it is; empty: nowhere."""


class Setting(NamedTuple):
    name: str
    value: str
    origin: str
    """A file, a variable, an option, or `default`."""


class MachineFacts(NamedTuple):
    report: HostReport
    home: HomeFacts
    weight: Weight | None = None
    tools: tuple[Wanted, ...] = ()
    recipes: tuple[str, ...] = ()
    python: str = ""
    packages: Mapping[str, str] = {}
    """Versions by name; empty: not installed."""
    umask: int | None = None
    now: float = 0.0
    """Seconds since the epoch, by this machine's clock."""
    newest: float = 0.0
    """A time that is certainly past: when this package was written to the disk."""
    target: Target | None = None


class SettingsFacts(NamedTuple):
    settings: tuple[Setting, ...] = ()
    files: tuple[str, ...] = ()
    """Which were read, the user's first."""
    ignored: tuple[str, ...] = ()
    """Project files that somebody else owns."""
    unknown: Mapping[str, str] = {}
    """Variables that nothing reads, each with the one that was meant, or empty."""
    errors: tuple[ArtcacheError, ...] = ()
    """Files and variables that make no sense."""
