"""Asks one store everything that matters: reads, and objects of its own that it removes again.

Each store is asked on a thread of its own: one that hangs holds nobody up.
"""

from __future__ import annotations

import contextlib
import copy
import os
import secrets
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import cast
from urllib.parse import urlsplit

from ..errors import ArtcacheError, ObjectExists, ObjectNotFound, StoreDenied, UsageError
from ..layout import MANIFESTS, PACKS, PROBES, ROOT, listed
from ..store import ARCHIVE, Probed, Store, StoreSpec, SwapStore
from .facts import Fault, StoreFacts

SAMPLE = 4 << 20
"""Bytes that are sent and read at most to see how fast that is."""
_FIRST = 256 << 10
_SECONDS = 3.0
"""For which the sample is sent, or read, about."""
_ENOUGH = 0.2
_ROUNDS = 8
_MOST = 1000
_COUNTING = 2.0
_LIMIT = 1 << 16


def examine(
    specs: Sequence[StoreSpec], *, write: bool, environ: Mapping[str, str] | None = None
) -> Callable[[float], list[StoreFacts]]:
    """Begin to ask all stores; returns what waits for them, at most so many seconds in all.

    Args:
        write: Whether those that may be written are.
    """
    environ = os.environ if environ is None else environ
    start = time.monotonic()
    found = [StoreFacts(spec) for spec in specs]
    threads = [
        threading.Thread(target=_examine, args=(facts, write, environ), daemon=True)
        for facts in found
    ]
    for thread in threads:
        thread.start()

    def wait(seconds: float) -> list[StoreFacts]:
        for thread in threads:
            thread.join(max(0.0, start + seconds - time.monotonic()))
        answered = [copy.copy(facts) for facts in found]  # a thread may be at it still
        for facts in answered:
            facts.silent = seconds if facts.step else 0.0
        return answered

    return wait


def _examine(facts: StoreFacts, write: bool, environ: Mapping[str, str]) -> None:
    try:
        _Probe(facts, write, environ).run()
    except ArtcacheError as error:
        facts.fault = fault_of(error)
    except Exception as error:  # a bug of ours must not hide what the others answered
        facts.fault = Fault(f"{type(error).__name__}: {error}", "please report it")
    facts.step = ""


class _Probe:
    def __init__(self, facts: StoreFacts, write: bool, environ: Mapping[str, str]) -> None:
        self.facts, self.write = facts, write
        self.facts.adapter, self.facts.host = _adapter(facts.spec.url, environ)

    def run(self) -> None:
        """Raises `ArtcacheError` where there is no point in asking on."""
        from ..stores import open_store
        from ..stores.faults import Limits

        facts = self.facts
        limits = Limits(connect=4.0, stall=5.0, attempts=2, patience=4.0)
        store = open_store(facts.spec.url, limits=limits)
        traits = store.traits
        facts.writable, facts.exclusive = traits.writable, traits.exclusive_create
        facts.lists = traits.lists
        if traits.shared_disk:
            facts.there = os.path.exists(store.url)
        facts.step = "find a credential"
        facts.identity = getattr(store, "identity", "")
        self._reach(store)
        if traits.lists:
            self._count(store)
        if facts.spec.writes and traits.writable and self.write:
            self._write(store)
        if facts.down is None and facts.largest:
            self._read_a_pack(store)

    # -- reading --------------------------------------------------------------------------

    def _reach(self, store: Store) -> None:
        facts = self.facts
        facts.step = "answer"
        start = time.monotonic()
        try:
            facts.root = store.get(ROOT, limit=_LIMIT)
        except ObjectNotFound:
            pass
        except StoreDenied as error:
            facts.unreadable = fault_of(error)
        facts.answer = time.monotonic() - start

    def _count(self, store: Store) -> None:
        """As many manifests and packs as are listed in a moment."""
        facts = self.facts
        facts.step = "list what it has"
        until = time.monotonic() + _COUNTING
        count, recipes = 0, set()
        try:
            for number, entry in enumerate(store.list(MANIFESTS)):
                if number >= _MOST or time.monotonic() > until:
                    facts.more = True
                    break
                if one := listed(*entry):
                    recipes.add(one.recipe)
                    count += 1
            for number, entry in enumerate(store.list(PACKS) if count else ()):
                facts.largest = max(facts.largest, entry.size)
                if number >= _MOST or time.monotonic() > until:
                    break
        except StoreDenied as error:
            facts.unlisted = fault_of(error)
            return
        facts.artifacts, facts.recipes = count, frozenset(recipes)

    def _read_a_pack(self, store: Store) -> None:
        self.facts.step = "send a sample"
        with contextlib.suppress(ArtcacheError):
            entry = next((one for one in store.list(PACKS) if one.size >= _FIRST), None)
            if entry:
                self.facts.down = _download(store, entry.name, min(entry.size, SAMPLE))

    # -- writing --------------------------------------------------------------------------

    def _write(self, store: Store) -> None:
        facts = self.facts
        facts.step = "be written"
        facts.tried = True
        try:
            if facts.there is False:  # not ours to make: the first artifact does
                if isinstance(store, Probed):
                    store.probe()
                return
            with self._object(store, secrets.token_bytes(64)) as name:
                self._inspect(store, name)
            if facts.undeleted is None:
                self._measure(store)
        except ArtcacheError as error:
            facts.unwritten = fault_of(error)

    @contextlib.contextmanager
    def _object(self, store: Store, content: bytes) -> Iterator[str]:
        """A new object that is gone at the end, if that is allowed."""
        name = f"{PROBES}/{secrets.token_hex(8)}"
        store.create(name, content)
        try:
            if len(content) <= _LIMIT:
                self.facts.same = self._reads_back(store, name, content)
            yield name
        finally:
            try:
                store.delete(name)
            except StoreDenied as error:
                self.facts.undeleted = fault_of(error)

    def _reads_back(self, store: Store, name: str, content: bytes) -> bool | None:
        if self.facts.unreadable:
            return None
        try:
            return store.get(name, limit=_LIMIT) == content
        except ObjectNotFound:
            return False

    def _inspect(self, store: Store, name: str) -> None:
        """Whether the conditions hold that create-only and leases depend on."""
        facts = self.facts
        facts.step = "refuse a second object of one name"
        before = time.time()
        try:
            store.create(name, b"again")
            facts.create_only = False
        except ObjectExists:
            facts.create_only = True
        with contextlib.suppress(StoreDenied):
            self._skew(store, name, before)
        if store.traits.swaps and not facts.unreadable:
            facts.step = "replace an object on condition"
            try:
                facts.leases = _swaps(cast(SwapStore, store), name)
            except StoreDenied as error:
                facts.unreplaced = fault_of(error)

    def _skew(self, store: Store, name: str, before: float) -> None:
        """The object was written a moment ago; stores tell whole seconds only."""
        for entry in store.list(PROBES):
            if entry.name == name:
                self.facts.skew = entry.modified - before
                return

    def _measure(self, store: Store) -> None:
        facts = self.facts
        facts.step = "take a sample"
        up, size = _FIRST, _FIRST
        with self._sent(store, size) as (_, seconds):
            up = int(size / seconds)
        size = max(_FIRST, min(SAMPLE, int(up * _SECONDS)))
        with self._sent(store, size) as (name, seconds):
            facts.up = size / seconds
            if not facts.unreadable:
                facts.step = "send a sample"
                facts.down = _download(store, name, size)

    @contextlib.contextmanager
    def _sent(self, store: Store, size: int) -> Iterator[tuple[str, float]]:
        content = os.urandom(size)
        start = time.monotonic()
        with self._object(store, content) as name:
            yield name, max(1e-6, time.monotonic() - start)


def _swaps(store: SwapStore, name: str) -> bool:
    """Whether it replaces an object for who read its present version, and for nobody else."""
    _, version = store.get_versioned(name, limit=_LIMIT)
    store.swap(name, b"mine", version)
    try:
        store.swap(name, b"late", version)
    except ObjectExists:
        return True
    return False


def _download(store: Store, name: str, size: int) -> float:
    """Bytes a second, by as many requests at once as a restore makes."""
    start = time.monotonic()
    store.get_range(name, 0, min(size, _FIRST))
    seconds = max(1e-6, time.monotonic() - start)
    size = max(_FIRST, min(size, int(_FIRST / seconds * _SECONDS)))
    pieces = [(offset, min(_FIRST, size - offset)) for offset in range(0, size, _FIRST)]
    rounds, start = 0, time.monotonic()
    with ThreadPoolExecutor(max(1, store.traits.parallel)) as pool:
        # Where the sample is read in no time, that says nothing: read it again.
        while rounds == 0 or (rounds < _ROUNDS and time.monotonic() - start < _ENOUGH):
            list(pool.map(lambda piece: store.get_range(name, *piece), pieces))
            rounds += 1
    return rounds * size / max(1e-6, time.monotonic() - start)


def _adapter(url: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """What reaches it, and at which server."""
    scheme, separator, _ = url.partition("://")
    if not separator or scheme.lower() == "file":
        return ("archive" if url.endswith(ARCHIVE) else "folder"), ""
    places = {
        "gs": ("Google Cloud Storage", "storage.googleapis.com", ("STORAGE_EMULATOR_HOST",)),
        "gdrive": ("Google Drive", "www.googleapis.com", ("ARTCACHE_GDRIVE_ENDPOINT",)),
        "hf": ("Hugging Face hub", "huggingface.co", ("HF_ENDPOINT",)),
        "s3": ("S3", "s3.amazonaws.com", ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")),
    }
    scheme = {"gcs": "gs"}.get(scheme.lower(), scheme.lower())
    name, host, variables = places.get(scheme, (scheme, "", ()))
    with contextlib.suppress(ValueError):
        given = next((environ[name] for name in variables if environ.get(name)), "")
        if given or scheme in ("http", "https"):
            host = urlsplit(given if "://" in given else f"//{given}" if given else url).netloc
    return name, host.rpartition("@")[2]


def fault_of(error: ArtcacheError) -> Fault:
    """What it was, by what caused the error."""
    return Fault(str(error), error.hint, _cause(error))


def _cause(error: ArtcacheError) -> str:
    if isinstance(error, StoreDenied):
        return "denied"
    if isinstance(error, UsageError):
        return "usage"
    if "there is no bucket" in str(error):
        return "bucket"
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, socket.gaierror):
            return "dns"
        if isinstance(seen, ssl.SSLError):
            return "tls"
        if isinstance(seen, ConnectionRefusedError):
            return "refused"
        if isinstance(seen, TimeoutError) or "timeout" in type(seen).__name__.lower():
            return "timeout"
        seen = seen.__cause__ or seen.__context__
    return "timeout" if "almost nothing" in str(error) else ""
