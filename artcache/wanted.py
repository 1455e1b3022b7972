"""What machines missed and could not build: small records in a store, for one that can.

A record is a stranger's text: it names a key and says how it was asked for, and
its words are read as those of a command line are, by the recipe. For `cache`
and the faces.
"""

from __future__ import annotations

import contextlib
import json
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, cast

from .compat import AFTER_JIT
from .errors import (
    ArtcacheError,
    CacheMiss,
    InvalidKey,
    ObjectExists,
    ObjectNotFound,
    OverLimit,
    UsageError,
)
from .key import Key, canonical_json, valid_recipe_name
from .layout import WANTED
from .recipe import Request
from .spelling import build_command
from .store import SwapStore
from .tier import Tier
from .toolchain import CudaVersion, Gpu, GpuArch, HostFacts

if TYPE_CHECKING:
    from .cache import Cache, Wish
    from .match import Match
    from .store import Store

SCHEMA = 1
LIMIT = 16 << 10
"""Bytes of a record, at most."""
_MOST = 1000
"""Records of one store that are read at most, the newest."""
_NAME = re.compile(r"v1/wanted/([^/]+)/([0-9a-f]{32})(?: ?\(\d+\))?\.json(?: ?\(\d+\))?")
_WORD = re.compile(r"[A-Za-z0-9][^\x00-\x1f\x7f]{0,399}")
"""Nothing that a command could take for an option."""
_VALUE = re.compile(r"[^\x00-\x1f\x7f]{0,400}")
_KNOWN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_USER_IN_URL = re.compile(r"://[^/\s]*@")


class Record(NamedTuple):
    """One artifact that was missed."""

    key: Key
    request: Request
    """As it was given, without what only the machine that gave it can read."""
    host: HostFacts
    """Of the machine that missed it last, as far as it decides what runs there."""
    match: Match
    """What would have served."""
    created: str
    """UTC, `2026-01-31T12:00:00Z`."""
    asked: int = 1
    """How often, at least."""
    last: str = ""
    others: tuple[str, ...] = ()
    """Hashes of keys that would have served as well: another source."""


class Wanted(NamedTuple):
    """A record in a store; or, without one, why it cannot be read."""

    tier: Tier
    name: str
    recipe: str
    hash: str
    record: Record | None
    problem: str = ""


# -- leaving a record ---------------------------------------------------------------------


def missed(cache: Cache, wish: Wish) -> CacheMiss:
    """The error of a miss, with the nearest artifacts; it goes on the wanted list."""
    from .survey import nearest

    key = wish.variants[0].key
    near = nearest(cache, key, most=3)
    where = ", ".join([cache.home.url, *(tier.url for tier in cache.readers())])
    told = "".join(f"\n  - {line}" for line in near) or " nothing of this recipe is there"
    hint = f"run `{build_command(key.recipe, wish.request)}` once on this machine type"
    return CacheMiss(
        f"no {key.recipe} {key.hash[:12]} in {where}:{told}",
        hint=leave(cache, wish, "; ".join(filter(None, [hint, _would_do(cache, wish)]))),
    )


def _would_do(cache: Cache, wish: Wish) -> str:
    """What runs here and was not served: what is named is exact, and a JIT must be allowed."""
    from .match import best

    named = bool(wish.request.archs or wish.request.cuda)
    if wish.match != "compatible" and not named:
        return ""
    chosen = best(cache, wish.variants[0].key, "jit")
    if chosen is None:
        return ""
    ways = ["without --arch and --cuda, which ask for exactly that"] if named else []
    ways += ["with --match jit"] if chosen.verdict.outcome == AFTER_JIT else []
    reasons = "; ".join(chosen.verdict.reasons)
    return f"{', '.join(ways)}, {chosen.manifest.key.hash[:12]} is taken ({reasons})"


def leave(cache: Cache, wish: Wish, hint: str) -> str:
    """Put a miss on the wanted list; returns `hint`, and who builds it now."""
    where = _leave(cache, wish) if cache.writers() else ""
    told = where and f"it is on {where}'s wanted list: `artcache build --wanted` builds what is"
    return hint if told in hint else "; ".join(filter(None, [hint, told]))


def _leave(cache: Cache, wish: Wish) -> str:
    """Record a miss in the first store that takes it. Returns its URL, or ''.

    Nothing that goes wrong here is more than a line for `-v`.
    """
    key = wish.variants[0].key
    portable = _portable(wish.request, key)
    if portable is None:
        cache.observer.line("not on the wanted list: it is made from this machine's own files")
        return ""
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    others = tuple(variant.key.hash for variant in wish.variants[1:])
    record = Record(key, portable, cache.host, wish.match, now, last=now, others=others)
    for tier in cache.writers():
        if tier.denied or tier.refuses(wish.recipe):
            continue
        try:
            _write(tier.repository.store, record)
        except ArtcacheError as error:
            cache.observer.line(f"not on the wanted list of {tier.url}: {error}")
            continue
        return tier.url
    return ""


def _write(store: Store, record: Record) -> None:
    if not store.traits.writable:
        raise UsageError("it can only be read")
    name = f"{WANTED}/{record.key.recipe}/{record.key.hash}.json"
    try:
        store.create(name, _encoded(record))
    except ObjectExists:
        if store.traits.swaps:
            _count(cast(SwapStore, store), name, record)


def _count(store: SwapStore, name: str, record: Record) -> None:
    """Say that it was asked for once more; somebody else's saying so at once is enough."""
    data, version = store.get_versioned(name, limit=LIMIT)
    with contextlib.suppress(UsageError):
        before = _decoded(data, record.key.recipe, record.key.hash)
        record = record._replace(created=before.created, asked=before.asked + 1)
    with contextlib.suppress(ObjectExists):
        store.swap(name, _encoded(record), version)


def _portable(request: Request, key: Key) -> Request | None:
    """The request in words that mean the same on any machine; None if there are none.

    No path, no user and no token: a source is a name that the recipe knows, or
    the canonical URL of the key.
    """
    source, ref = request.source, request.ref
    if source and (Path(source).expanduser().exists() or not _KNOWN_NAME.fullmatch(source)):
        source = str(key.get("source") or "")
        if not source.startswith("https://"):
            return None
    if ref or source != request.source:
        ref = str(key.get("commit") or ref)
    toolchain = request.toolchain if _KNOWN_NAME.fullmatch(request.toolchain or "") else None
    found = request._replace(source=source, ref=ref, toolchain=toolchain)
    text = json.dumps([_request_words(found), key.fields])
    private = str(Path.home())
    if _USER_IN_URL.search(text) or (len(private) > 1 and private in text):
        return None
    return found


def _encoded(record: Record) -> bytes:
    host = record.host
    facts: dict[str, Any] = {
        "platform": host.platform,
        "libc": host.libc,
        "glibcxx": host.glibcxx,
        "gpus": [[gpu.capability, gpu.tegra] for gpu in host.gpus],
        "driver": host.driver,
        "driver_cuda": str(host.driver_cuda) if host.driver_cuda else None,
        "archs": [str(arch) for arch in host.arch_override],
        "service": host.service,
    }
    data = canonical_json(
        {
            "wanted": SCHEMA,
            "key": record.key.fields,
            "hash": record.key.hash,
            "request": _request_words(record.request),
            "host": {name: value for name, value in facts.items() if value},
            "match": record.match,
            "created": record.created,
            "last": record.last,
            "asked": record.asked,
            "others": record.others,
        }
    )
    if len(data) > LIMIT:
        raise OverLimit(f"a record of {len(data)} bytes is too long")
    return data


def _request_words(request: Request) -> dict[str, Any]:
    words = request._asdict() | {"archs": [str(arch) for arch in request.archs]}
    return {name: dict(value) if name == "options" else value
            for name, value in words.items() if value}  # fmt: skip


# -- reading records ----------------------------------------------------------------------


def listed(cache: Cache, recipe: str | None = None) -> Iterator[Wanted]:
    """The wanted lists of all stores that answer. Bad records come with their problem."""
    for tier in cache.tiers:
        if tier.down or not tier.reads:
            continue
        try:
            yield from _listed(tier, recipe)
        except ArtcacheError as error:
            cache.give_up(tier, error)


def _listed(tier: Tier, recipe: str | None) -> Iterator[Wanted]:
    store = tier.repository.store
    found = store.list(f"{WANTED}/{recipe}" if recipe else WANTED)
    for entry in sorted(found, key=lambda one: -one.modified)[:_MOST]:
        match = _NAME.fullmatch(entry.name)
        if not match or not valid_recipe_name(match[1]):
            continue
        record, problem = None, ""
        try:
            record = _decoded(store.get(entry.name, limit=LIMIT), match[1], match[2])
        except ObjectNotFound:
            continue
        except (UsageError, OverLimit) as error:
            problem = str(error)
        yield Wanted(tier, entry.name, match[1], match[2], record, problem)


def drop(wanted: Wanted) -> None:
    """Remove a record. Raises `StoreUnavailable`."""
    wanted.tier.repository.store.delete(wanted.name)


def _decoded(data: bytes, recipe: str, name: str) -> Record:
    """Raises `UsageError`: it is no record, or not the one of that name."""
    try:
        body = json.loads(data)
        if body["wanted"] != SCHEMA:
            raise UsageError(f"a record of another kind ({body['wanted']!r:.40})")
        key = Key(body["key"])
        if (key.recipe, key.hash, body["hash"]) != (recipe, name, name):
            raise UsageError("its key is not that of its name")
        match = body["match"]
        if match not in ("exact", "compatible", "jit"):
            raise UsageError(f"it asks for a match of the kind {match!r:.40}")
        return Record(
            key,
            _request(body["request"]),
            _host(body["host"]),
            match,
            _word(body["created"]),
            _count_of(body.get("asked")),
            _word(body.get("last") or body["created"]),
            tuple(_word(name) for name in body.get("others", ())),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InvalidKey) as error:
        raise UsageError(f"it is no record ({type(error).__name__}: {str(error)[:80]})") from None


def _request(body: Any) -> Request:
    """Raises `UsageError`, or what `_decoded` knows."""
    known = {"source", "ref", "archs", "cuda", "cudnn", "options", "toolchain"}
    if unknown := sorted(set(body) - known):
        raise UsageError(f"its request says {unknown[0]!r:.40}, which this version does not know")
    words = {name: _word(body[name]) for name in known - {"archs", "options"} if name in body}
    if not _KNOWN_NAME.fullmatch(words.get("toolchain", "machine")):
        raise UsageError("its toolchain is a folder")
    options = dict(body.get("options", {}))
    for name, value in options.items():
        if not _word(name) or not isinstance(value, str) or not _VALUE.fullmatch(value):
            raise UsageError(f"{value!r:.60} is no value of an option")
    archs = [_word(word) for word in body.get("archs", [])]
    return Request(archs=GpuArch.parse_list(archs) if archs else (), options=options, **words)


def _host(body: Any) -> HostFacts:
    names = ("glibcxx", "driver", "driver_cuda")
    word = {name: _word(body[name]) for name in names if name in body}
    archs = [_word(arch) for arch in body.get("archs", [])]
    gpus = [(int(number), bool(tegra)) for number, tegra in body.get("gpus", [])]
    return HostFacts(
        platform=_word(body["platform"]),
        libc=_word(body["libc"]),
        gpus=tuple(Gpu(f"a {number / 10:.1f} GPU", number, tegra) for number, tegra in gpus),
        driver=word.get("driver"),
        driver_cuda=CudaVersion.parse(word["driver_cuda"]) if "driver_cuda" in word else None,
        arch_override=GpuArch.parse_list(archs) if archs else (),
        service=_word(body["service"]) if body.get("service") else "",
        glibcxx=word.get("glibcxx"),
    )


def _word(value: Any) -> str:
    if not isinstance(value, str) or not _WORD.fullmatch(value):
        raise UsageError(f"{value!r:.60} is no word of a record")
    return value


def _count_of(value: Any) -> int:
    return min(value, 10**9) if isinstance(value, int) and value > 0 else 1
