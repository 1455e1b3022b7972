"""A lease: one holder among many machines, by an object that is replaced on condition.

No clock is trusted, and no two are compared. A holder counts up in the object
every few seconds; whoever waits takes the lease once the object stayed the same
for long by the waiter's own watch. It spares work and guards nothing: whoever
loses a lease may go on, since artifacts are create-only.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import threading
import time
from dataclasses import dataclass
from typing import Any, NamedTuple

from ..errors import ArtcacheError, ObjectExists, ObjectNotFound
from ..store import NEW, SwapStore

_LIMIT = 1 << 14


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds, all of them."""

    beat: float = 5.0
    lost: float = 30.0
    """Without a sign of life for so long a holder counts as gone."""


TERMS = Terms()


class Holder(NamedTuple):
    """Who has the lease, as last read."""

    name: str
    held: float
    """For how many seconds, by the holder's own watch."""
    silent: float
    """For how many seconds the waiter has seen no sign of life."""
    failed: str = ""
    """What the holder we waited for failed with; it has let go."""


class Lease:
    """One process's wish for a lease, and the lease once it has it."""

    def __init__(self, store: SwapStore, name: str, terms: Terms | None = None) -> None:
        self._store, self._name = store, name
        self._terms = terms or TERMS
        self._token = secrets.token_hex(8)
        self._seen = ("", 0.0)
        self._waited = False
        self._version = NEW
        self._beats = 0
        self._since = 0.0
        self._end = threading.Event()
        self._thread: threading.Thread | None = None
        self.lost = False
        """Somebody took it from us, since we gave no sign of life."""

    def take(self) -> Holder | None:
        """Take the lease if it is free: then None, and it is kept until `release`.

        Raises:
            StoreUnavailable: the store does not answer, or refuses.
        """
        holder, version = self._look()
        if holder is not None and (holder.failed or holder.silent < self._terms.lost):
            self._waited = True
            return holder
        self._since = time.monotonic()
        try:
            self._version = self._store.swap(self._name, self._body(), version)
        except ObjectExists:  # another one was quicker
            self._waited = True
            return self._look()[0] or Holder("another machine", 0.0, 0.0)
        self._thread = threading.Thread(target=self._keep, name="artcache lease", daemon=True)
        self._thread.start()
        return None

    def release(self, failed: str = "") -> None:
        """Let go. A store that does not answer keeps it until it is lost.

        Args:
            failed: Why there is no result, for those who wait.
        """
        self._end.set()
        if self._thread is None:
            return
        self._thread.join(self._terms.beat)
        if not self.lost and not self._thread.is_alive():
            with contextlib.suppress(ArtcacheError):
                self._store.swap(self._name, self._body(free=True, failed=failed), self._version)

    # -- inside ---------------------------------------------------------------------------

    def _look(self) -> tuple[Holder | None, str]:
        """Who holds it (None: nobody), and the object's version."""
        try:
            data, version = self._store.get_versioned(self._name, limit=_LIMIT)
        except ObjectNotFound:
            return None, NEW
        if version != self._seen[0]:
            self._seen = (version, time.monotonic())
        body = _read(data)
        name, held = str(body.get("holder", "somebody")), _number(body.get("held"))
        if body.get("free"):
            failed = str(body.get("failed", "")) if self._waited else ""
            return (Holder(name, held, 0.0, failed) if failed else None), version
        if _died_here(body):
            return None, version
        return Holder(name, held, time.monotonic() - self._seen[1]), version

    def _body(self, **more: Any) -> bytes:
        where, started = _this_process()
        body = {
            "lease": 1,
            "holder": f"{socket.gethostname()}, process {os.getpid()}",
            "token": self._token,
            "beats": self._beats,
            "held": round(time.monotonic() - self._since, 1),
            "where": where,
            "pid": os.getpid(),
            "started": started,
            **more,
        }
        return json.dumps(body).encode()

    def _keep(self) -> None:
        """Give a sign of life until the end; a store that is away for a while is no end."""
        while not self._end.wait(self._terms.beat):
            self._beats += 1
            try:
                self._version = self._store.swap(self._name, self._body(), self._version)
            except ObjectExists:
                self.lost = True
                return
            except ArtcacheError:
                continue


def _read(data: bytes) -> dict[str, Any]:
    """What cannot be read may be a newer version's: it is held as long as it changes."""
    with contextlib.suppress(ValueError):
        body = json.loads(data)
        if isinstance(body, dict) and body.get("lease") == 1:
            return body
    return {}


def _number(value: object) -> float:
    return float(value) if isinstance(value, (int, float)) else 0.0


# -- holders on this machine: no need to wait for one that is dead --------------------------


def _this_process() -> tuple[str, str]:
    return _where(), _started(os.getpid())


def _where() -> str:
    """This boot of this machine, and the set of processes that we see; '' if unknown."""
    with contextlib.suppress(OSError):
        with open("/proc/sys/kernel/random/boot_id") as file:
            boot = file.read().strip()
        return f"{boot}/{os.stat('/proc/self/ns/pid').st_ino}"
    return ""


def _started(pid: int) -> str:
    """When a process started, in the kernel's ticks; '' if there is none."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return "" if fields[0] in "ZX" else fields[19]
    return ""


def _died_here(body: dict[str, Any]) -> bool:
    here, pid = _where(), body.get("pid")
    if not here or body.get("where") != here or not isinstance(pid, int):
        return False
    return _started(pid) != body.get("started")
