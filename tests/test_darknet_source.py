"""From what users write to one commit: names, URLs, clones, tarballs, and what goes wrong."""

from __future__ import annotations

import http.server
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from darknet_fixtures import (
    CPU_HOST,
    build,
    files,
    git,
    only_variant,
    repository,
    tiny_tree,
)

from artcache.errors import MissingTool, RefNotFound, SourceUnavailable, UsageError
from artcache.process import Runner
from artcache.recipe import Request
from darknet_recipe import flavours, recipe
from darknet_recipe import git as recipe_git
from darknet_recipe.source import canonical_url, resolve


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A repository with a branch `master` and a tag `v1` (annotated) one commit behind it."""
    folder = repository(tiny_tree(tmp_path / "clone"))
    git(folder, "tag", "--annotate", "--message=one", "v1")
    (folder / "README.md").write_text("second\n")
    git(folder, "commit", "--quiet", "--all", "--message=second")
    return folder


def head(folder: Path, ref: str = "HEAD") -> str:
    return git(folder, "rev-parse", f"{ref}^{{commit}}")


# -- one spelling --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "https://github.com/AlexeyAB/darknet",
        "https://github.com/AlexeyAB/darknet.git",
        "https://github.com/AlexeyAB/darknet/",
        "https://GitHub.com:443//AlexeyAB/darknet.git/",
        "https://someone:ghp_secret@github.com/AlexeyAB/darknet.git",
        "https://ghp_secret@github.com/AlexeyAB/darknet?token=secret#readme",
        "git@github.com:AlexeyAB/darknet.git",
        "github.com:AlexeyAB/darknet",
        "ssh://git@github.com/AlexeyAB/darknet",
        "ssh://git@github.com:22/AlexeyAB/darknet.git",
        "git://github.com/AlexeyAB/darknet",
        "git+ssh://git@github.com/AlexeyAB/darknet",
    ],
)
def test_all_spellings_of_a_repository_are_one(url: str) -> None:
    assert canonical_url(url) == "https://github.com/AlexeyAB/darknet"


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("https://host:8443/a", "https://host:8443/a"),
        ("http://127.0.0.1:80/a.git", "http://127.0.0.1/a"),
        ("http://[::1]:8080/a.git", "http://[::1]:8080/a"),
        ("file:///home/me/darknet", "local"),
        ("/home/me/darknet", "local"),
        ("../darknet", "local"),
    ],
)
def test_other_urls(url: str, canonical: str) -> None:
    assert canonical_url(url) == canonical


def test_urls_of_a_known_repository_are_that_flavour() -> None:
    keys = {
        only_variant(Request(source=url)).key
        for url in ("alexeyab", "git@github.com:alexeyab/Darknet.git", "upstream")
    }
    assert len(keys) == 1


def test_no_token_is_in_a_key_or_shown() -> None:
    url = "https://me:ghp_secret@example.invalid/me/darknet"
    variant = only_variant(Request(source=url, ref="1" * 40))

    assert b"ghp_secret" not in variant.key.canonical
    assert "ghp_secret" not in repr(variant)
    assert variant.plan.source.location == url


# -- commits, tags, branches of a remote ---------------------------------------------------


def test_a_full_commit_needs_no_network() -> None:
    variant = only_variant(Request(source="https://example.invalid/x", ref="ABCDEF0123" * 4))

    assert variant.key.get("commit") == "abcdef0123" * 4


def test_the_start_of_a_pinned_commit_needs_no_network() -> None:
    variant = only_variant(Request(source="alexeyab", ref="59596d78"))

    assert variant.key.get("commit") == flavours.ALEXEYAB.commit
    assert flavours.ALEXEYAB.commit in variant.note


@pytest.mark.parametrize(
    ("ref", "is_"),
    [
        (None, "HEAD"),
        ("master", "HEAD"),
        ("refs/heads/master", "HEAD"),
        ("v1", "v1"),
        ("refs/tags/v1", "v1"),
    ],
)
def test_a_remote_is_asked_for_branches_and_tags(clone: Path, ref: str | None, is_: str) -> None:
    variant = only_variant(Request(source=clone.as_uri(), ref=ref))

    assert variant.key.get("commit") == head(clone, is_)
    assert variant.note == f"{ref or 'HEAD'} is {head(clone, is_)}"


def test_a_tag_wins_over_a_branch_of_its_name(clone: Path) -> None:
    git(clone, "branch", "v1", "master")

    assert resolve(clone.as_uri(), "v1", Runner()).commit == head(clone, "refs/tags/v1")


def test_a_short_commit_of_a_remote_must_be_a_tip(clone: Path) -> None:
    tip = head(clone)
    assert resolve(clone.as_uri(), tip[:9], Runner()).commit == tip
    (clone / "README.md").write_text("third\n")
    git(clone, "commit", "--quiet", "--all", "--message=third")
    with pytest.raises(RefNotFound) as caught:
        resolve(clone.as_uri(), tip[:9], Runner())
    assert "40 digits" in caught.value.hint


@pytest.mark.parametrize("form", ["remote", "clone"])
def test_a_ref_that_is_not_there(clone: Path, form: str) -> None:
    source = clone.as_uri() if form == "remote" else str(clone)
    with pytest.raises(RefNotFound, match="no branch or tag 'mastr'") as caught:
        resolve(source, "mastr", Runner())
    assert "did you mean master" in caught.value.hint
    with pytest.raises(RefNotFound) as caught:
        resolve(source, "--upload-pack=touch /tmp/x", Runner())
    assert "it has master, v1" in caught.value.hint


def test_a_fork_at_a_pinned_commit_is_that_flavour(monkeypatch, clone: Path) -> None:
    same = flavours.ALEXEYAB._replace(commit=head(clone))
    monkeypatch.setitem(flavours.BY_NAME, "alexeyab", same)
    source = resolve(clone.as_uri(), "master", Runner())

    assert (source.name, source.flavour) == (same.url, same)


# -- a clone on this machine ---------------------------------------------------------------


def test_a_clone_is_keyed_by_its_origin(clone: Path) -> None:
    assert resolve(str(clone), None, Runner()).name == "local"
    git(clone, "remote", "add", "origin", "https://me:token@Example.invalid/me/darknet.git")
    source = resolve(str(clone), None, Runner())

    assert source.name == "https://example.invalid/me/darknet"
    assert source.commit == head(clone)


def test_a_clone_knows_short_commits_and_gits_own_spellings(clone: Path) -> None:
    first = head(clone, "v1")

    for ref in (first[:7], "master~1", "v1", first):
        assert resolve(str(clone), ref, Runner()).commit == first


@pytest.mark.parametrize("change", ["README.md", "new.c"])
def test_uncommitted_changes_are_told_and_not_built(
    clone: Path, tmp_path: Path, change: str
) -> None:
    clean = only_variant(Request(source=str(clone)))
    (clone / change).write_text("changed")
    variant = only_variant(Request(source=str(clone)))
    build(variant, tmp_path / "b")

    assert "are not built" not in clean.note
    assert "uncommitted changes are not built" in variant.note
    assert variant.key == clean.key


def test_a_clone_is_never_written_to(clone: Path, tmp_path: Path) -> None:
    def state() -> dict[str, tuple[int, int]]:
        found = {}
        for path in clone.rglob("*"):
            status = path.lstat()
            found[str(path)] = (status.st_mtime_ns, status.st_size)
        return found

    os.utime(clone / "README.md")  # so that git would like to refresh its index
    before = state()
    build(only_variant(Request(source=str(clone))), tmp_path / "b")

    assert state() == before


@pytest.mark.parametrize("form", ["bare", "worktree", "shallow", "borrowing"])
def test_every_kind_of_clone(clone: Path, tmp_path: Path, form: str) -> None:
    other = tmp_path / form
    if form == "bare":
        git(tmp_path, "clone", "--quiet", "--bare", str(clone), str(other))
    elif form == "worktree":
        git(clone, "worktree", "add", "--quiet", "--detach", str(other), "master")
    elif form == "shallow":
        git(tmp_path, "clone", "--quiet", "--depth=1", clone.as_uri(), str(other))
    else:
        git(tmp_path, "clone", "--quiet", "--shared", str(clone), str(other))
    context = build(only_variant(Request(source=str(other))), tmp_path / "b")

    assert context.provenance["commit"] == head(clone)
    assert (context.tree / "darknet").is_file()


def test_neither_attributes_nor_settings_change_the_bytes(clone: Path, tmp_path, monkeypatch):
    (clone / ".gitattributes").write_text("cfg/* export-ignore\n*.names text eol=crlf ident\n")
    (clone / "data/coco.names").write_text("person\n$Id$\n$Format:%H$\n")
    git(clone, "add", "--all")
    git(clone, "commit", "--quiet", "--message=attributes")
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[core]\n\tautocrlf = true\n[init]\n\ttemplateDir = /nowhere\n"
    )
    monkeypatch.setenv("HOME", str(home))
    context = build(only_variant(Request(source=str(clone))), tmp_path / "b")

    assert (context.tree / "data/coco.names").read_bytes() == b"person\n$Id$\n$Format:%H$\n"
    assert (context.tree / "cfg/yolo.cfg").exists()


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a clone to somebody else")
def test_a_clone_of_another_user(clone: Path, tmp_path: Path) -> None:
    for path in [clone, *clone.rglob("*")]:
        os.chown(path, 12345, 12345)
    refused = subprocess.run(["git", "status"], cwd=clone, capture_output=True, text=True)
    context = build(only_variant(Request(source=str(clone))), tmp_path / "b")

    assert "dubious ownership" in refused.stderr
    assert (context.tree / "darknet").is_file()


def test_submodules_are_left_alone(clone: Path, tmp_path: Path) -> None:
    other = repository(tiny_tree(tmp_path / "other"))
    git(clone, "-c", "protocol.file.allow=always", "submodule", "add", str(other), "CCM")
    git(clone, "commit", "--quiet", "--message=submodule")
    shutil.rmtree(other)
    for number, source in enumerate((str(clone), clone.as_uri())):
        build(only_variant(Request(source=source)), tmp_path / f"b{number}")


def test_folders_without_a_name_for_their_content(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no git repository"):
        resolve(str(tmp_path), None, Runner())
    git(tmp_path, "init", "--quiet")
    with pytest.raises(RefNotFound, match="no commit yet"):
        resolve(str(tmp_path), None, Runner())


# -- having it -----------------------------------------------------------------------------


def test_remote_clone_and_tarball_make_the_same_bytes(clone: Path, tmp_path: Path) -> None:
    tarball = tmp_path / "darknet.tar.gz"
    git(clone, "archive", "--prefix=darknet-master/", f"--output={tarball}", "HEAD")
    trees = [
        files(build(only_variant(Request(source=source)), tmp_path / str(number)).tree)
        for number, source in enumerate((str(clone), clone.as_uri(), str(tarball)))
    ]

    assert trees[0] == trees[1] == trees[2]
    assert sorted(trees[0]) == [
        *("LICENSE", "cfg/yolo.cfg", "darknet", "data/coco.names", "data/labels/65_0.png"),
    ]
    assert b"Jan  1 2020" in trees[0]["darknet"]
    assert str(tmp_path).encode() not in trees[0]["darknet"]


@pytest.mark.parametrize("protocol", ["0", "2"])
def test_a_commit_that_is_no_tip(clone: Path, tmp_path: Path, monkeypatch, protocol: str) -> None:
    """Servers of protocol 0 refuse to give it by its id; then all is fetched."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text(f"[protocol]\n\tversion = {protocol}\n")
    git(clone, "tag", "--delete", "v1")
    first = head(clone, "master~1")
    context = build(only_variant(Request(source=clone.as_uri(), ref=first)), tmp_path / "b")

    assert context.provenance["commit"] == first


def test_a_commit_that_the_remote_does_not_have(clone: Path, tmp_path: Path) -> None:
    with pytest.raises(RefNotFound, match="has no commit 1111"):
        build(only_variant(Request(source=clone.as_uri(), ref="1" * 40)), tmp_path / "b")


def test_the_id_of_a_tag_is_no_commit(clone: Path, tmp_path: Path) -> None:
    tag = git(clone, "rev-parse", "v1")
    with pytest.raises(RefNotFound, match="is a tag's id") as caught:
        build(only_variant(Request(source=clone.as_uri(), ref=tag)), tmp_path / "b")
    assert head(clone, "v1") in caught.value.hint


def test_a_pinned_commit_that_is_gone_is_a_missing_source(
    clone: Path, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text(
        f'[url "{clone.as_uri()}"]\n\tinsteadOf = {flavours.ALEXEYAB.url}\n'
    )
    with pytest.raises(SourceUnavailable, match="has no commit"):
        build(only_variant(Request(source="upstream")), tmp_path / "b")


@pytest.fixture
def silent_server() -> Iterator[str]:
    """Takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}/x.git"


def test_a_source_that_never_answers(silent_server: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(recipe_git, "ANSWER_SECONDS", 0.5)
    for act in (
        lambda: only_variant(Request(source=silent_server)),
        lambda: only_variant(Request(source=silent_server, ref="master")),
        lambda: build(only_variant(Request(source=silent_server, ref="1" * 40)), tmp_path / "b"),
    ):
        start = time.monotonic()
        with pytest.raises(SourceUnavailable, match=r"no answer within 0\.5 s"):
            act()
        assert time.monotonic() - start < 5


def test_the_limit_is_ten_seconds() -> None:
    assert recipe_git.ANSWER_SECONDS == 10


def test_the_fallback_builds_when_the_default_does_not_answer(
    silent_server: str, tmp_path: Path, monkeypatch
) -> None:
    """As the cache does it: on `SourceUnavailable`, the next variant."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / ".gitconfig").write_text(
        f'[url "{silent_server}"]\n\tinsteadOf = {flavours.ALEXEYAB.url}\n'
    )
    monkeypatch.setattr(recipe_git, "ANSWER_SECONDS", 0.5)
    first, second = recipe.variants(CPU_HOST, Request(), Runner())

    with pytest.raises(SourceUnavailable, match="AlexeyAB"):
        build(first, tmp_path / "b")
    assert second.plan.source.kind == "debian"


@pytest.mark.parametrize(
    "url", ["file:///nowhere/at/all", "http://127.0.0.1:9/x.git", "nonsense://x/y"]
)
def test_a_source_that_is_not_there(url: str) -> None:
    with pytest.raises(SourceUnavailable, match="could not be had"):
        resolve(url, "master", Runner())


def test_no_git(tmp_path: Path, clone: Path, monkeypatch) -> None:
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("gcc", "g++", "make"):
        (tools / name).symlink_to(shutil.which(name) or name)
    variant = only_variant(Request(source=str(clone)))
    monkeypatch.setenv("PATH", str(tools))
    with pytest.raises(MissingTool, match="git"):
        resolve(clone.as_uri(), "master", Runner())
    with pytest.raises(MissingTool, match="git"):
        build(variant, tmp_path / "b")


# -- credentials ---------------------------------------------------------------------------


class _Private(http.server.SimpleHTTPRequestHandler):
    """A plain file server, as git's oldest protocol needs it, for those with the password."""

    def do_GET(self) -> None:
        # me:ghp_secret
        if self.headers.get("Authorization") != "Basic bWU6Z2hwX3NlY3JldA==":
            self.send_response(401)
            self.send_header("WWW-Authenticate", 'Basic realm="private"')
            self.end_headers()
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def private_server(clone: Path) -> Iterator[str]:
    git(clone, "update-server-info")
    handler = partial(_Private, directory=str(clone / ".git"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


def test_a_token_opens_the_source_and_is_never_written(
    private_server: str, clone: Path, tmp_path: Path
) -> None:
    variant = only_variant(Request(source=f"http://me:ghp_secret@{private_server}", ref="master"))
    context = build(variant, tmp_path / "b")

    assert context.provenance["commit"] == head(clone)
    assert variant.key.get("source") == f"http://{private_server}"
    written = [path for path in (tmp_path / "b").rglob("*") if path.is_file()]
    assert (tmp_path / "b/log") in written
    assert not [path for path in written if b"ghp_secret" in path.read_bytes()]
    assert "ghp_secret" not in repr(context.provenance)


def test_a_wrong_token_is_not_shown(private_server: str) -> None:
    with pytest.raises(SourceUnavailable) as caught:
        resolve(f"http://me:ghp_wrong@{private_server}", "master", Runner())
    assert "ghp_wrong" not in str(caught.value) + repr(caught.value.__cause__)
