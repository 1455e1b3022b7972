"""One build: scratch, log, smoke test, scan, pack, the home, publishing. For `cache` only."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import __version__, binary, pack, share
from .cache import Cache, Fetched
from .disk import disk_errors
from .errors import ArtcacheError, BuildFailed, EmptyBuild
from .manifest import File, Manifest
from .process import Runner
from .publish import Targets, compression_for, note_rate
from .recipe import BuildContext, Recipe, SmokeContext, Variant
from .repository import Published
from .restore import restore
from .tree import Scan, digest_files, scan
from .turns import held, turn

if TYPE_CHECKING:
    from .compression import Compression
    from .home import Entry
    from .key import Key
    from .needs import Needs


@dataclass(slots=True)
class Built:
    """What a build made, and what became of it."""

    fetched: Fetched
    log: Path | None = None
    published: list[Published] = field(default_factory=list)
    differing: dict[str, list[str]] = field(default_factory=dict)
    """Where the key was there already (`home` or a store's URL): the paths whose
    bytes differ from what this build made, in the home with the differing sections
    of programs and libraries; an empty list means equal."""
    unpublished: dict[str, str] = field(default_factory=dict)
    """Stores that should have it and did not take it, by URL, each with why."""


def build_variant(
    cache: Cache, recipe: Recipe, variant: Variant, *, reuse: bool, publish: bool = True
) -> Built:
    """Build one variant, put it into the home and publish it.

    Args:
        reuse: Take what appeared in the home while waiting for the lock.
        publish: Whether stores get it; a rebuild that only compares does without.

    Raises:
        BuildFailed: nothing was published; the log is kept.
        NotPublished: it is in the home, but not where the write policy asks for it; or
            that was clear before the build.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        stack.enter_context(cache.home.lock(variant.key, waiting=cache.waiting))
        if reuse and (entry := cache.from_home(variant.key)):
            return Built(Fetched(entry, origin="home", seconds=time.perf_counter() - start))
        job = _Job(cache, recipe, variant, stack)
        targets = Targets(cache, recipe, publish=publish)
        if reuse and (made := stack.enter_context(turn(cache, variant.key, targets.all))):
            entry, seconds = restore(cache, *made), time.perf_counter() - start
            return Built(Fetched(entry, origin=made.tier.url, seconds=seconds))
        if not reuse:
            stack.enter_context(held(cache, [variant.key], targets.all))
        targets.probe()
        _run([job], recipe.build_group)
        built = job.finish(start, targets)
    targets.demand([built])
    return built


def build_rival(
    cache: Cache,
    recipe: Recipe,
    variant: Variant,
    *,
    claim: Callable[[], object],
    running: Callable[[Runner], object],
    publish: Callable[[], bool],
) -> Built:
    """Build what somebody else is bringing at the same time, and who has the entry's lock.

    Args:
        claim: Called before the tree enters the home; raises `Stopped` if it is late.
        running: Gets the runner, with which the build can be stopped.
        publish: Says, when it is built, whether stores get it.

    Raises:
        BuildFailed, Stopped.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        job = _Job(cache, recipe, variant, stack, running=running)
        _run([job], recipe.build_group)
        return job.finish(start, Targets(cache, recipe, publish=publish()), claim)


def build_group(cache: Cache, recipe: Recipe, variants: Sequence[Variant]) -> list[Built]:
    """Build variants that differ in their architectures only, with one compilation if it can be.

    Raises:
        BuildFailed: of one of them; none was published.
        NotPublished: as for one.
    """
    start = time.perf_counter()
    with ExitStack() as stack:
        for variant in sorted(variants, key=lambda one: one.key.hash):  # one order: no deadlock
            stack.enter_context(cache.home.lock(variant.key, waiting=cache.waiting))
        jobs = [_Job(cache, recipe, variant, stack) for variant in variants]
        targets = Targets(cache, recipe)
        keys = [variant.key for variant in variants]
        stack.enter_context(held(cache, keys, targets.all))
        targets.probe()
        _run(jobs, recipe.build_group)
        builts = [job.finish(start, targets) for job in jobs]
    targets.demand(builts)
    return builts


def _run(jobs: Sequence[_Job], build: Callable[[Sequence[BuildContext]], object]) -> None:
    """Build and smoke-test into each job's tree; what goes wrong stands in every log."""
    start = time.perf_counter()
    with ExitStack() as stack:
        for job in jobs:
            stack.enter_context(job.logged())
        observer = jobs[0].observer
        observer.phase("build", ", ".join(f"{job.key.recipe} {job.key.hash[:12]}" for job in jobs))
        for note in dict.fromkeys(job.variant.note for job in jobs if job.variant.note):
            observer.note(note)
        build([job.context() for job in jobs])
        for job in jobs:
            job.smoke()
    for job in jobs:
        job.provenance["milliseconds"] = round((time.perf_counter() - start) * 1000 / len(jobs))


class _Job:
    """The steps of one artifact's build, in a staging folder."""

    def __init__(
        self,
        cache: Cache,
        recipe: Recipe,
        variant: Variant,
        stack: ExitStack,
        running: Callable[[Runner], object] = lambda runner: None,
    ) -> None:
        self._running = running
        self.cache, self.recipe, self.variant = cache, recipe, variant
        self.key = variant.key
        self.observer = cache.observer
        self.staging = stack.enter_context(cache.home.staging())
        stack.enter_context(disk_errors(cache.home.root, doing="build"))
        self.entry_folder = self.staging / "entry"
        self.tree = self.entry_folder / "tree"
        self.tree.mkdir(parents=True)
        self.log = cache.home.new_log(self.key)
        self.provenance: dict[str, Any] = {}

    @contextmanager
    def logged(self) -> Iterator[None]:
        """The job's log, open; an error inside is written into it."""
        with self.log.open("wb", buffering=0) as log:
            self.runner = Runner(log=log, log_path=str(self.log), on_line=self.observer.line)
            self._running(self.runner)
            try:
                yield
            except ArtcacheError as error:
                log.write(f"artcache: {error}\n".encode())
                raise
            except Exception as error:  # a recipe's own mistake must not look like ours
                log.write(f"artcache: {error!r}\n".encode())
                raise BuildFailed(
                    f"the recipe {self.recipe.name} failed with {type(error).__name__}: {error}",
                    hint=f"the whole log: {self.log}; --debug shows where",
                ) from error

    def context(self) -> BuildContext:
        downloads = self.cache.home.folder("downloads")
        downloads.mkdir(parents=True, exist_ok=True)
        return BuildContext(
            key=self.key,
            plan=self.variant.plan,
            host=self.cache.host,
            scratch=self._scratch("build"),
            tree=self.tree,
            downloads=downloads,
            jobs=len(os.sched_getaffinity(0)),
            runner=self.runner,
            phase=self.observer.phase,
            say=self.observer.note,
            fetch=lambda recipe, request: self.cache.fetch(recipe, request).path,
            provenance=self.provenance,
        )

    def smoke(self) -> None:
        """Look at what the build left, and run it a little. Raises `BuildFailed`."""
        self.observer.phase("smoke test", self.key.recipe)
        self.found = scan(self.tree)
        if not self.found.files and not self.found.links:
            raise EmptyBuild(
                f"the build of {self.key.recipe} left no file", hint=f"the whole log: {self.log}"
            )
        for path, mode, _ in self.found.files:
            (self.tree / path).chmod(mode)
        self.recipe.smoke(
            SmokeContext(
                key=self.key,
                plan=self.variant.plan,
                host=self.cache.host,
                tree=self.tree,
                scratch=self._scratch("smoke"),
                runner=self.runner,
            )
        )
        if scan(self.tree) != self.found:
            raise BuildFailed("the smoke test changed the tree that it tested")

    def _scratch(self, name: str) -> Path:
        folder = self.staging / name
        folder.mkdir()
        return folder

    def finish(
        self, start: float, targets: Targets, claim: Callable[[], object] = lambda: None
    ) -> Built:
        """Describe, keep and publish what `run` made.

        Args:
            claim: Called before the tree enters the home.
        """
        self.observer.phase("pack", f"{len(self.found.files)} files")
        pack_file = self.staging / "pack"
        if targets.all:
            manifest = self._packed(pack_file, compression_for(self.cache, targets.all))
        else:
            manifest = self._manifest(digest_files(self.tree, self.found), self.found)
        differing: dict[str, list[str]] = {}
        claim()
        before = self.cache.from_home(self.key)
        if before:
            differing["home"] = [
                _with_sections(path, before.path, self.tree)
                for path in compare(before.manifest().files, manifest.files)
            ]
        entry = before or self._keep(manifest)
        published, unpublished = self._publish(targets, manifest, pack_file)
        for done in published:
            if not done.first:
                differing[done.url] = compare(done.winner.files, manifest.files)
        seconds = time.perf_counter() - start
        fetched = Fetched(entry, origin="built", seconds=seconds, note=self.variant.note)
        return Built(fetched, self.log, published, differing, unpublished)

    def _keep(self, manifest: Manifest) -> Entry:
        return self.cache.home.commit(self.entry_folder, manifest, "built")

    def _packed(self, pack_file: Path, compression: Compression) -> Manifest:
        total = sum(size for _, _, size in self.found.files)
        done = 0

        def progress(count: int) -> None:
            nonlocal done
            done += count
            self.observer.progress(done, total)

        with pack_file.open("wb") as out:
            packed = pack.write(
                self.tree,
                self.found,
                out,
                compression=compression,
                progress=progress,
            )
        base = self._manifest(packed.files, self.found)
        if not packed.frames:
            return base
        return Manifest(
            base.key, base.files, base.links, base.dirs, (packed.pack,), packed.frames,
            base.needs, base.provenance,
        )  # fmt: skip

    def _manifest(self, files: tuple[File, ...], found: Scan) -> Manifest:
        from .digest import blake3

        host = self.cache.host
        provenance = {
            **self.provenance,
            "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "artcache": __version__,
            "builder": {
                "platform": host.platform,
                "libc": host.libc,
                "gpus": [gpu.name for gpu in host.gpus],
                "driver": host.driver or "",
                "service": host.service,
            },
            "log": blake3(self.log.read_bytes()),
        }
        needs = binary.scan_tree(self.tree, [file.path for file in files])
        _prove(self.key, needs)
        return Manifest(self.key, files, found.links, found.dirs, (), (), needs, provenance)

    def _publish(
        self, targets: Targets, manifest: Manifest, pack_file: Path
    ) -> tuple[list[Published], dict[str, str]]:
        """A publish that fails is one warning: the build was good. Returns who took it,
        and why the others did not."""
        published, unpublished = [], {}
        for tier in targets.all:
            self.observer.phase("publish", f"to {tier.url}")
            try:
                published.append(share.publish(tier.repository, manifest, pack_file))
                tier.down = False
                note_rate(self.cache, tier)
                self.cache.tell_pending(tier.repository.store)
            except ArtcacheError as error:
                targets.give_up(tier, error)
                unpublished[tier.url] = str(error)
            finally:
                self.cache.tell_problems(tier)
        return published, unpublished


def _with_sections(path: str, one: Path, other: Path) -> str:
    """A differing path and, of a program or library, the sections that differ."""
    if not (one / path).is_file() or not (other / path).is_file():
        return path
    sections = binary.differing_sections(one / path, other / path)
    return f"{path} ({' '.join(sections)})" if sections else path


def _prove(key: Key, needs: Needs) -> None:
    """What was asked of the compiler must be in the binary. Raises `BuildFailed`."""
    asked = key.get("arch")
    if not isinstance(asked, tuple) or key.get("cuda") in (None, "none"):
        return
    found = {*needs.sass, *needs.ptx}
    if missing := [arch for arch in asked if arch not in found]:
        has = ", ".join(sorted(found)) or "no GPU code"
        raise BuildFailed(
            f"asked {', '.join(missing)}, the binary has {has}",
            hint="a Makefile that ignores its ARCH, or objects of an earlier build",
        )


def compare(ours: tuple[File, ...], theirs: tuple[File, ...]) -> list[str]:
    """The paths in which two trees' files differ, sorted."""
    left, right = ({file.path: file for file in files} for files in (ours, theirs))
    return sorted(path for path in left.keys() | right.keys() if left.get(path) != right.get(path))
