"""Where settings come from, which wins, and what a mistake in a file is told."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from artcache import config
from artcache.errors import BadConfig, UsageError
from artcache.store import StoreSpec
from tests.world import as_nobody, public_folder


@pytest.fixture
def project(isolated: Path) -> Path:
    """The project's file, in the working folder."""
    return isolated / "work" / "artcache.toml"


@pytest.fixture
def user(isolated: Path) -> Path:
    """The user's file."""
    (isolated / "config" / "artcache").mkdir(parents=True)
    return isolated / "config" / "artcache" / "config.toml"


# -- defaults -----------------------------------------------------------------------------


def test_without_any_setting_there_is_a_home_and_no_store(isolated: Path) -> None:
    found = config.load()
    assert found[:4] == (isolated / "cache" / "artcache", (), False, "ignore")
    assert set(found.origins.values()) == {"default"}


@pytest.mark.parametrize("relative", ["cache", "./cache", ""])
@pytest.mark.parametrize("name", ["XDG_CACHE_HOME", "XDG_CONFIG_HOME"])
def test_a_relative_xdg_folder_is_ignored(isolated: Path, name: str, relative: str) -> None:
    (isolated / ".config" / "artcache").mkdir(parents=True)
    (isolated / ".config" / "artcache" / "config.toml").write_text('stores = ["/mnt/c"]')
    found = config.load({"HOME": str(isolated), name: relative})
    assert found.home == isolated / ".cache" / "artcache"
    assert found.stores == (StoreSpec("/mnt/c"),)


def test_a_working_folder_that_was_removed_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    os.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert config.load().stores == ()


# -- files --------------------------------------------------------------------------------


def test_a_project_s_file_is_read_from_the_nearest_folder_above(project: Path) -> None:
    below = project.parent / "a" / "b"
    below.mkdir(parents=True)
    project.write_text('dir = "here"\nstores = ["one", "read:/mnt/two", "gs://bucket/three"]')

    found = config.load(cwd=str(below))

    assert found.home == project.parent / "here"
    assert found.origins["dir"] == found.origins["stores"] == str(project)
    assert found.stores == (
        StoreSpec(str(project.parent / "one")),
        StoreSpec("/mnt/two", "read"),
        StoreSpec("gs://bucket/three"),
    )
    (below / "artcache.toml").write_text('dir = "nearer"')
    assert config.load(cwd=str(below)).home == below / "nearer"


@pytest.mark.parametrize("cwd", ["/", "/srv", "/srv/a/b"])
def test_the_search_goes_up_to_the_root(cwd: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "_ours", lambda path: path == "/artcache.toml")
    assert config.files({"HOME": "/home/me"}, cwd) == ["/artcache.toml"]


def test_the_table_form_has_a_mode(project: Path) -> None:
    project.write_text(
        '[[stores]]\nurl = "/mnt/a"\nmode = "read"\n[[stores]]\nurl = "write:/mnt/b"\n'
    )
    assert config.load().stores == (StoreSpec("/mnt/a", "read"), StoreSpec("/mnt/b", "write"))


def test_a_tilde_in_a_file_is_the_home(project: Path, isolated: Path) -> None:
    project.write_text('dir = "~/d"\nstores = ["~/s"]')
    found = config.load()
    assert (found.home, found.stores) == (isolated / "d", (StoreSpec(str(isolated / "s")),))


@pytest.fixture
def public() -> Iterator[Path]:
    with public_folder() as folder:
        yield folder


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file to somebody else")
def test_a_project_file_that_somebody_else_owns_is_left_out(public: Path) -> None:
    file = public / "artcache.toml"
    file.write_text('stores = ["/evil"]')
    os.chown(file, 1234, 1234)
    assert config.load(cwd=str(public)).stores == ()
    assert as_nobody(lambda: config.load(cwd=str(public)).stores) == ()
    os.chown(file, 0, 0)
    assert as_nobody(lambda: len(config.load(cwd=str(public)).stores)) == 1


# -- precedence ---------------------------------------------------------------------------


def test_the_nearer_wins_setting_by_setting(
    project: Path, user: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user.write_text('dir = "/user"\nstores = ["/user/store"]')
    assert config.load()[:2] == (Path("/user"), (StoreSpec("/user/store"),))
    project.write_text('stores = ["/project/store"]')
    found = config.load()
    assert (found.origins["dir"], found.origins["stores"]) == (str(user), str(project))
    monkeypatch.setenv("ARTCACHE_DIR", "~/mine")
    monkeypatch.setenv("ARTCACHE_STORES", "/a, read:/b\nwrite:gs://c/d,\n")
    found = config.load()
    assert found.home == Path(os.environ["HOME"], "mine")
    assert found.stores == (
        StoreSpec("/a"),
        StoreSpec("/b", "read"),
        StoreSpec("gs://c/d", "write"),
    )
    assert (found.origins["dir"], found.origins["stores"]) == ("ARTCACHE_DIR", "ARTCACHE_STORES")


def test_an_empty_list_in_the_environment_means_no_store(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write_text('stores = ["/project"]')
    monkeypatch.setenv("ARTCACHE_STORES", "")
    assert config.load().stores == ()
    monkeypatch.setenv("ARTCACHE_DIR", "")
    assert config.load().origins["dir"] == "default"


def test_a_relative_home_in_the_environment_is_relative_to_the_working_folder(
    monkeypatch: pytest.MonkeyPatch, isolated: Path
) -> None:
    monkeypatch.setenv("ARTCACHE_DIR", "here")
    assert config.load().home == isolated / "work" / "here"


def test_a_store_in_the_environment_that_is_none_is_a_mistake_of_usage(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ARTCACHE_STORES", "/a,read:")
    with pytest.raises(UsageError, match="names no store"):
        config.load()


# -- mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("dir = \n", "line 1", "correct it"),
        ('store = ["/a"]', "no setting store", "did you mean stores?"),
        ('home = "/a"', "no setting home", "known: dir, stores"),
        ("dir = 5", "dir must be a string", ""),
        ('stores = "/a"', "stores must be a list", 'stores = ["/mnt/cache"]'),
        ("stores = [5]", "needs a url", "url = "),
        ('stores = [{mode = "read"}]', "needs a url", "url = "),
        ('stores = [{url = ""}]', "names no store", ""),
        ('stores = [{url = "/a", mode = "append"}]', "'append'", ""),
        ('stores = [{url = "/a", moed = "read"}]', "no setting stores.moed", "stores.mode?"),
    ],
)
def test_a_mistake_is_told_with_its_file_and_a_hint(
    project: Path, text: str, message: str, hint: str
) -> None:
    project.write_text(text)
    with pytest.raises(BadConfig) as refused:
        config.load()
    assert str(refused.value).startswith(f"{project}: ")
    assert message in str(refused.value)
    assert hint in refused.value.hint


@pytest.mark.parametrize("data", [b"\xff\xfe", b"dir = \x00"])
def test_a_file_that_is_no_text_is_told(project: Path, data: bytes) -> None:
    project.write_bytes(data)
    with pytest.raises(BadConfig, match=str(project)):
        config.load()


def test_a_folder_in_place_of_the_file_is_told(project: Path) -> None:
    project.mkdir()
    with pytest.raises(BadConfig, match="directory"):
        config.load()


def test_compression_is_set_by_a_file_and_by_the_environment(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert config.load().compression == "default"
    project.write_text('compression = "small"')
    assert config.load().compression == "small"
    monkeypatch.setenv("ARTCACHE_COMPRESSION", "fast")
    assert config.load().compression == "fast"


@pytest.mark.parametrize(
    ("words", "seconds"), [("90", 90), ('"90s"', 90), ('"2min"', 120), ("1.5", 1.5), ("0", 0)]
)
def test_the_time_for_stores_is_seconds_or_has_a_unit(
    project: Path, monkeypatch: pytest.MonkeyPatch, words: str, seconds: float
) -> None:
    assert config.load().timeout == 0
    project.write_text(f"timeout = {words}")
    assert config.load().timeout == seconds
    project.write_text("timeout = 7")
    monkeypatch.setenv("ARTCACHE_TIMEOUT", words.strip('"'))
    assert config.load().timeout == seconds


@pytest.mark.parametrize("word", ["soon", "2m", "-1", "nan", "inf"])
def test_a_time_for_stores_that_is_none_is_refused(
    monkeypatch: pytest.MonkeyPatch, word: str
) -> None:
    monkeypatch.setenv("ARTCACHE_TIMEOUT", word)
    with pytest.raises(UsageError, match=f"ARTCACHE_TIMEOUT is '{word}'"):
        config.load()


# -- filling stores and the write policy ---------------------------------------------------


def test_a_store_may_say_for_itself_whether_it_is_filled(project: Path) -> None:
    project.write_text(
        'backfill = true\nwrite_policy = "first"\n'
        '[[stores]]\nurl = "/a"\n[[stores]]\nurl = "/b"\nbackfill = false\n'
    )
    found = config.load()
    assert (found.backfill, found.write_policy) == (True, "first")
    assert [store.backfill for store in found.stores] == [None, False]
    assert found.origins["write_policy"] == str(project)


@pytest.mark.parametrize(("word", "meant"), [("1", True), ("yes", True), ("0", False), ("", False)])
def test_the_environment_decides_for_every_store(
    project: Path, monkeypatch: pytest.MonkeyPatch, word: str, meant: bool
) -> None:
    project.write_text('[[stores]]\nurl = "/a"\nbackfill = true\n')
    monkeypatch.setenv("ARTCACHE_BACKFILL", word)
    found = config.load()
    assert (found.backfill, found.stores[0].backfill) == (meant, None)
    assert found.origins["backfill"] == "ARTCACHE_BACKFILL"


@pytest.mark.parametrize(
    ("name", "word"),
    [
        ("ARTCACHE_BACKFILL", "maybe"),
        ("ARTCACHE_WRITE_POLICY", "l0"),
        ("ARTCACHE_RACE", "2"),
        ("ARTCACHE_COMPRESSION", "9"),
    ],
)
def test_a_word_in_the_environment_that_means_nothing_is_refused(
    monkeypatch: pytest.MonkeyPatch, name: str, word: str
) -> None:
    monkeypatch.setenv(name, word)
    with pytest.raises(UsageError, match=f"{name} is '{word}'"):
        config.load()


@pytest.mark.parametrize(
    "line",
    [
        'race = "yes"',
        'write_policy = "l0"',
        "compression = 9",
        "timeout = true",
        'timeout = "soon"',
        'backfill = "yes"',
        '[[stores]]\nurl = "/a"\nbackfill = 1',
    ],
)
def test_a_value_in_a_file_that_means_nothing_is_refused(project: Path, line: str) -> None:
    project.write_text(line)
    with pytest.raises(BadConfig, match=r"(write_policy|compression|backfill|race|timeout) is"):
        config.load()
