"""Stores behind a network: a mounted folder and a GCS server, at 100 and 20 MB/s."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable
from pathlib import Path
from urllib.parse import quote

from . import inputs, peers, remote, throttle
from .children import ROOT, Child, bash, helper, timed, tool
from .inputs import GZIP, ZSTD
from .measure import Check, Contender, Goal, Task
from .peers import with_words
from .publish import constant
from .race import HOME, differing, gone
from .restore import tree_or_missing

_CALIBRATED = 4.0
"""Seconds that a plain reader reads to see whether the throttle is right."""


class _Slow:
    """One task's contenders, each at one rate."""

    def __init__(self, task: Task, tree: Path, work: Path) -> None:
        self.task, self.tree, self.out = task, tree, work / "out"
        self.closing = contextlib.ExitStack()
        task.close = self.closing.close

    def add(self, name: str, child: Child, root: str = "", most: int = 1000) -> None:
        check = lambda: differing(self.tree, self.out, root)  # noqa: E731
        self.task.contenders.append(
            Contender(name, lambda: timed(child), made(self.out), gone(self.out), check, most)
        )

    def limit(self, rate: float, stored: int, speed: str) -> None:
        """What the network alone takes, and the goal against it."""
        name = f"stored bytes / rate{speed}"
        self.task.contenders.append(constant(name, stored / (rate * 1e6)))
        if rate == inputs.scale.rates[0]:
            self.task.goals.append(Goal(f"artcache{speed}", "within", 1.05, name))

    def calibrated(self, rate: float, size: int, measured: Callable[[int], float]) -> None:
        wanted = int(rate * 1e6 * _CALIBRATED)
        if size < wanted:
            self.task.notes.append(f"{rate:g} MB/s: the input is too small to calibrate with")
            return
        found = measured(wanted) / 1e6
        what = f"the throttle of {rate:g} MB/s is right within 2 %"
        self.task.checks.append(
            Check(what, abs(found / rate - 1) < 0.02, f"a plain reader gets {found:.2f} MB/s")
        )


def made(folder: Path) -> Callable[[], None]:
    def prepare() -> None:
        gone(folder)()
        folder.mkdir()

    return prepare


def mounted(work: Path) -> Task:
    """The way of a mounted Drive or bucket."""
    task = Task("mounted", "cuDNN from a folder store on a throttled mount into an empty home")
    tree = tree_or_missing(task)
    if tree is None:
        return task
    slow = _Slow(task, tree, work)
    store = inputs.store_with("cudnn", tree)
    archives = work / "archives"
    archives.mkdir()
    for suffix, command in ((".tar.gz", GZIP), (".tar.zst", ZSTD)):
        (archives / f"cudnn{suffix}").hardlink_to(inputs.archive_of(tree, suffix, command))
    for rate in inputs.scale.rates:
        try:
            _at_rate(slow, rate, store, archives, work)
        except OSError as error:
            task.missing["a throttled mount"] = str(error)
    return task


def _at_rate(slow: _Slow, rate: float, store: Path, archives: Path, work: Path) -> None:
    first, speed = rate == inputs.scale.rates[0], f", {rate:g} MB/s"
    most = 1000 if first else 0
    kept, shelf = (
        slow.closing.enter_context(
            throttle.mounted(folder, work / f"{folder.name}-{rate:g}", rate=rate * 1e6)
        )
        for folder in (store, archives)
    )
    pack = max(store.rglob("*.pack"), key=lambda path: path.stat().st_size)
    plain = functools.partial(throttle.measured_rate, kept.at, str(pack.relative_to(store)))
    slow.calibrated(rate, pack.stat().st_size, plain)
    words = helper("restore", "cudnn", slow.tree, kept.at, slow.out)
    slow.add(f"artcache{speed}", Child(words, cwd=ROOT), HOME, most)
    slow.limit(rate, inputs.stored(store), speed)
    places = {"shelf": shelf.at, "out": slow.out}
    direct = with_words('tar -C "$out" -xzf "$shelf/cudnn.tar.gz"', **places)
    slow.add(f"tar -xzf{speed}", bash(direct), "", most)
    if tool("zstd", slow.task.missing):
        script = with_words('zstd -dcq "$shelf/cudnn.tar.zst" | tar -C "$out" -xf -', **places)
        slow.add(f"zstd -d | tar -x{speed}", bash(script), "", most)
    if first:
        copied = 'cp "$shelf/cudnn.tar.gz" "$out.tgz"; tar -C "$out" -xzf "$out.tgz"; rm "$out.tgz"'
        slow.add(f"cp, then tar -xzf{speed}", bash(with_words(copied, **places)), "", 2)


def bucket(work: Path) -> Task:
    """The way of a bucket: a server's own process, a proxy before it."""
    task = Task("gcs", "cuDNN from a GCS server behind a throttle into an empty home")
    served = remote.serve(task)
    if served is None:
        return task
    tree, server, store = served
    slow = _Slow(task, tree, work)
    slow.closing.callback(server.stop)
    pack = max(store.rglob("*.pack"), key=lambda path: path.stat().st_size)
    name = quote(f"cache/{pack.relative_to(store)}", safe="")
    path = f"/storage/v1/b/{remote.BUCKET}/o/{name}?alt=media"
    for rate in inputs.scale.rates:
        proxy = throttle.Proxy(server.port, rate=rate * 1e6)
        slow.closing.callback(proxy.close)
        speed = f", {rate:g} MB/s"
        most = 1000 if rate == inputs.scale.rates[0] else 0
        plain = functools.partial(throttle.measured_proxy, proxy.url, path)
        slow.calibrated(rate, pack.stat().st_size, plain)
        words = helper("restore", "cudnn", tree, f"gs://{remote.BUCKET}/cache", slow.out)
        child = Child(words, {"STORAGE_EMULATOR_HOST": proxy.url}, ROOT)
        slow.add(f"artcache{speed}", child, HOME, most)
        slow.limit(rate, inputs.stored(store), speed)
        _clients(slow, proxy.url, speed, most)
    return task


def _clients(slow: _Slow, url: str, speed: str, most: int) -> None:
    """gcsfs and obstore: get the archive, then unpack it."""
    for name, script in (("gcsfs", remote.GCSFS), ("obstore", remote.OBSTORE)):
        python = peers.python_with(name)
        if not python or not tool("zstd", slow.task.missing):
            slow.task.missing[name] = "not installed"
            continue
        command = (
            '"$python" -c "$script" "$url" "$object" "$out.zst";'
            ' zstd -dcq "$out.zst" | tar -C "$out" -xf -; rm "$out.zst"'
        )
        places = {"python": python, "script": script, "out": slow.out, "url": url}
        line = with_words(command, **places, object=f"{remote.BUCKET}/tree.tar.zst")
        slow.add(f"{name} get, zstd | tar{speed}", bash(line, remote.NO_PROBE), "", min(most, 3))
