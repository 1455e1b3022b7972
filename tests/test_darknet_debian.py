"""Debian's source package: whose mirror, whose tarball, and what if there is none."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
from darknet_fixtures import CPU_HOST, build, debian_tarball, only_variant

from artcache.errors import CommandFailed, RefNotFound, SourceUnavailable
from artcache.process import Runner
from artcache.recipe import Request
from darknet_recipe import debian
from darknet_recipe.debian import source_entries, upstream_tarball
from darknet_recipe.flavours import DEBIAN, DebianPackage

DEB822 = """\
# the mirror
Types: deb
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/security
Suites: bookworm-security
Components: main

Types: deb
Enabled: no
URIs: http://mirror.example/off
Suites: bookworm
Components: main
"""
KEYED = """\
Types: deb
URIs: http://mirror.example/ubuntu
Suites: jammy
Components: universe
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 abc
"""
ONE_LINE = """\
# deb http://mirror.example/comment jammy main
deb http://mirror.example/ubuntu jammy main restricted universe # the mirror
deb http://mirror.example/ubuntu jammy-security main
deb [arch=amd64 signed-by=/k.gpg] https://other.example/repo jammy main
deb https://cuda.example/repo /
deb-src http://mirror.example/already jammy main
"""


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    folder = tmp_path / "etc"
    (folder / "sources.list.d").mkdir(parents=True)
    return folder


def test_deb822_stanzas_become_sources_of_source_packages(etc: Path) -> None:
    (etc / "sources.list.d/debian.sources").write_text(DEB822)
    (etc / "sources.list.d/ubuntu.sources").write_text(KEYED)
    (etc / "sources.list.d/other.sources.disabled").write_text(DEB822)

    assert list(source_entries(etc)) == [
        "Types: deb-src\nUris: http://mirror.example/debian\nSuites: bookworm\n"
        "Components: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n",
        "Types: deb-src\nUris: http://mirror.example/ubuntu\nSuites: jammy\n"
        "Components: universe\nSigned-By: \n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n abc\n",
    ]


def test_one_line_entries_become_sources_of_source_packages(etc: Path) -> None:
    (etc / "sources.list").write_text(ONE_LINE)

    assert list(source_entries(etc)) == [
        "deb-src http://mirror.example/ubuntu jammy main universe\n",
        "deb-src [arch=amd64 signed-by=/k.gpg] https://other.example/repo jammy main\n",
    ]


def test_a_machine_without_debians_folders_has_no_entries(tmp_path: Path) -> None:
    assert list(source_entries(tmp_path / "nowhere")) == []


# -- apt -----------------------------------------------------------------------------------


PACKAGE = DebianPackage("darknet", hashlib.sha256(b"the tarball").hexdigest())


class FakeApt(Runner):
    """Stands for a mirror: `source` puts a tarball into the current folder."""

    def __init__(self, content: bytes | None) -> None:
        super().__init__()
        self.content = content
        self.calls: list[list[str]] = []

    def run(self, argv, *, cwd=None, **others):  # type: ignore[no-untyped-def,override]
        words = [str(word) for word in argv]
        self.calls.append(words)
        lists = next(w.partition("=")[2] for w in words if "Dir::State::lists" in w)
        if "update" in words:
            (Path(lists) / "mirror_main_source_Sources").touch()
        if "source" in words:
            if self.content is None:
                raise CommandFailed("`apt-get` failed", tail=["E: no such package"])
            (cwd / "darknet_0.orig.tar.xz").write_bytes(self.content)
        return ""


@pytest.fixture
def apt(etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folders `scratch` and `downloads`, a configured mirror, and some `apt-get`."""
    (etc / "sources.list.d/debian.sources").write_text(DEB822)
    monkeypatch.setattr(debian, "ETC_APT", etc)
    monkeypatch.setattr(debian, "require_tool", lambda name: name)
    (tmp_path / "scratch").mkdir()
    return tmp_path


def obtained(folder: Path, runner: Runner) -> Path:
    return upstream_tarball(runner, PACKAGE, folder / "scratch", folder / "downloads")


def test_the_tarball_is_kept_and_not_fetched_again(apt: Path) -> None:
    path = obtained(apt, FakeApt(b"the tarball"))
    again = FakeApt(None)

    assert path.parent == apt / "downloads"
    assert obtained(apt, again) == path
    assert again.calls == []
    path.write_bytes(b"damaged since")
    (apt / "scratch").rename(apt / "old")
    (apt / "scratch").mkdir()
    assert obtained(apt, FakeApt(b"the tarball")).read_bytes() == b"the tarball"


def test_apt_is_kept_away_from_its_own_state(apt: Path) -> None:
    runner = FakeApt(b"the tarball")
    obtained(apt, runner)
    for words in runner.calls:
        for name in ("SourceList", "SourceParts"):
            assert any(f"Dir::Etc::{name}={apt}" in word for word in words)
        assert f"-oDir::State::lists={apt / 'scratch/lists'}" in words
        assert f"-oDir::Cache={apt / 'scratch/cache'}" in words


@pytest.mark.parametrize(
    ("content", "why"), [(None, "E: no such package"), (b"another tarball", "another version")]
)
def test_no_such_package_or_another_version(apt: Path, content: bytes | None, why: str) -> None:
    with pytest.raises(SourceUnavailable, match=f"Debian's source package darknet .*{why}"):
        obtained(apt, FakeApt(content))
    assert not (apt / "downloads").exists()


def test_a_machine_without_apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(SourceUnavailable, match="`apt-get` is not on this machine"):
        obtained(tmp_path, Runner())


def test_a_mirror_that_does_not_answer(
    etc: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not shutil.which("apt-get"):
        pytest.skip("no apt-get on this machine")
    (etc / "sources.list").write_text("deb http://127.0.0.1:9/debian stable main\n")
    monkeypatch.setattr(debian, "ETC_APT", etc)
    (tmp_path / "scratch").mkdir()
    with pytest.raises(SourceUnavailable, match="no mirror gave its list"):
        obtained(tmp_path, Runner())


def test_a_machine_without_mirrors(apt: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(debian, "ETC_APT", apt / "nowhere")
    with pytest.raises(SourceUnavailable, match="no source of packages is configured"):
        obtained(apt, FakeApt(b"the tarball"))


def test_a_downloads_folder_that_cannot_be_written(apt: Path) -> None:
    (apt / "downloads").write_text("a file in the way")

    assert obtained(apt, FakeApt(b"the tarball")).read_bytes() == b"the tarball"


def test_the_package_has_one_commit() -> None:
    assert only_variant(Request(source="debian", ref=DEBIAN.commit)).plan.source.kind == "debian"
    with pytest.raises(RefNotFound) as caught:
        only_variant(Request(source="debian", ref="master"))
    assert "--source pjreddie --ref master" in caught.value.hint


@pytest.mark.real
def test_the_real_package(tmp_path: Path) -> None:
    """From the machine's own mirror; the tree and its licences are pjreddie's."""
    assert hashlib.sha256(debian_tarball().read_bytes()).hexdigest() == DEBIAN.package.sha256
    context = build(only_variant(Request(source="debian")), tmp_path / "b", CPU_HOST)

    assert (context.tree / "LICENSE.mit").is_file()
    assert context.provenance["commit"] == DEBIAN.commit
