"""The darknet sources that this recipe knows by name.

Pure. Each has a pinned commit, so its key needs no network. What is known of a
fork's Makefile and of the repairs that its code needs holds for that commit.
(Named tuples, here and next door: a data class takes a millisecond to make, on every hit.)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from .options import MEANINGS
from .patches import ALL, CUDNN_8, PORTABLE, Patch

EVERY_OPTION = frozenset(MEANINGS)


class DebianPackage(NamedTuple):
    """A source package, of which only the upstream tarball is used."""

    name: str
    sha256: str
    """Of the upstream tarball."""


class Flavour(NamedTuple):
    """One source of darknet."""

    name: str
    """What users write after `--source`."""
    url: str
    """In the one spelling that keys use."""
    commit: str
    """The commit that is built unless the user asks for another."""
    options: frozenset[str] = EVERY_OPTION
    """What its Makefile can do."""
    patches: tuple[Patch, ...] = ALL
    """The repairs that `commit` needs, each under its own condition."""
    package: DebianPackage | None = None
    """Where the tree comes from, if not from `url`."""
    cmake: bool = False
    """Built by CMake, not by its Makefile."""
    always: frozenset[str] = frozenset()
    """Options that it cannot be built without."""
    also_at: str = ""
    """A second home of the same repository, spelled as `url`."""
    version: str = ""
    """What `git describe --tags` says of `commit`, without the commit; for CMake."""

    def patches_at(self, commit: str) -> tuple[Patch, ...]:
        """At an unknown commit, all of them: one that is not needed changes nothing."""
        return self.patches if self.cmake or commit == self.commit else ALL

    @property
    def urls(self) -> tuple[str, ...]:
        return (self.url, self.also_at) if self.also_at else (self.url,)

    def version_at(self, commit: str) -> str:
        """In the words of `git describe --long`; of an unknown commit only that is true."""
        known = self.version if self.version and commit == self.commit else "v0.0-0"
        return f"{known}-g{commit[:8]}"


ALEXEYAB = Flavour(
    name="alexeyab",
    url="https://github.com/AlexeyAB/darknet",
    commit="59596d7880f6504768df41d6daa586f5cb2b932f",
    patches=(),
)
# pjreddie's Makefile always makes libdarknet.so, so LIBSO works without a switch of its own.
_PJREDDIE_OPTIONS = EVERY_OPTION - {"AVX", "CUDNN_HALF"}
PJREDDIE = Flavour(
    name="pjreddie",
    url="https://github.com/pjreddie/darknet",
    commit="f6afaabcdf85f77e7aff2ec55c020c0e297c77f9",
    options=_PJREDDIE_OPTIONS,
)
COLAB = Flavour(
    name="colab",
    url="https://github.com/kriyeng/darknet",
    commit="b81d49fe53bb0e52814fd90d9c94035278aeae00",  # of the branch feature/google-colab
    patches=(CUDNN_8,),
)
DEBIAN = Flavour(
    name="debian",
    url=PJREDDIE.url,  # the tarball holds that commit's tree, byte for byte: one key for both
    commit="61c9d02ec461e30d55762ec7669d6a1d3c356fb2",
    options=_PJREDDIE_OPTIONS,
    package=DebianPackage(
        name="darknet",
        sha256="ec536ae11853846aab96183d8ec18730a46cce71f7d935768d235029329f9e93",
    ),
)
HANK_AI = Flavour(
    name="hank-ai",
    url="https://github.com/hank-ai/darknet",
    commit="f684e1d75d4594298c8e73acc727ba6cf2e81c60",
    # With cuDNN it always uses half precision where the GPU can.
    options=EVERY_OPTION - {"CUDNN_HALF"},
    patches=(PORTABLE,),
    cmake=True,
    always=frozenset({"OPENCV"}),
    also_at="https://codeberg.org/CCodeRun/darknet",
    version="v5.1-104",
)
UNKNOWN = Flavour(name="", url="", commit="")
"""A fork of the user's own: its Makefile is looked at when it is there."""

BY_NAME: Mapping[str, Flavour] = {
    **{flavour.name: flavour for flavour in (ALEXEYAB, PJREDDIE, COLAB, DEBIAN, HANK_AI)},
    "upstream": ALEXEYAB,
}


def by_url(canonical: str) -> Flavour:
    """The flavour of that URL; `UNKNOWN` if there is none."""
    for flavour in (ALEXEYAB, PJREDDIE, COLAB, HANK_AI):
        # GitHub's owners and repositories are the same in any case.
        if canonical.lower() in map(str.lower, flavour.urls):
            return flavour
    return UNKNOWN


def by_commit(commit: str) -> Flavour:
    """The flavour that is pinned at that commit, wherever it was found; `UNKNOWN` if none.

    A commit id names its tree, so a mirror or a fork has the same bytes there.
    """
    return next((f for f in BY_NAME.values() if f.commit == commit), UNKNOWN)


def having(option: str) -> str:
    """The names of the flavours that have an option, for a message."""
    return ", ".join(sorted(f.name for f in {*BY_NAME.values()} if option in f.options))
