"""A bucket as a store: names, limits, retries and checks; `gcs` and `s3` speak the protocols.

Requests may be made from any thread. They run there, or on fsspec's event loop and
are watched from there: when too few bytes move for too long, one is cancelled and
made anew. Nothing is ever listed from a cache.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import re
import secrets
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import (
    ObjectExists,
    ObjectNotFound,
    StoreDenied,
    StoreUnavailable,
    UsageError,
)
from ..store import NEW, Content, StoredObject, StoreTraits, checked_name
from .bucket import Body, Bucket, Going, Page, Read
from .faults import Limits, Moved, Passing, no_bucket, only_ours, persist
from .room import PROGRESS, Room, while_it_moves

if TYPE_CHECKING:
    pass

_Result = TypeVar("_Result")
_FOLDER = re.compile(r"(?!\.)[^\x00-\x1f\x7f-\x9f\ud800-\udfff\\?#*\[\]]+")
"""A part of the folder in a bucket: in any language, but nothing that a URL or a shell
would take for something else."""
_LONGEST = 500
"""Bytes of it: a key has 1,024, and what is stored there needs some."""
_DROP_SECONDS = 3.0
"""For tidying up behind an upload that failed: nobody waits long for that."""


class RemoteStore:
    def __init__(
        self, url: str, bucket: Bucket, prefix: str = "", *, limits: Limits | None = None
    ) -> None:
        """Args:
        prefix: The folder in the bucket, without slashes around it.
        """
        self._url = url
        self._bucket = bucket
        self._prefix = f"{prefix}/" if prefix else ""
        self._limits = limits or Limits()
        self._bucket_is_there = False
        self._preparing = threading.Lock()
        self._pending: set[concurrent.futures.Future[Any]] = set()
        self._abort = threading.Event()

    @property
    def url(self) -> str:
        return self._url

    @property
    def traits(self) -> StoreTraits:
        return StoreTraits(exclusive_create=True, durable_on_return=True, swaps=True, parallel=8)

    @property
    def identity(self) -> str:
        """The credential in words. Finds it out, if need be."""
        with only_ours(self._bucket.party):
            with self._preparing:
                self._bucket.prepare()
            return self._bucket.party.identity

    def get(self, name: str, *, limit: int) -> bytes:
        return self.get_versioned(name, limit=limit)[0]

    def get_versioned(self, name: str, *, limit: int) -> tuple[bytes, str]:
        """The object and its version, for `swap`."""
        key = self._key(name)
        return self._find(name, lambda moved: self._bucket.read(key, moved, limit=limit))

    def get_range(self, name: str, offset: int, length: int) -> bytes:
        key, span = self._key(name), (offset, length)
        return self._find(name, lambda moved: self._bucket.read(key, moved, span=span)).data

    def fill(self, name: str, offset: int, out: memoryview) -> None:
        self.stream(name, offset, out, lambda count: None)

    def stream(
        self, name: str, offset: int, out: memoryview, came: Callable[[int], object]
    ) -> None:
        key, room = self._key(name), Room(out, came)

        def read(moved: Moved) -> Going[Read]:
            part = room.rest()
            if out and not part.left:  # it broke after the last byte
                return Read(b"", "")
            span = (offset + room.done, len(part.left))
            return self._bucket.read(key, moved, span=span, out=part)

        try:
            while_it_moves(lambda: room.done, lambda: self._find(name, read), PROGRESS)
        finally:
            room.close()

    def size(self, name: str) -> int:
        key = self._key(name)
        return self._find(name, lambda moved: self._bucket.size(key, moved))

    def create(self, name: str, content: Content) -> None:
        self.swap(name, content, NEW)

    def swap(self, name: str, content: Content, over: str) -> str:
        """Replace the object if its version is still `over` (`NEW`: if there is none).

        Returns:
            The new version.

        Raises:
            ObjectExists: it is another one by now.
        """
        key = self._key(name)
        if over == NEW and isinstance(content, Path) and self._is_there(name):
            raise ObjectExists(f"{self._url}: {name} exists")  # don't upload it for nothing
        body = Body(content)

        def attempt(number: int) -> str:
            try:
                return self._once(lambda moved: self._bucket.put(key, body, moved, over=over))
            except ObjectNotFound:
                if over == NEW:
                    raise no_bucket(
                        self._bucket.party, self._bucket.name, self._bucket.make
                    ) from None
                raise ObjectExists(f"{self._url}: {name} is gone") from None
            except ObjectExists:
                # The answer to an earlier attempt may have been lost: then it is ours.
                with contextlib.suppress(ObjectNotFound, StoreDenied):
                    if ours := self._once(lambda moved: self._bucket.ours(key, body, moved)):
                        return ours
                raise ObjectExists(f"{self._url}: {name} exists") from None

        def persistently() -> str:
            return persist(self._limits, attempt, patience=float("inf"))

        with only_ours(self._bucket.party):
            try:
                return while_it_moves(lambda: body.stored, persistently)
            except BaseException:
                if body.session:
                    self._drop(key, body)
                raise

    def _drop(self, key: str, body: Body) -> None:
        import asyncio

        with contextlib.suppress(Exception):
            going = self._bucket.drop(key, body)
            if isinstance(going, Coroutine):
                asyncio.run_coroutine_threadsafe(going, self._bucket.loop()).result(_DROP_SECONDS)

    def list(self, prefix: str) -> Iterator[StoredObject]:
        top = f"{self._key(prefix)}/"
        token, more = "", True
        while more:
            found, token = self._page(top, token)
            for entry in found:
                yield entry._replace(name=entry.name[len(self._prefix) :])
            more = bool(token)

    def delete(self, name: str) -> None:
        key = self._key(name)
        try:
            self._persistently(lambda moved: self._bucket.delete(key))
        except ObjectNotFound:
            return

    def move(self, name: str, to: str) -> None:
        key, target = self._key(name), self._key(to)
        self._find(name, lambda moved: self._bucket.copy(key, target))
        self.delete(name)

    def quarantine(self, name: str) -> str:
        aside = f"v1/quarantine/{name.replace('/', '.')}.{int(time.time())}.{secrets.token_hex(3)}"
        self.move(name, aside)
        return f"{self._url.rstrip('/')}/{aside}"

    def abort(self) -> None:
        self._abort.set()
        self._abort = threading.Event()
        for future in tuple(self._pending):
            future.cancel()
        self._bucket.abort()

    # -- inside ---------------------------------------------------------------------------

    def _key(self, name: str) -> str:
        return self._prefix + checked_name(name)

    def _is_there(self, name: str) -> bool:
        try:
            self.size(name)
        except ObjectNotFound:
            return False
        except StoreDenied:
            return False  # allowed to write and not to read: the upload will tell
        return True

    def _page(self, top: str, token: str, most: int = 1000) -> Page:
        try:
            return self._persistently(lambda moved: self._bucket.page(top, token, most, moved))
        except ObjectNotFound:
            raise no_bucket(self._bucket.party, self._bucket.name, self._bucket.make) from None

    def _find(self, name: str, work: Callable[[Moved], Going[_Result]]) -> _Result:
        """Do something with an object that may not be there.

        Raises:
            ObjectNotFound: it is not; but a bucket that is not there is `StoreUnavailable`.
        """
        try:
            return self._persistently(work)
        except ObjectNotFound:
            if not self._bucket_is_there:
                # Both are a 404. Whoever may not list the bucket is not told either.
                try:
                    self._page(self._prefix, "", 1)
                except StoreDenied:
                    self._bucket_is_there = True
            raise ObjectNotFound(f"{self._url} has no {name}") from None

    def _persistently(self, work: Callable[[Moved], Going[_Result]]) -> _Result:
        abort = self._abort
        with only_ours(self._bucket.party):
            return persist(self._limits, lambda number: self._once(work, abort), sleep=abort.wait)

    def _once(
        self,
        work: Callable[[Moved], Going[_Result]],
        abort: threading.Event | None = None,
    ) -> _Result:
        """One attempt. A coroutine is watched from this thread."""
        with self._preparing:
            self._bucket.prepare()
        moved = Moved()
        try:
            if abort and abort.is_set():
                raise StoreUnavailable(f"{self._url}: interrupted")
            going = work(moved)
            result = self._watched(going, moved) if isinstance(going, Coroutine) else going
        except (concurrent.futures.CancelledError, Passing):
            if abort is None or not abort.is_set():
                raise
            raise StoreUnavailable(f"{self._url}: interrupted") from None
        self._bucket_is_there = True
        return result

    def _watched(self, work: Coroutine[Any, Any, _Result], moved: Moved) -> _Result:
        import asyncio

        future = asyncio.run_coroutine_threadsafe(work, self._bucket.loop())
        self._pending.add(future)
        try:
            while not concurrent.futures.wait([future], self._limits.silence * 1.1).done:
                self._limits.check()
                if not moved.enough(self._limits):
                    words = f"{self._url} moved almost nothing for {self._limits.stall:g} s"
                    raise Passing(words, silent=True)
            return future.result()
        finally:
            self._pending.discard(future)
            future.cancel()


def split(scheme: str, rest: str, url: str) -> tuple[str, str]:
    """Bucket and prefix of `bucket/a/prefix`.

    Raises:
        UsageError: no bucket, or a name that none can have.
    """
    bucket, _, prefix = rest.partition("/")
    prefix = prefix.rstrip("/")
    hint = f"write it like {scheme}://my-bucket/artcache"
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]{1,220}[a-z0-9]", bucket):
        raise UsageError(f"{url!r}: {bucket!r} is no name of a bucket", hint=hint)
    if prefix and not all(_FOLDER.fullmatch(part) for part in prefix.split("/")):
        raise UsageError(f"{url!r}: {prefix!r} is no folder's name", hint=hint)
    if len(prefix.encode(errors="replace")) > _LONGEST:
        raise UsageError(f"{url!r}: a folder's name has at most {_LONGEST} bytes", hint=hint)
    return bucket, prefix
