"""The `Store` port: bytes by name, with declared traits. It knows no key and no manifest.

Every adapter in `stores/` implements it and passes the one contract suite,
`tests/store_contract.py`. Names are `/`-separated, without empty, `.` or `..` parts.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from .errors import UsageError

ARCHIVE = ".artcache"
"""A path that ends so, and is no folder, is a store in one file."""
Content = bytes | Path
"""An object's bytes, or the local file that holds them."""

_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._() -]{0,200}")


class StoreTraits(NamedTuple):
    """What a caller may rely on. Asked, never guessed from the URL."""

    exclusive_create: bool
    """Of several writers of one name exactly one succeeds. False on a mounted
    Drive: then manifests get names that no two writers share."""
    durable_on_return: bool
    """False where bytes may wait on this machine after `create` returned."""
    writable: bool = True
    swaps: bool = False
    """It is a `SwapStore`: of several that replace one object exactly one succeeds."""
    shared_disk: bool = False
    """It is a folder on a disk or mount of this machine."""
    parallel: int = 0
    """Reads worth having under way at once, where each waits for an answer; 0: as many
    as there are cores."""
    lists: bool = True
    """False for plain https: `list` yields nothing, whatever is there."""


class StoredObject(NamedTuple):
    name: str
    size: int
    modified: float
    """Seconds since the epoch, by the store's clock."""


class Store(Protocol):
    """Every method raises `StoreUnavailable` when the store does not answer, and
    `StoreDenied` when it answers with a refusal."""

    @property
    def url(self) -> str:
        """As the user wrote it; named in messages."""
        ...

    @property
    def traits(self) -> StoreTraits: ...

    def get(self, name: str, *, limit: int) -> bytes:
        """The whole object.

        Raises:
            ObjectNotFound: no such object.
            OverLimit: it has more than `limit` bytes.
        """
        ...

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        """Exactly `length` bytes from `offset`.

        Raises:
            ObjectNotFound: no such object.
            Corrupt: the object ends before `offset + length`.
        """
        ...

    def size(self, name: str) -> int:
        """Length in bytes. Raises `ObjectNotFound`."""
        ...

    def create(self, name: str, content: Content) -> None:
        """Store a new object whole or not at all; never replaces one.

        Raises:
            ObjectExists: the name is taken (and its object untouched).
        """
        ...

    def list(self, prefix: str) -> Iterator[StoredObject]:
        """The objects under the folder `prefix` (no trailing slash), in no order."""
        ...

    def delete(self, name: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def move(self, name: str, to: str) -> None:
        """Give an object another name, which must be free.

        Raises:
            ObjectNotFound: no such object.
        """
        ...

    def quarantine(self, name: str) -> str:
        """Move a bad object out of the readers' way; returns where it is now, or ''.

        Raises:
            ObjectNotFound: no such object.
        """
        ...


NEW = ""
"""The version of an object that is not there, for `SwapStore.swap`."""


class SwapStore(Store, Protocol):
    """A store that replaces a small object if it is still the one that was read: for leases.
    Artifacts are never replaced."""

    def get_versioned(self, name: str, *, limit: int) -> tuple[bytes, str]:
        """As `get`, and the version of what was read."""
        ...

    def swap(self, name: str, content: bytes, over: str) -> str:
        """Replace the object whose version is `over` (`NEW`: create it); the new version.

        Raises:
            ObjectExists: its version is another by now.
        """
        ...


@runtime_checkable
class Abortable(Protocol):
    """A store whose requests other threads wait for, perhaps long."""

    def abort(self) -> None:
        """End the reads under way: they raise `StoreUnavailable`. Later ones work."""
        ...


@runtime_checkable
class Filling(Protocol):
    """A store that reads into memory which is used again and again: new memory for each
    read costs about as much as the reading."""

    def fill(self, name: str, offset: int, out: memoryview) -> None:
        """As `get_range`, as many bytes as `out` holds."""
        ...


@runtime_checkable
class Streaming(Protocol):
    """A store whose reads can be used before they end."""

    def stream(
        self, name: str, offset: int, out: memoryview, came: Callable[[int], object]
    ) -> None:
        """As `Filling.fill`. What has come is not asked for again when a read breaks off.

        Args:
            came: Told, from any thread, how many bytes of `out` are there, from its start.
                An `ArtcacheError` that it raises ends the read.
        """
        ...


@runtime_checkable
class Littered(Protocol):
    """A store in which killed writers leave things that are no objects."""

    def leftovers(self) -> Iterator[StoredObject]:
        """What writers left, and what writers of this moment use."""
        ...

    def discard(self, name: str) -> None:
        """Remove one of `leftovers`; one that is not there is no error."""
        ...


@runtime_checkable
class Probed(Protocol):
    """A store that says whether it may be written without an object that stays."""

    def probe(self) -> None:
        """Raises `StoreDenied` if nothing new can be stored now."""
        ...


@runtime_checkable
class Buffered(Protocol):
    """A store that may not be durable on return."""

    def flush_advice(self) -> str:
        """What the user does to have all of it stored for certain; '' if it is."""
        ...


def checked_name(name: str) -> str:
    """`name` itself, if it is one that every store can hold.

    Raises:
        UsageError: it is not; a bug of the caller, not of the user.
    """
    if not name or not all(_PART.fullmatch(part) for part in name.split("/")):
        raise UsageError(f"{name!r} is no object name")
    return name


WritePolicy = Literal["ignore", "first", "all"]
"""Which stores must have taken what was built, or the command fails: none, the first
that may be written, or each of them."""


class StoreSpec(NamedTuple):
    """One configured store: where, and what it is used for."""

    url: str
    mode: str = "readwrite"
    """`read`, `write` or `readwrite`."""
    public: bool = False
    """Anyone may read it, so nothing goes there that must not be redistributed."""
    backfill: bool | None = None
    """Whether a hit in a later store is copied here; None: as for all stores."""

    @property
    def reads(self) -> bool:
        return self.mode != "write"

    @property
    def writes(self) -> bool:
        return self.mode != "read"

    @classmethod
    def parse(cls, text: str) -> StoreSpec:
        """Read `URL` or `read:URL`, `write:URL`, `readwrite:URL`; `public:` before any of them.

        Raises:
            UsageError: no URL in it.
        """
        word, rest = text.strip(), text.strip().removeprefix("public:").strip()
        public = rest != word
        mode, colon, url = rest.partition(":")
        if colon and mode in ("read", "write", "readwrite"):
            spec = cls(url.strip(), mode, public)
        else:
            spec = cls(rest, public=public)
        if not spec.url:
            raise UsageError(
                f"{text!r} names no store", hint="write it like /mnt/cache or read:/mnt/cache"
            )
        return spec
