"""What a request's `source` and `ref` mean: one source, one full commit id.

A known name, or the URL of a known repository, needs no network and no
process. A branch or tag is asked of the repository, and the answer is noted
for the user. `obtain` then brings the tree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from artcache.errors import RefNotFound, UsageError

from .flavours import ALEXEYAB, BY_NAME, DEBIAN, UNKNOWN, Flavour, by_commit, by_url

if TYPE_CHECKING:
    from artcache.process import Runner

FALLBACK_NOTE = (
    "this is pjreddie's darknet from Debian's source package, built in place of the default source "
    f"({ALEXEYAB.url}) when that did not answer; `--source upstream` forbids it"
)

_FULL_COMMIT = r"[0-9a-f]{40}"
_PART_OF_COMMIT = r"[0-9a-f]{4,39}"
_SCP_LIKE = r"(?:[^@/\s]+@)?(?P<host>[^/:@\s]+):(?!/{2})(?P<path>\S+)"
_TAR_MAGIC = ((0, b"\x1f\x8b"), (0, b"BZh"), (0, b"\xfd7zXZ\0"), (0, b"\x28\xb5\x2f\xfd"))
_TAR_MAGIC_PLAIN = (257, b"ustar")


class Source(NamedTuple):
    """One tree of darknet, named so that it can be had again."""

    kind: Literal["git", "clone", "tarball", "debian"]
    name: str
    """In keys: the canonical URL, `local` or `tarball`. Never a path, a user or a token."""
    commit: str
    """The full commit id, or `sha256-<hex>` of a tarball."""
    flavour: Flavour
    location: str = ""
    """Where it is: a URL (perhaps with a token), a git directory, a tarball's path."""
    note: str = ""
    """For the user."""

    def __repr__(self) -> str:
        return f"Source({self.kind} {self.name} {self.commit})"  # a location may hold a token


def resolve(source: str | None, ref: str | None, runner: Runner) -> Source:
    """Find out which commit of which repository is meant.

    Raises:
        UsageError: `source` is nothing that this recipe can read.
        RefNotFound: the repository has no such branch, tag or commit.
        SourceUnavailable: a branch or tag was given, and the repository does not answer.
    """
    word = (source or "").strip() or ALEXEYAB.name
    flavour = BY_NAME.get(word.lower())
    if flavour and flavour.package:
        return _debian(flavour, ref)
    if flavour:
        return _repository(flavour.url, ref, runner)
    if "://" in word:
        return _repository(word, ref, runner)
    path = Path(word).expanduser()
    if path.is_dir():
        return _clone(path, ref, runner)
    if path.exists():
        return _tarball(path, ref)
    if re.fullmatch(_SCP_LIKE, word):
        return _repository(word, ref, runner)
    import difflib

    near = difflib.get_close_matches(word.lower(), BY_NAME, n=2, cutoff=0.6)
    raise UsageError(
        f"{word!r} is no darknet source: no known name, no URL, and no file or folder",
        hint=f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(BY_NAME)}",
    )


def fallback() -> Source:
    """What serves when the default source does not answer: a mirror of Debian's is always near."""
    return Source("debian", DEBIAN.url, DEBIAN.commit, DEBIAN, note=FALLBACK_NOTE)


def canonical_url(url: str) -> str:
    """One spelling for all URLs of one repository; `local` for one on this machine.

    The host in lower case; no user, token, default port, query, `.git` or
    slash at the end; every kind of ssh and git URL as https.
    """
    text = url.strip()
    if "://" not in text:
        match = re.fullmatch(_SCP_LIKE, text)
        if not match:
            return "local"
        text = f"ssh://{match['host']}/{match['path']}"
    scheme, _, rest = text.partition("://")
    scheme = scheme.lower()
    authority, _, path = re.split(r"[?#]", rest, maxsplit=1)[0].partition("/")
    if scheme == "file":
        return "local"
    where = re.fullmatch(r"(\[[^\]]*\]|[^:]*):?(.*)", authority.rpartition("@")[2].lower())
    host, port = where.groups() if where else ("", "")
    if scheme != "http":
        # A port of ssh's or git's own says nothing about https.
        port = port if scheme == "https" and port != "443" else ""
        scheme = "https"
    elif port == "80":
        port = ""
    path = re.sub(r"/{2,}", "/", path).strip("/").removesuffix(".git").rstrip("/")
    return f"{scheme}://{host}{':' + port if port else ''}/{path}"


# -- repositories elsewhere ----------------------------------------------------------------


def _repository(url: str, ref: str | None, runner: Runner) -> Source:
    name = canonical_url(url)
    flavour = by_url(name)
    commit, note = _remote_commit(url, flavour, (ref or "").strip(), runner)
    flavour = _flavour(flavour, commit)
    return Source("git", flavour.url or name, commit, flavour, url, note)


def _flavour(by_its_url: Flavour, commit: str) -> Flavour:
    pinned = by_commit(commit)
    return pinned if pinned.url else by_its_url


def _remote_commit(url: str, flavour: Flavour, ref: str, runner: Runner) -> tuple[str, str]:
    word = ref.lower()
    if flavour.commit and (not ref or flavour.commit == word):
        return flavour.commit, ""
    if re.fullmatch(_FULL_COMMIT, word):
        return word, ""
    if re.fullmatch(_PART_OF_COMMIT, word) and flavour.commit.startswith(word):
        return flavour.commit, f"{ref} is {flavour.commit}"
    from . import git

    refs = git.list_remote(runner, url)
    names = [ref] if ref else ["HEAD"]
    if ref and ref != "HEAD":
        names = [f"refs/tags/{ref}^{{}}", f"refs/tags/{ref}", f"refs/heads/{ref}"]
        names += [f"{ref}^{{}}", ref] if ref.startswith("refs/") else []
    for name in names:
        if name in refs:
            return refs[name], f"{ref or 'HEAD'} is {refs[name]}"
    starting = {commit for commit in refs.values() if commit.startswith(word)}
    if re.fullmatch(_PART_OF_COMMIT, word) and len(starting) == 1:
        (commit,) = starting
        return commit, f"{ref} is {commit}"
    where = canonical_url(url)
    shown = url if where == "local" else where  # the canonical one holds no token
    raise _no_such_ref(ref, shown, [_short(name) for name in refs])


def _short(name: str) -> str:
    return re.sub(r"^refs/(heads|tags)/|\^\{\}$", "", name)


def _no_such_ref(ref: str, where: str, names: Iterable[str]) -> RefNotFound:
    import difflib

    known = sorted({name for name in names if not name.endswith("HEAD")})
    near = difflib.get_close_matches(ref, known, n=3, cutoff=0.5)
    hint = f"did you mean {', '.join(near)}?" if near else f"it has {_some(known)}"
    if re.fullmatch(_PART_OF_COMMIT, ref.lower()):
        hint = "a commit must be given by all of its 40 digits: a remote can't be asked for less"
    return RefNotFound(f"{where} has no branch or tag {ref!r}", hint=hint)


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (", ".join(names[:5]) or "none at all") + more


# -- on this machine -----------------------------------------------------------------------


def _clone(path: Path, ref: str | None, runner: Runner) -> Source:
    from . import git

    repository = git.git_directory(path)
    if repository is None:
        raise UsageError(
            f"the folder {path} is no git repository, so its content has no name",
            hint="commit it (git init, git add, git commit), or pack it: tar -czf darknet.tar.gz",
        )
    wanted = (ref or "").strip() or "HEAD"
    commit = git.commit_of(runner, repository, wanted)
    if not commit and wanted == "HEAD":
        raise RefNotFound(f"the repository {path} has no commit yet", hint="commit something")
    if not commit:
        raise _no_such_ref(wanted, str(path), git.branches_and_tags(runner, repository))
    url = git.origin(runner, repository)
    name = canonical_url(url) if url else "local"
    flavour = _flavour(by_url(name), commit)
    notes = [] if ref and ref.lower() == commit else [f"{wanted} of {path} is {commit}"]
    if repository != path.absolute() and git.has_changes(runner, repository, path):
        notes.append("its uncommitted changes are not built")
    return Source("clone", flavour.url or name, commit, flavour, str(repository), "; ".join(notes))


def _tarball(path: Path, ref: str | None) -> Source:
    if ref:
        raise UsageError(f"a tarball has no branches, tags or commits: leave out --ref {ref}")
    if not path.is_file():
        raise UsageError(f"{path} is neither a file nor a folder")
    with path.open("rb") as stream:
        start = stream.read(512)
    if not any(start[at : at + len(m)] == m for at, m in (*_TAR_MAGIC, _TAR_MAGIC_PLAIN)):
        raise UsageError(
            f"{path} is no tar archive",
            hint="a source is a known name, a git URL, a clone, or a .tar, .tar.gz, .tar.xz, "
            ".tar.bz2 or .tar.zst file",
        )
    return Source("tarball", "tarball", f"sha256-{sha256(path)}", UNKNOWN, str(path.absolute()))


def _debian(flavour: Flavour, ref: str | None) -> Source:
    if ref and ref.strip().lower() != flavour.commit:
        raise RefNotFound(
            f"Debian's package has one commit only, not {ref!r}",
            hint=f"--source pjreddie --ref {ref} asks its upstream",
        )
    return Source("debian", flavour.url, flavour.commit, flavour)


def sha256(path: Path) -> str:
    import hashlib

    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
