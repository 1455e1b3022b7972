"""The wiring behind the public names: configuration, detection, recipes and stores meet here."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import cache, config
from .home import Home
from .recipe import Recipe, Request, find
from .store import StoreSpec, WritePolicy

if TYPE_CHECKING:
    from .builder import Built
    from .compression import Choice
    from .events import Observer
    from .fetched import Asked
    from .match import Match
    from .store import Store
    from .stores.faults import Limits
    from .toolchain import HostFacts


class Cache(cache.Cache):
    """A cache over the given stores; what is not given is as configured or detected."""

    def __init__(
        self,
        stores: Sequence[str | os.PathLike[str] | StoreSpec | Store] | None = None,
        *,
        home: str | os.PathLike[str] | None = None,
        host: HostFacts | None = None,
        observer: Observer | None = None,
        backfill: bool | None = None,
        write_policy: WritePolicy | None = None,
        race: bool | None = None,
        compression: Choice | None = None,
        timeout: float | None = None,
    ) -> None:
        """Args:
        stores: Asked in this order after the home. A string is a folder or URL,
            `read:` or `write:` before it narrows its use; None: as configured.
        home: The folder for trees on this machine; None: as configured.
        host: Facts about the machine to fetch for; None: this machine's.
        observer: Told what happens.
        backfill: Whether a hit in a store is copied to the ones before it.
        write_policy: Which stores must have taken what was built: none (`ignore`), the
            `first` that may be written, or `all`.
        race: Whether a fetch that takes longer than the build did runs against a build.
        compression: How hard what is published is compressed: `auto`, `fast`, `default`, `small`.
        timeout: Seconds that servers may keep us, all in all; 0: as long as it takes.
        """
        settings = config.load()
        self._timeout = settings.timeout if timeout is None else timeout
        self._known_limits: Limits | None = None
        place = Home(settings.home if home is None else Path(home).absolute())
        super().__init__(
            place,
            [self._tier(store) for store in (settings.stores if stores is None else stores)],
            host=(lambda: host) if host else _detector(place),
            recipes=_finder(place),
            libraries=_libraries,
            observer=observer,
            backfill=settings.backfill if backfill is None else backfill,
            write_policy=write_policy or settings.write_policy,
            race=settings.race if race is None else race,
            compression=compression or settings.compression,
        )

    def tier(self, url: str) -> cache.Tier:
        """The configured store of that URL, as it is configured; else that store anew."""
        wanted = StoreSpec.parse(url)
        for tier in self.tiers:
            if _plain(tier.url) == _plain(wanted.url):
                tier.public = tier.public or wanted.public
                return tier
        return self._tier(wanted)

    def _tier(self, store: str | os.PathLike[str] | StoreSpec | Store) -> cache.Tier:
        if isinstance(store, os.PathLike):
            store = StoreSpec(os.fspath(store))
        if isinstance(store, str):
            store = StoreSpec.parse(store)
        if not isinstance(store, StoreSpec):
            return cache.Tier(store, url=store.url)
        url = store.url

        def opened() -> Store:
            from .stores import open_store

            return open_store(url, limits=self._limits)

        tier = cache.Tier(opened, url=url, reads=store.reads, writes=store.writes)
        tier.public, tier.backfill = store.public, store.backfill
        return tier

    @property
    def _limits(self) -> Limits | None:
        """One budget of time for all stores; None: each has its usual deadlines only."""
        if not self._timeout:
            return None
        with self._lock:
            if self._known_limits is None:
                from .stores.faults import Budget, Limits

                self._known_limits = Limits(budget=Budget(self._timeout))
            return self._known_limits

    def begin(self) -> None:
        """What follows is a command of its own: a Drive may be mounted, a server up by now."""
        for tier in self.tiers:
            tier.down = False
        if self._limits and self._limits.budget:
            self._limits.budget.begin()


def _plain(url: str) -> str:
    return url.rstrip("/") if "://" in url else os.path.abspath(os.path.expanduser(url))


def fetch(
    recipe: str | Recipe,
    request: Request | None = None,
    *,
    build: cache.BuildPolicy = "missing",
    match: Match = "compatible",
    verify: bool = False,
    backfill: bool | None = None,
    race: bool | None = None,
) -> cache.Fetched:
    """`Cache().fetch(...)`, with the same cache for as long as the configuration is the same."""
    return default().fetch(
        recipe, request, build=build, match=match, verify=verify, backfill=backfill, race=race
    )


def fetch_all(
    wanted: Iterable[Asked],
    *,
    build: cache.BuildPolicy = "missing",
    match: Match = "compatible",
    verify: bool = False,
    backfill: bool | None = None,
) -> list[cache.Fetched]:
    """`Cache().fetch_all(...)`: several at once, `["darknet", ("cudnn", Request(cudnn="9"))]`."""
    return default().fetch_all(wanted, build=build, match=match, verify=verify, backfill=backfill)


def build(recipe: str | Recipe, request: Request | None = None) -> Built:
    """`Cache().build(...)`."""
    return default().build(recipe, request)


def default() -> Cache:
    """The cache for the present environment and folder."""
    watched = tuple(
        os.environ.get(name)
        for name in (
            *config.VARIABLES,
            *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "HOME"),
        )
    )
    paths = config.files(os.environ)
    stamps = tuple((path, os.stat(path).st_mtime_ns) for path in paths)
    cache = _default((watched, stamps))
    cache.begin()
    return cache


@functools.lru_cache(maxsize=8)
def _default(stamp: object) -> Cache:
    return Cache()


def _detector(home: Home) -> Callable[[], HostFacts]:
    def detected() -> HostFacts:
        from . import detect

        return detect.host(memo=home.root / "memo" / "driver.json")

    return detected


def _libraries(names: Iterable[str]) -> set[str]:
    from . import detect

    return detect.libraries(names)


def _finder(home: Home) -> Callable[[str], Recipe]:
    return lambda name: find(name, memo=home.root / "memo" / "recipes.json")
