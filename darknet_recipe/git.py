"""git, as this recipe uses it: ask a remote, fetch one commit, read a clone, take a tree out.

Nothing is ever checked out and no user's repository is written to or entered
as a working directory: trees leave through `git archive`, from a bare
repository in the scratch folder that only borrows the objects of a clone.
"""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit, urlunsplit

from artcache.errors import CommandFailed, RefNotFound, SourceUnavailable

if TYPE_CHECKING:
    from artcache.process import Runner

ANSWER_SECONDS = 10.0
"""A source that does not answer in this time counts as unavailable."""
FETCH_SECONDS = 3600.0
"""A fetch may take long, but not for ever. One that stalls is ended by `_STALLS` before."""
_STALLS = ("-c", "http.lowSpeedLimit=1000", "-c", "http.lowSpeedTime=30")

_PLAIN_ATTRIBUTES = (
    "* -text -ident -filter -export-ignore -export-subst !eol !working-tree-encoding\n"
)
"""Bytes leave as they were committed, whatever the tree's or the user's attributes say."""


def list_remote(runner: Runner, url: str) -> dict[str, str]:
    """The heads and tags of a remote repository, and `HEAD`: name -> object id.

    An annotated tag appears twice: as itself, and with `^{}` behind it as its commit.

    Raises:
        SourceUnavailable: no answer within `ANSWER_SECONDS`, or a bad one.
    """
    clean, env = _without_credentials(url)
    start = time.monotonic()
    try:
        listing = runner.run(
            ["git", "ls-remote", "--", clean, "HEAD", "refs/heads/*", "refs/tags/*"],
            env=env,
            timeout=ANSWER_SECONDS,
        )
    except CommandFailed as error:
        late = time.monotonic() - start >= ANSWER_SECONDS
        raise unavailable(
            clean, f"no answer within {ANSWER_SECONDS:g} s" if late else _last_words(error)
        ) from error
    rows = [line.split("\t", 1) for line in listing.splitlines() if "\t" in line]
    return {name: commit for commit, name in rows}


def unavailable(url: str, why: str) -> SourceUnavailable:
    return SourceUnavailable(
        f"the source {url} could not be had: {why}",
        hint="check the address and the network; `--source` also takes a local clone or tarball",
    )


def fetch(runner: Runner, url: str, commit: str, repository: Path) -> None:
    """Bring `commit` into a new bare repository, as little else as the server allows.

    Raises:
        SourceUnavailable: no answer in time, or the fetch broke.
        RefNotFound: the source has no such commit.
    """
    list_remote(runner, url)
    clean, env = _without_credentials(url)
    create(runner, repository)
    command = ["git", *_STALLS, f"--git-dir={repository}", "fetch", "--quiet", "--no-tags"]
    command.append("--no-recurse-submodules")
    try:
        runner.run([*command, "--depth=1", "--", clean, commit], env=env, timeout=FETCH_SECONDS)
    except CommandFailed:
        # Some servers give out the tips of branches and tags only: then take everything.
        refs = ["+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"]
        try:
            runner.run([*command, "--", clean, *refs], env=env, timeout=FETCH_SECONDS)
        except CommandFailed as error:
            raise unavailable(clean, _last_words(error)) from error
    found = commit_of(runner, repository, commit)
    if not found:
        raise RefNotFound(
            f"{clean} has no commit {commit}", hint="is it of another fork, or of a deleted branch?"
        )
    if found != commit:
        raise RefNotFound(f"{commit} is a tag's id", hint=f"its commit is {found}")


def borrow(runner: Runner, clone: Path, repository: Path) -> None:
    """Make a new bare repository that reads the objects of `clone` (its git directory).

    The clone's configuration, attributes, hooks and owner don't matter to it.
    """
    objects = read(runner, clone, "rev-parse", "--git-path", "objects").strip()
    create(runner, repository)
    alternates = repository / "objects" / "info" / "alternates"
    alternates.parent.mkdir(parents=True, exist_ok=True)
    alternates.write_text(f"{(clone / objects).resolve()}\n")


def create(runner: Runner, repository: Path) -> None:
    runner.run(["git", "init", "--quiet", "--bare", "--template=", "--", repository])
    attributes = repository / "info" / "attributes"
    attributes.parent.mkdir(exist_ok=True)
    attributes.write_text(_PLAIN_ATTRIBUTES)


def archive(runner: Runner, repository: Path, commit: str, into: Path) -> None:
    """Write the tree of `commit` as a tar file. Submodules are empty folders in it."""
    runner.run(
        ["git", f"--git-dir={repository}", "archive", "--format=tar", f"--output={into}", commit]
    )


# -- a user's clone: only ever read, by naming its git directory ---------------------------


def git_directory(folder: Path) -> Path | None:
    """The git directory of a working tree, a linked one, or a bare repository; None: none.

    Found here rather than by git, which refuses a clone that another user owns
    (common where a notebook's folders come from somewhere else).
    """
    marker = folder / ".git"
    if marker.is_dir():
        return marker.absolute()
    if marker.is_file():
        named = marker.read_text(errors="replace").strip()
        return (folder / named.removeprefix("gitdir:").strip()).resolve()
    if (folder / "HEAD").is_file() and (folder / "objects").is_dir():
        return folder.absolute()
    return None


def read(runner: Runner, repository: Path, *words: str) -> str:
    return runner.run(["git", "--no-optional-locks", f"--git-dir={repository}", *words])


def commit_of(runner: Runner, repository: Path, ref: str) -> str:
    """The full commit id that `ref` (in any of git's spellings) stands for; empty: none."""
    if ref.startswith("-"):
        return ""
    command = ["git", f"--git-dir={repository}", "rev-parse", "--verify", "--quiet"]
    return runner.run([*command, f"{ref}^{{commit}}"], check=False).strip()


def branches_and_tags(runner: Runner, repository: Path) -> list[str]:
    names = read(runner, repository, "for-each-ref", "--format=%(refname)", "refs")
    return [
        re.sub(r"^refs/(heads|tags|remotes)/", "", name)
        for name in names.splitlines()
        if name.startswith(("refs/heads/", "refs/tags/", "refs/remotes/"))
    ]


def has_changes(runner: Runner, repository: Path, worktree: Path) -> bool:
    """Whether anything there was changed or added and not committed."""
    status = read(
        runner,
        repository,
        f"--work-tree={worktree.absolute()}",
        *("-c", "core.fsmonitor=false", "status", "--porcelain"),
        *("--untracked-files=normal", "--ignore-submodules=all"),
    )
    return bool(status.strip())


def origin(runner: Runner, repository: Path) -> str:
    """The URL of the remote `origin`; empty: none."""
    command = ["git", f"--git-dir={repository}", "config", "--get", "remote.origin.url"]
    return runner.run(command, check=False).strip()


# -- credentials ---------------------------------------------------------------------------


def _without_credentials(url: str) -> tuple[str, dict[str, str]]:
    """The URL as it may be shown, and an environment by which git still gets the whole one.

    Commands are logged and quoted in errors; their environments are not.
    """
    parts = urlsplit(url)
    if "@" not in parts.netloc or parts.scheme not in ("http", "https"):
        return url, {}
    clean = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    return clean, {
        "GIT_CONFIG_COUNT": "1",
        "GIT_CONFIG_KEY_0": f"url.{url}.insteadOf",
        "GIT_CONFIG_VALUE_0": clean,
    }


def _last_words(error: CommandFailed) -> str:
    """git's own reason: its last line that is no advice."""
    for line in reversed(error.tail):
        if line.startswith(("fatal:", "error:", "ssh:", "remote:")):
            return re.sub(r"://[^/@\s]*@", "://", line)
    return "git could not read it"
