"""`Cache`: fetch, build and publish: the only room that knows the order of things.

It is given recipes, stores and a host's facts; it finds none of them itself.
A hit in the home touches nothing but the home, and imports nothing else.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from .errors import ArtcacheError, Corrupt, MissingTool, SourceUnavailable
from .events import Observer
from .fetched import BuildPolicy as BuildPolicy
from .fetched import Fetched as Fetched
from .fetched import Served as Served
from .fetched import Wish as Wish
from .home import Entry, Home
from .recipe import Recipe, Request, Variant
from .store import WritePolicy
from .tier import Tier as Tier

if TYPE_CHECKING:
    from .builder import Built
    from .compression import Choice
    from .fetched import Asked
    from .key import Key
    from .match import Match
    from .process import Runner
    from .store import Store
    from .toolchain import HostFacts


class Cache:
    """The explicit form: everything it works with is handed in."""

    def __init__(
        self,
        home: Home,
        tiers: Sequence[Tier],
        *,
        host: Callable[[], HostFacts],
        recipes: Callable[[str], Recipe],
        libraries: Callable[[Iterable[str]], set[str]],
        observer: Observer | None = None,
        backfill: bool = False,
        write_policy: WritePolicy = "ignore",
        race: bool = False,
        compression: Choice = "default",
    ) -> None:
        """Args:
        home: Where trees live on this machine.
        tiers: Stores, asked in this order after the home.
        host: The facts that decide the default variant; asked at most once.
        recipes: Finds a recipe by its name.
        libraries: Says which of some SONAMEs this machine's loader finds.
        observer: Told what happens.
        backfill: Whether a hit in a store is copied to those before it that may be
            written, where a tier does not say it for itself.
        write_policy: Which stores must have taken what was built: none, the `first`
            that may be written, or `all` of them.
        race: Whether a fetch that takes longer than the build did runs against a build.
        compression: How hard what is published is compressed.
        """
        self.home = home
        self.tiers = list(tiers)
        self.observer = observer or Observer()
        self._host: HostFacts | Callable[[], HostFacts] = host
        self._recipes = recipes
        self.libraries = libraries
        self.backfill = backfill
        self.write_policy = write_policy
        self.race = race
        self.compression = compression
        self._told_pending = False
        self._lock = threading.Lock()

    @property
    def host(self) -> HostFacts:
        with self._lock:
            if callable(self._host):
                self._host = self._host()
            return self._host

    def recipe(self, recipe: str | Recipe) -> Recipe:
        """Raises `UnknownRecipe`."""
        return self._recipes(recipe) if isinstance(recipe, str) else recipe

    def variants(self, recipe: str | Recipe, request: Request | None = None) -> list[Variant]:
        """What could serve the request, best first. Raises `UsageError`."""
        chosen, request = self.recipe(recipe), request or Request()
        chosen.check_options(request)
        return list(chosen.variants(self.host, request, cast("Runner", _LateRunner())))

    # -- fetch ----------------------------------------------------------------------------

    def fetch(
        self,
        recipe: str | Recipe,
        request: Request | None = None,
        *,
        build: BuildPolicy = "missing",
        match: Match = "compatible",
        verify: bool = False,
        backfill: bool | None = None,
        race: bool | None = None,
    ) -> Fetched:
        """The artifact's tree in the home: found there, restored from a store, or built.

        Args:
            match: What may be served: only the `exact` artifact, also a `compatible`
                one that provably runs here, or also one that needs a JIT first. A
                request that names architectures or a CUDA version is always exact.
            build: What to do on a miss: build it, or raise; `always` builds anyway.
            verify: On a hit in the home, read every byte against its digest.
            backfill: Copy a hit to the stores before the one that had it, or to none; a
                hit in the home to each that lacks it, from one that has it. None: as
                configured, and for a hit in the home to none.
            race: If fetching takes longer than the build did, build at the same time and
                keep what is ready first; unless `build` is `never`. None: as configured.

        Raises:
            CacheMiss: nobody has it and `build` is `never`.
            BuildFailed: it had to be built and that failed.
            NotPublished: it was built, or would be, and the write policy asks for it in a
                store that does not take it.
            LocalDisk: the home's disk is full or not ours.
        """
        wish = self.wish(
            recipe, request, build=build, match=match, verify=verify, backfill=backfill,
            race=self.race if race is None else race,
        )  # fmt: skip
        return self.hit(wish) or self.made(wish)

    def fetch_all(
        self,
        wanted: Iterable[Asked],
        *,
        build: BuildPolicy = "missing",
        match: Match = "compatible",
        verify: bool = False,
        backfill: bool | None = None,
    ) -> list[Fetched]:
        """Fetch several artifacts at once: what is cached comes in parallel, sharing the link
        and the memory; then what has to be built is built, one after the other.

        Args:
            wanted: Recipes or their names; `(recipe, request)` for other than the defaults.
            build, match, verify, backfill: As for `fetch`, for each of them.

        Returns:
            One result each, in the order of `wanted`.

        Raises:
            FetchesFailed: some failed, after all others came; `results` has those.
        """
        from .several import fetch_all

        wishes = {"build": build, "match": match, "verify": verify, "backfill": backfill}
        return fetch_all(self, wanted, **wishes)

    # -- its steps, which `several` takes too ----------------------------------------------

    def wish(
        self,
        recipe: str | Recipe,
        request: Request | None,
        *,
        build: BuildPolicy = "missing",
        match: Match = "compatible",
        verify: bool = False,
        backfill: bool | None = None,
        race: bool = False,
    ) -> Wish:
        """What would serve a fetch. Raises `UnknownRecipe`, `UsageError`."""
        start = time.perf_counter()
        recipe, request = self.recipe(recipe), request or Request()
        variants = self.variants(recipe, request)
        if request.archs or request.cuda or variants[0].exact:
            match = "exact"
        race = build != "never" and race
        return Wish(recipe, request, variants, build, match, verify, backfill, race, start)

    def hit(self, wish: Wish, *, at_hand: bool = False) -> Fetched | None:
        """What is cached; None: it has to be made.

        Args:
            at_hand: Only what is on this machine; no store is asked.
        """
        if wish.build == "always":
            return None
        if wish.variants[0].present:
            from .present import named

            return named(self, wish.variants[0])
        served = self._at_hand(wish) if at_hand else self._served(wish)
        if served is None:
            return None
        entry, origin, note = served
        self._remember(wish.variants, entry.key, note)
        if note:
            self.observer.note(note)
        if wish.backfill and origin == "home":
            from .restore import fill_others

            fill_others(self, wish.recipe, entry.key)
        self._supply(wish, entry)
        seconds = time.perf_counter() - wish.start
        return Fetched(entry, origin=origin, seconds=seconds, note=note)

    def made(self, wish: Wish) -> Fetched:
        """A miss is built; where this machine may or can not, others are told that it is wanted."""
        if wish.build == "always":
            return self.build_variants(wish.recipe, wish.variants, reuse=False).fetched
        if wish.build == "never":
            from .wanted import missed

            raise wish.newer[0] if wish.newer else missed(self, wish)
        try:
            built = self.build_variants(wish.recipe, wish.variants, reuse=True).fetched
        except MissingTool as error:
            from .wanted import leave

            error.hint = leave(self, wish, error.hint)
            raise
        self._remember(wish.variants, built.key, built.note)
        self._supply(wish, built.entry)
        return built

    def _remember(self, variants: list[Variant], served: Key, note: str) -> None:
        """What was served in place of the best variant, so that the next fetch asks nobody."""
        if served != variants[0].key:
            known = any(served == variant.key for variant in variants)
            self.home.memory.remember_alias(variants[0].key, served, note, stands_in=not known)

    def _supply(self, wish: Wish, entry: Entry) -> None:
        """See to the shared libraries of what will run here; not of what was made for others."""
        if wish.request.archs or not entry.lacks_libraries:
            return
        from .supply import supply

        for name in supply(self, wish.recipe, entry):
            self.observer.warn(f"{entry.key.recipe} needs {name}, which this machine lacks")

    def _at_hand(self, wish: Wish) -> Served | None:
        """The best variant in the home, or what was served in its place a while ago."""
        variant = wish.variants[0]
        if found := self.from_home(variant.key, verify=wish.verify):
            return found, "home", variant.note
        if alias := self.home.memory.alias(variant.key):
            other, note, stands_in = alias
            known = any(other == one.key for one in wish.variants)
            meant = wish.match != "exact" if stands_in else known
            if meant and (found := self.from_home(other, verify=wish.verify)):
                return found, "home", note
        return None

    def _served(self, wish: Wish) -> Served | None:
        """Each variant in the home and then the stores, best first; then what may stand in."""
        if served := self._at_hand(wish):
            return served
        for variant in wish.variants:
            if variant is not wish.variants[0] and (
                found := self.from_home(variant.key, verify=wish.verify)
            ):
                return found, "home", variant.note
            if self.readers():
                from .restore import from_stores

                if served := from_stores(self, wish, variant):
                    return served
        if wish.match == "exact":
            return None
        from .restore import stand_in

        return stand_in(self, wish)

    def from_home(self, key: Key, *, verify: bool = False) -> Entry | None:
        try:
            return self.home.lookup(key, verify=verify)
        except Corrupt as error:
            where = self.home.quarantine(key)
            self.observer.warn(f"{error}; it was moved to {where}")
            return None

    # -- build ----------------------------------------------------------------------------

    def build(
        self, recipe: str | Recipe, request: Request | None = None, *, publish: bool = True
    ) -> Built:
        """Build, whether or not it is cached; nothing that exists is replaced.

        It waits for no other machine that builds the same, but says so; machines that
        miss it meanwhile wait for this build.

        Args:
            publish: Whether stores get it.

        Raises:
            BuildFailed: one of its kinds.
        """
        return self.build_variants(
            self.recipe(recipe), self.variants(recipe, request), reuse=False, publish=publish
        )

    def build_all(self, recipe: str | Recipe, requests: Sequence[Request]) -> list[Built]:
        """Build for several architectures; the recipe may compile once for all of them."""
        from .builder import build_group

        if len(requests) == 1:
            return [self.build(recipe, requests[0])]
        choices = [self.variants(recipe, request) for request in requests]
        failures: list[SourceUnavailable] = []
        for variants in zip(*choices, strict=False):  # all of them from one source
            try:
                return build_group(self, self.recipe(recipe), variants)
            except SourceUnavailable as error:
                failures.append(error)
        raise failures[0]

    def rebuild(self, recipe: str | Recipe, request: Request | None = None) -> Built:
        """Build a cached artifact once more and compare: is it reproducible? Publishes nothing."""
        key = self.fetch(recipe, request, match="exact").key
        variants = [one for one in self.variants(recipe, request) if one.key == key]
        return self.build_variants(self.recipe(recipe), variants, reuse=False, publish=False)

    def build_variants(
        self, recipe: Recipe, variants: list[Variant], *, reuse: bool, publish: bool = True
    ) -> Built:
        """Build the best variant whose source can be had."""
        from .builder import build_variant

        failures: list[SourceUnavailable] = []
        for variant in variants:
            try:
                return build_variant(self, recipe, variant, reuse=reuse, publish=publish)
            except SourceUnavailable as error:
                failures.append(error)
        if len(failures) == 1:
            raise failures[0]
        raise SourceUnavailable(
            f"no source of {recipe.name} can be had: " + "; ".join(str(e) for e in failures),
            hint=failures[0].hint,
        )

    # -- shared with the rooms that do it --------------------------------------------------

    def readers(self) -> list[Tier]:
        return [tier for tier in self.tiers if tier.reads and not tier.down]

    def writers(self) -> list[Tier]:
        return [tier for tier in self.tiers if tier.writes and not tier.down]

    def give_up(self, tier: Tier, error: ArtcacheError) -> None:
        """One warning a store, then it is left alone: an outage never fails a job."""
        if tier.fails():
            hint = f" ({error.hint})" if error.hint else ""
            self.observer.warn(f"{error}; going on without it{hint}")

    def tell_problems(self, tier: Tier) -> None:
        if tier.down:
            return
        problems = tier.repository.problems
        with contextlib.suppress(IndexError):  # another thread may tell some of them
            while problems:
                self.observer.warn(problems.pop(0))

    def tell_pending(self, store: Store) -> None:
        """Once: what was written to a mount may still wait on this machine."""
        from .store import Buffered

        advice = store.flush_advice() if isinstance(store, Buffered) else ""
        if not advice:
            return
        with self._lock:
            first, self._told_pending = not self._told_pending, True
        if first:
            self.observer.note(f"before this machine goes away, have it uploaded; {advice}")

    def waiting(self, holder: str) -> None:
        self.observer.phase("wait", f"for {holder}, who is making the same")


class _LateRunner:
    """A Runner that is imported when a recipe uses it: most requests need no process."""

    def __getattr__(self, name: str) -> Any:
        from .process import Runner

        return getattr(Runner(), name)
