"""Artifacts that are not the exact one and provably run here. For `cache` and `survey`.

Candidates are those whose keys differ in nothing but the fields in which
interchangeable artifacts may differ; whether one runs is `compat`'s to say,
from what its binaries need.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal, NamedTuple

from .compat import AFTER_JIT, NO, RUNS, ArtifactFacts, Verdict, verdict
from .errors import ArtcacheError, Corrupt, StoreUnavailable
from .key import Key, shown
from .repository import Found, siblings_folder
from .spelling import build_command

if TYPE_CHECKING:
    from .cache import Cache, Tier
    from .home import Entry
    from .manifest import Manifest
    from .recipe import Request
    from .toolchain import HostFacts

Match = Literal["exact", "compatible", "jit"]


class Candidate(NamedTuple):
    """An artifact that runs here, and where it is: an entry of the home, or in a store."""

    manifest: Manifest
    verdict: Verdict
    entry: Entry | None = None
    tier: Tier | None = None
    found: Found | None = None

    def note(self, request: Request) -> str:
        """That it is taken in place of what was asked for, and how to get that."""
        key = self.manifest.key
        made = [shown(key.get("libc"))]
        if key.get("arch") not in (None, "none"):
            made = [shown(key.get("arch")), f"CUDA {shown(key.get('cuda'))}", *made]
        return (
            f"no exact {key.recipe} is cached: taking {key.hash[:12]}, built for"
            f" {', '.join(made)} ({'; '.join(self.verdict.reasons)});"
            f" `{build_command(key.recipe, request)}` makes the exact one"
        )


def judge(manifest: Manifest, host: HostFacts) -> Verdict:
    """Whether an artifact runs on a host, from its binaries' needs."""
    key = manifest.key
    cuda, platform = key.get("cuda"), key.get("platform")
    facts = ArtifactFacts(
        manifest.needs,
        cuda if isinstance(cuda, str) else "none",
        platform if isinstance(platform, str) else "",
    )
    return verdict(facts, host)


def best(cache: Cache, key: Key, match: Match) -> Candidate | None:
    """The best artifact that runs here in place of `key`'s: no JIT before JIT, then the
    fewest differing fields, then the newest CUDA and architecture; the home before stores."""
    outcomes = {RUNS, AFTER_JIT} if match == "jit" else {RUNS}
    found = [
        candidate for candidate in _candidates(cache, key) if candidate.verdict.outcome in outcomes
    ]
    return max(found, key=lambda candidate: _rank(candidate, key), default=None)


def _rank(candidate: Candidate, key: Key) -> tuple[object, ...]:
    other = candidate.manifest.key
    return (
        candidate.verdict.outcome == RUNS,
        -len(key.differences(other)),
        _numbers(shown(other.get("cuda"))),
        _numbers(shown(other.get("arch"))),
        candidate.entry is not None,
    )


def _numbers(text: str) -> tuple[int, ...]:
    import re

    return tuple(int(word) for word in re.findall(r"\d+", text))


def _candidates(cache: Cache, key: Key) -> Iterator[Candidate]:
    base = siblings_folder(key)
    for entry in cache.home.entries(key.recipe):
        if isinstance(entry, Corrupt) or siblings_folder(entry.key) != base or entry.key == key:
            continue
        try:
            manifest = entry.manifest()
        except Corrupt:
            continue
        judged = judge(manifest, cache.host)
        if judged.outcome != NO and (checked := cache.from_home(entry.key)):
            yield Candidate(manifest, judged, entry=checked)
    for tier in cache.readers():
        try:
            for sibling in tier.repository.siblings(key):
                if sibling != key and (found := tier.repository.find(sibling)):
                    judged = judge(found.manifest, cache.host)
                    yield Candidate(found.manifest, judged, tier=tier, found=found)
        except StoreUnavailable as error:
            cache.give_up(tier, error)
        except ArtcacheError as error:
            cache.observer.warn(str(error))
