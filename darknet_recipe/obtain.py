"""Bring the tree that a `Source` names into the scratch folder."""

from __future__ import annotations

from pathlib import Path

from artcache.errors import BuildFailed, RefNotFound
from artcache.process import require_tool
from artcache.recipe import BuildContext

from . import git
from .debian import upstream_tarball
from .source import Source, sha256
from .unpack import unpack, without_top_folder


def obtain(context: BuildContext, source: Source) -> Path:
    """The source tree, complete and free of git, somewhere below `context.scratch`.

    Raises:
        SourceUnavailable: it could not be had.
        RefNotFound: it was had, and has no such commit.
        BuildFailed: its archive is unsafe or damaged, or not the one that the key names.
    """
    scratch = context.scratch / "download"
    scratch.mkdir()
    if source.kind in ("git", "clone"):
        return _from_git(context, source, scratch)
    if source.kind == "debian":
        context.phase("download")
        assert source.flavour.package
        archive = upstream_tarball(
            context.runner, source.flavour.package, scratch, context.downloads
        )
    else:
        archive = Path(source.location)
        if not archive.is_file() or f"sha256-{sha256(archive)}" != source.commit:
            raise BuildFailed(f"{archive} changed or went away meanwhile", hint="try again")
    context.phase("unpack")
    unpack(archive, context.scratch / "unpacked")
    return without_top_folder(context.scratch / "unpacked")


def _from_git(context: BuildContext, source: Source, scratch: Path) -> Path:
    require_tool("git")
    repository = scratch / "repository"
    context.phase("clone")
    if source.kind == "git":
        _fetch(context, source, repository)
    else:
        git.borrow(context.runner, Path(source.location), repository)
    archive = scratch / "source.tar"
    git.archive(context.runner, repository, source.commit, archive)
    unpack(archive, context.scratch / "unpacked")
    return context.scratch / "unpacked"


def _fetch(context: BuildContext, source: Source, repository: Path) -> None:
    try:
        git.fetch(context.runner, source.location, source.commit, repository)
    except RefNotFound as error:
        if source.commit != source.flavour.commit:
            raise
        # The user named no commit: that ours is gone is the source's fault, and another may serve.
        raise git.unavailable(source.name, str(error)) from error
