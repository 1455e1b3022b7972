"""Any story of installs, upgrades, uninstalls and a meddling user, told on a real disk."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from install_trees import QUICK, Desk, snapshot

from artcache.errors import Refused
from artcache.install import installed
from artcache.install.plan import parents

PATHS = ["a", "d", "d/a", "d/b", "d/e", "d/e/a", "f/a"]
OWNERS = ["one", "two"]

contents = st.sampled_from([b"1", b"2", "a", "b"])  # a text is a link to a sibling
trees = st.dictionaries(st.sampled_from(PATHS), contents, min_size=1).filter(
    lambda tree: not any(above in tree for path in tree for above in parents(path))
)
steps = st.one_of(
    st.tuples(st.just("install"), st.sampled_from(OWNERS), trees, st.booleans()),
    st.tuples(st.just("uninstall"), st.sampled_from(OWNERS)),
    st.tuples(st.just("write"), st.sampled_from(PATHS), st.booleans()),
    st.tuples(st.just("delete"), st.sampled_from(PATHS)),
)


class Story:
    """Plays steps and remembers what is the user's."""

    def __init__(self, base: Path) -> None:
        self.desk = Desk(base)
        self.desk.prefix.mkdir()
        self.mine: dict[str, bytes] = {}
        self.folders: set[str] = set()
        self.count = 0

    def install(self, owner: str, content: Mapping[str, bytes | str], overwrite: bool) -> None:
        self.count += 1
        tree = self.desk.tree(str(self.count), dict(content))
        before = snapshot(self.desk.prefix)
        try:
            kept = self.desk.install(tree, owner, overwrite=overwrite).kept
        except Refused:
            assert snapshot(self.desk.prefix) == before
            assert before
            return
        now = snapshot(self.desk.prefix)
        if overwrite:
            self.mine = {
                path: item
                for path, item in self.mine.items()
                if content.get(path, item) == item  # equal to ours: left in place, still theirs
            }
        for path, item in snapshot(tree.root).items():
            if item is not None and path not in kept:
                assert now[path] == item
        assert set(kept) <= self.mine.keys() | self.folders | self._of_others(owner)

    def uninstall(self, owner: str) -> None:
        if owner in installed(self.desk.prefix):
            assert set(self.desk.uninstall(owner).kept) <= self.mine.keys() | self.folders

    def _of_others(self, owner: str) -> set[str]:
        records = installed(self.desk.prefix).values()
        return {path for record in records if record.owner != owner for path in record.entries}

    def write(self, path: str, like_ours: bool) -> None:
        place = self.desk.prefix / path
        if place.is_dir() or any((self.desk.prefix / above).is_file() for above in parents(path)):
            return
        owned = {path for record in installed(self.desk.prefix).values() for path in record.entries}
        self.count += 1
        text = b"1" if like_ours and path not in owned else b"mine %d" % self.count
        for above in parents(path):
            if (self.desk.prefix / above).is_symlink():
                return
            self.folders.add(above)  # once it holds a file of the user's it may become theirs
        place.parent.mkdir(parents=True, exist_ok=True)
        place.unlink(missing_ok=True)
        place.write_bytes(text)
        self.mine[path] = text

    def delete(self, path: str) -> None:
        place = self.desk.prefix / path
        if place.is_symlink() or place.is_file():
            place.unlink()
            self.mine.pop(path, None)

    def check(self) -> None:
        now = snapshot(self.desk.prefix)
        assert {path: now.get(path, (None,))[0] for path in self.mine} == self.mine
        assert not self.desk.pending.exists()


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(steps, max_size=8))
def test_the_users_files_stay_and_at_the_end_only_they_are_left(plot):
    with tempfile.TemporaryDirectory(dir=QUICK) as base:
        story = Story(Path(base))
        for name, *arguments in plot:
            getattr(story, name)(*arguments)
            story.check()
        for owner in OWNERS:
            story.uninstall(owner)
        left = snapshot(story.desk.prefix)
        files = {path: item[0] for path, item in left.items() if isinstance(item, tuple)}
        assert files == story.mine
        above = {folder for path in story.mine for folder in parents(path)}
        assert left.keys() - files.keys() <= above | story.folders
        assert not (story.desk.prefix / ".artcache").exists()
