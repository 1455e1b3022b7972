"""What `look` and `probe` saw. Values only; what could not be found out is None or empty."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ..detect.report import HostReport
from ..errors import ArtcacheError
from ..recipe import Tool
from ..store import StoreSpec


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
    restricted: Mapping[str, str] = {}
    """Recipes whose artifacts must not be public, each with the licence that says so."""
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


class Fault(NamedTuple):
    """Why something a store was asked did not work."""

    text: str
    hint: str = ""
    cause: str = ""
    """`denied`, `dns`, `tls`, `timeout`, `refused`, `bucket`, `usage` or empty."""


@dataclass
class StoreFacts:
    """What one store answered. Filled in as the answers come, so that a store which hangs
    still tells how far it came."""

    spec: StoreSpec
    step: str = "open it"
    """What is under way; empty: all was asked."""
    adapter: str = ""
    host: str = ""
    """The server that is asked; empty for a folder."""
    identity: str = ""
    writable: bool = True
    """Whether stores of this kind can be written at all."""
    exclusive: bool = True
    """Whether stores of this kind have an exclusive create."""
    lists: bool = True
    silent: float = 0.0
    """Seconds after which it was given up, if it did not answer all in time."""
    fault: Fault | None = None
    """Why it could not be used at all."""

    there: bool | None = None
    """Whether a folder exists; None: not a folder."""
    answer: float | None = None
    """Seconds until the first answer, with the time to connect."""
    unreadable: Fault | None = None
    root: bytes | None = None
    """`artcache.json`; None: it has none."""
    artifacts: int | None = None
    more: bool = False
    """There are more, which were not counted."""
    recipes: frozenset[str] = frozenset()
    largest: int = 0
    """Bytes of its largest pack among those that were seen."""
    unlisted: Fault | None = None

    tried: bool = False
    """Whether it was written to."""
    unwritten: Fault | None = None
    same: bool | None = None
    """Whether what was read back is what was written."""
    create_only: bool | None = None
    """Whether a second write of the same name was refused."""
    undeleted: Fault | None = None
    leases: bool | None = None
    """Whether an object is replaced only by who read its present version."""
    unreplaced: Fault | None = None
    skew: float | None = None
    """Seconds by which its clock is ahead of this machine's."""
    up: float | None = None
    """Bytes a second."""
    down: float | None = None
