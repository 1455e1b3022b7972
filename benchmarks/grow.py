"""How cost grows: with size, files, the store, fetchers, latency and bandwidth."""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import statistics
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from . import inputs, many, nine, remote, throttle
from .children import ROOT, Child, helper, timed
from .inputs import KEPT, once, store_with, write_half_random
from .measure import Sample, Task
from .plots import si
from .race import aside

Points = list[tuple[float, float]]
RUNS = 3
_MB = 1_000_000


def sizes(work: Path) -> dict[str, Any]:
    """One file of 1 MB to 4 GB, from a folder store."""
    steps = _steps((1, 10, 100, 1_000, 2_000, 4_000))
    taken = {size * _MB: _restores(f"one-{size}", _one(size * _MB), work) for size in steps}
    reason = (
        "bytes are decoded and written once each, so time grows with them as soon as they"
        " outweigh the start of Python; memory holds a few frames, whatever the size"
    )
    return _plot("size", "Time and memory against the artifact's size", "bytes", taken, reason)


def files(work: Path) -> dict[str, Any]:
    """10 to 100,000 files, from a folder store."""
    taken = {}
    for count in _steps((10, 100, 1_000, 10_000, 100_000)):
        tree = once(KEPT / f"files-{count}", lambda out, count=count: _files(out, count))  # type: ignore[misc]
        taken[count] = _restores("files", tree, work)
    reason = (
        "a file costs one create, write, close and look, so time grows with their number;"
        " memory grows with the manifest, some hundred bytes a file"
    )
    return _plot("files", "Time and memory against the number of files", "files", taken, reason)


def stores(work: Path) -> dict[str, Any]:
    """A hit in a store of 1 to 100,000 artifacts."""
    taken = {}
    for count in _steps(many.COUNTS):
        store = many.store_of(count)
        child = Child(helper("many_hit", many.tree(), store, work / "home"), cwd=ROOT)
        taken[count] = _runs(child, work / "home")
    reason = (
        "a hit reads objects by their known names and lists nothing: the store's size is no use"
    )
    return _plot("store", "A hit against the artifacts in the store", "artifacts", taken, reason)


def fetchers(work: Path) -> dict[str, Any]:
    """1 to 64 processes at once, one bucket, each into a home of its own."""
    with _bucket() as (tree, server, _):
        taken: dict[float, list[Sample]] = {}
        for count in _steps((1, 2, 4, 8, 16, 32, 64)):
            taken[count] = [_at_once(count, tree, server.url, work)]
    reason = (
        "two cores decode for all of them and for the server too: twice the fetchers take twice"
        " the time once the cores are busy; on machines of their own they would not meet"
    )
    return _plot("fetchers", "Fetchers at once on one machine", "fetchers", taken, reason)


def latency(work: Path) -> dict[str, Any]:
    """Each request waits, from 0 to 200 ms; at full speed after that."""
    taken, counted = {}, 0
    with _bucket() as (tree, server, _):
        for wait in _steps((1, 5, 20, 50, 100, 200)):
            proxy = throttle.Proxy(server.port, latency=wait / 1000)
            taken[wait] = _far(tree, proxy, work)
            counted = round(sum(proxy.requests.values()) / RUNS)
            proxy.close()
    reason = (
        f"{counted} requests a fetch, many of them under way at once: only the few that wait for"
        " each other (manifest, then frames) add their latency in full"
    )
    return _plot("latency", "Latency of each request", "ms", taken, reason)


def bandwidth(work: Path) -> dict[str, Any]:
    """From 1 to 256 MB/s."""
    taken = {}
    with _bucket() as (tree, server, _):
        for rate in _steps((1, 4, 16, 64, 256)):
            proxy = throttle.Proxy(server.port, rate=rate * 1e6)
            taken[rate] = _far(tree, proxy, work, runs=1 if rate < 16 else RUNS)
            proxy.close()
    reason = "stored bytes over the rate, until the start of Python and decoding weigh more"
    return _plot("bandwidth", "Bandwidth", "MB/s", taken, reason)


def morning(work: Path) -> dict[str, Any]:
    """10,000 notebooks on one bucket at nine o'clock, by the request counts of real fetches."""
    small, large = (_counted(times, work) for times in (1, 15))
    points: Points = []
    lines = [
        f"counted at the proxy: {counted.requests:.0f} requests and"
        f" {counted.size / 1e6:.1f} MB for one fetch"
        for counted in (small, large)
    ]
    # More bytes are more requests; the looks for manifests and the first frames stay.
    each = (large.requests - small.requests) / (large.size - small.size)
    for size in (small.size * times for times in (1, 10, 30, 100)):
        fetch = nine.Fetch(small.requests + each * (size - small.size), size)
        out = nine.simulate(10_000, fetch)
        points.append((size, out.last))
        lines.append(
            f"{size / 1e6:,.0f} MB each: half are done after {out.median:.0f} s, all after"
            f" {out.last:.0f} s; {out.bound} held up most; peaks of {si(out.peak_requests)}"
            f" requests/s and {out.peak_bytes / 1e9:.1f} GB/s"
        )
    for limit, count in nine.first_limit(large).items():
        lines.append(f"{limit} are first reached by {count:,.0f} notebooks fetching at once")
    panel = {"title": "seconds until the last of 10,000 is done", "points": points, "fit": []}
    title = "10,000 notebooks at nine o'clock (simulated)"
    return {"name": "morning", "title": title, "x": "bytes each", "panels": [panel], "lines": lines}


def _counted(times: int, work: Path) -> nine.Fetch:
    """What one fetch of a tree, so many times as large as usual, asks for."""
    with _bucket(times) as (tree, server, _):
        proxy = throttle.Proxy(server.port, rate=100e6)
        _far(tree, proxy, work, runs=1)
        proxy.close()
        return nine.Fetch(sum(proxy.requests.values()), proxy.received)


KINDS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "size": sizes,
    "files": files,
    "store": stores,
    "fetchers": fetchers,
    "latency": latency,
    "bandwidth": bandwidth,
    "morning": morning,
}


# -- runs ---------------------------------------------------------------------------------


def _steps(full: Sequence[int]) -> Sequence[int]:
    """All at full scale; else the smaller half."""
    return full if inputs.scale.name == "full" else full[: max(2, len(full) // 2)]


def _one(size: int) -> Path:
    def make(folder: Path) -> None:
        folder.mkdir()
        with (folder / "one.bin").open("wb") as out:
            write_half_random(out.write, size, random.Random(size))

    return once(KEPT / f"one-{size}", make)


def _files(folder: Path, count: int) -> None:
    for number in range(count):
        path = folder / f"{number // 500:03}" / f"{number:06}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"{number}\n" * 12)


def _restores(name: str, tree: Path, work: Path) -> list[Sample]:
    store = store_with(name, tree)
    return _runs(
        Child(helper("restore", name, tree, store, work / "home"), cwd=ROOT), work / "home"
    )


def _runs(child: Child, home: Path, runs: int = RUNS) -> list[Sample]:
    taken, put_aside = [], aside(home)
    for _ in range(runs):
        taken.append(timed(child))
        put_aside()
    return taken


@contextlib.contextmanager
def _bucket(times: int = 1) -> Iterator[tuple[Path, remote.Server, Path]]:
    task = Task("grow", "grow")
    size = times * min(inputs.scale.bulk or 40 * _MB, 40 * _MB)
    tree = once(KEPT / f"grow-{size}", lambda out: inputs.libraries_like(out, size))
    served = remote.serve(task, "grow", tree)
    if served is None:
        raise inputs.Unavailable(task.missing.get("all", "no server"))
    try:
        yield served
    finally:
        served[1].stop()


def _fetch(tree: Path, url: str, home: Path) -> Child:
    words = helper("restore", "grow", tree, f"gs://{remote.BUCKET}/cache", home)
    return Child(words, {"STORAGE_EMULATOR_HOST": url}, ROOT)


def _far(tree: Path, proxy: throttle.Proxy, work: Path, runs: int = RUNS) -> list[Sample]:
    return _runs(_fetch(tree, proxy.url, work / "home"), work / "home", runs)


def _at_once(count: int, tree: Path, url: str, work: Path) -> Sample:
    """The whole time of so many processes at once, and the largest one's memory."""
    import time

    homes = [work / f"home-{number}" for number in range(count)]
    start = time.perf_counter()
    with ThreadPoolExecutor(count) as pool:
        taken = list(pool.map(timed, [_fetch(tree, url, home) for home in homes]))
    seconds = time.perf_counter() - start
    for home in homes:
        shutil.rmtree(home)
    return Sample(seconds, 0.0, max(sample.rss for sample in taken))


# -- plots --------------------------------------------------------------------------------


def _plot(
    name: str, title: str, x: str, taken: dict[Any, list[Sample]], reason: str
) -> dict[str, Any]:
    times = [(float(at), statistics.median(s.seconds for s in runs)) for at, runs in taken.items()]
    memory = [(float(at), max(s.rss for s in runs) / 1e6) for at, runs in taken.items()]
    memory = [point for point in memory if point[1]]  # 0: less than who started it
    panels = [_panel("seconds", times), _panel("peak memory, MB", memory)]
    told = ", ".join(f"{panel['title']} ~ x^{panel['exponent']:.2f}" for panel in panels if panel)
    return {
        "name": name,
        "title": title,
        "x": x,
        "panels": [panel for panel in panels if panel["points"]],
        "lines": [f"fitted over the dearer half: {told}", reason],
    }


def _panel(title: str, points: Points) -> dict[str, Any]:
    exponent, fit = fitted(points)
    return {"title": title, "points": points, "exponent": exponent, "fit": fit}


def fitted(points: Points) -> tuple[float, Points]:
    """The exponent by least squares over the dearer half of points, and the line's ends.

    The cheaper half, where x is large if that is a link's rate, is mostly the start of a process.
    """
    row = sorted(points)
    if row and row[0][1] > row[-1][1]:
        row.reverse()
    dearer = sorted(row[len(row) // 2 if len(row) > 3 else 0 :])
    if len(dearer) < 2:
        return 0.0, []
    xs, ys = ([math.log(max(point[axis], 1e-9)) for point in dearer] for axis in (0, 1))
    middle_x, middle_y = statistics.fmean(xs), statistics.fmean(ys)
    spread = sum((x - middle_x) ** 2 for x in xs)
    slope = sum((x - middle_x) * (y - middle_y) for x, y in zip(xs, ys, strict=True)) / spread
    ends = [xs[0], xs[-1]]
    return slope, [(math.exp(x), math.exp(middle_y + slope * (x - middle_x))) for x in ends]
