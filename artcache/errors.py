"""Every error a user can meet: what is wrong, what to do next, and the exit code.

Only these escape the library. `str(error)` says what happened and to which
object; `error.hint` is the next command to type (or empty). Exit codes are
the ones in docs/cli.md; a class that names none inherits its base's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class ArtcacheError(Exception):
    """Base class."""

    exit_code: int = 1
    code: str = "error"
    """Stable word for programs, in `--json` output."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


# -- 1: the build -------------------------------------------------------------------------


class BuildFailed(ArtcacheError):
    """The recipe could not make the artifact. Nothing was published."""

    exit_code = 1
    code = "build-failed"


class CommandFailed(BuildFailed):
    """A process of the build ended badly. `tail` holds its last output lines."""

    code = "command-failed"

    def __init__(
        self, message: str, *, tail: Sequence[str] = (), log: str = "", hint: str = ""
    ) -> None:
        shown = "".join(f"\n  | {line}" for line in tail)
        super().__init__(message + shown, hint=hint)
        self.tail = tuple(tail)
        self.log = log


class SmokeFailed(BuildFailed):
    """The build ended well but its result does not run. It was not published."""

    code = "smoke-failed"


class EmptyBuild(BuildFailed):
    """The build ended well and left no file."""

    code = "empty-build"


class MissingTool(BuildFailed):
    """A program that the build needs is not on this machine."""

    code = "missing-tool"


class Stopped(ArtcacheError):
    """Another way to the same result was quicker. No user meets it."""

    code = "stopped"


class SourceUnavailable(BuildFailed):
    """The source could not be had: no network, no such repository, no answer in time."""

    code = "source-unavailable"


# -- 2: usage -----------------------------------------------------------------------------


class UsageError(ArtcacheError):
    """The request cannot be understood or cannot be met by anyone."""

    exit_code = 2
    code = "usage"


class UnknownRecipe(UsageError):
    code = "unknown-recipe"


class InvalidKey(UsageError):
    code = "invalid-key"


class BadConfig(UsageError):
    code = "bad-config"


class RefNotFound(UsageError):
    """A commit, tag or branch that the source does not have."""

    code = "ref-not-found"


# -- 3: a miss ----------------------------------------------------------------------------


class CacheMiss(ArtcacheError):
    """No store has the artifact and no build was allowed. Nothing was changed."""

    exit_code = 3
    code = "miss"


# -- 4, 5, 9: what was read is not what it should be --------------------------------------


class NotTrusted(ArtcacheError):
    exit_code = 4
    code = "not-trusted"


class Corrupt(ArtcacheError):
    """Bytes that are not what their name, digest or manifest says."""

    exit_code = 5
    code = "corrupt"


class Refused(ArtcacheError):
    """Doing it would lose or overwrite something that is not ours."""

    exit_code = 5
    code = "refused"


class NewerFormat(ArtcacheError):
    """Written by a newer artcache. The message names the version that reads it."""

    exit_code = 9
    code = "newer-format"


class OverLimit(ArtcacheError):
    """Well-formed, but larger than this version agrees to handle."""

    exit_code = 9
    code = "over-limit"


# -- 6: stores ----------------------------------------------------------------------------


class StoreUnavailable(ArtcacheError):
    """The store does not answer, or answered with a fault of its own."""

    exit_code = 6
    code = "store-unavailable"


class StoreDenied(StoreUnavailable):
    """The store answered and said no (permissions, read-only, credentials)."""

    code = "store-denied"


class StoreFull(StoreUnavailable):
    """There is no room left where the store lies."""

    code = "store-full"


class NotPublished(StoreUnavailable):
    """The write policy asks for a store that did not take, or would not take, a build."""

    code = "not-published"


class BadArchive(StoreUnavailable):
    """A file that should be a store in one file is damaged, or made to deceive."""

    exit_code = 5
    code = "bad-archive"


class ObjectNotFound(ArtcacheError):
    """The store answered: there is no object of that name."""

    exit_code = 3
    code = "object-not-found"


class ObjectExists(ArtcacheError):
    """A create-only write found the name taken. The object there is untouched."""

    exit_code = 5
    code = "object-exists"


# -- 7, 8: this machine -------------------------------------------------------------------


class LocalDisk(ArtcacheError):
    """The local disk is full, read-only or not ours to write."""

    exit_code = 7
    code = "local-disk"


class Busy(ArtcacheError):
    """Somebody else holds what this command needs, and waiting was not allowed."""

    exit_code = 8
    code = "busy"


# -- of several things --------------------------------------------------------------------


class FetchesFailed(ArtcacheError):
    """Of several fetches some failed; all others came. Exit code and word are the first one's."""

    def __init__(self, names: Sequence[str], results: Sequence[Any]) -> None:
        """Args:
        names: What was wanted.
        results: For each in the same order what came of it; at least one is an error.
        """
        failed = [
            (name, found)
            for name, found in zip(names, results, strict=True)
            if isinstance(found, ArtcacheError)
        ]
        first = failed[0][1]
        lines = [f"{name}: {error}" for name, error in failed]
        if len(lines) > 1:
            lines = [f"{len(lines)} of {len(names)} failed:"] + [
                f"  - {line}" + (f" ({error.hint})" if error.hint and error is not first else "")
                for line, (_, error) in zip(lines, failed, strict=True)
            ]
        super().__init__("\n".join(lines), hint=first.hint)
        self.exit_code, self.code = first.exit_code, first.code
        self.results = list(results)
        """In the order of what was wanted: a `Fetched`, or the error that it failed with."""
        self.exceptions = tuple(error for _, error in failed)
        """The errors alone, in the same order."""
