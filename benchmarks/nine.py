"""Nine o'clock: many notebooks on one bucket. A simulation in steps of a second; pure.

The limits are the ones that Google publishes for Cloud Storage (see docs/scale.md).
"""

from __future__ import annotations

from typing import NamedTuple


class Limits(NamedTuple):
    reads: float = 5_000
    """Read requests a second that a bucket takes at first."""
    doubling: float = 1_200
    """Seconds in which a bucket's autoscaling doubles that, while it is asked for more."""
    egress: float = 25e9
    """Bytes a second: 200 Gbit/s for a project in a region, the default quota."""
    client: float = 100e6
    """Bytes a second that one notebook's network takes."""


class Fetch(NamedTuple):
    """What one notebook asks of the bucket."""

    requests: float
    """Reads, the looks for manifests among them."""
    size: float
    """Bytes of answers."""


class Outcome(NamedTuple):
    median: float
    """Seconds from the first notebook's start until half have all they asked for."""
    last: float
    bound: str
    """What held most of the seconds up: `requests`, `egress` or `client`."""
    peak_requests: float
    peak_bytes: float


def simulate(
    notebooks: int,
    fetch: Fetch,
    *,
    over: float = 60.0,
    limits: Limits = Limits(),  # noqa: B008
) -> Outcome:
    """Notebooks start evenly over `over` seconds; each bucket limit is shared fairly.

    A request over the limit is answered 429 and comes again until it is served, so what is
    left of a fetch is what matters, not how often it was refused: the best case.
    """
    waves: list[list[float]] = []  # [notebooks, part of the fetch that is left]
    done, second, reads = 0.0, 0, limits.reads
    held: dict[str, int] = {"requests": 0, "egress": 0, "client": 0}
    median, peak = 0.0, [0.0, 0.0]
    spread = max(1, round(over))
    while done < notebooks - 1e-6:
        if second < spread:
            waves.append([notebooks / spread, 1.0])
        # All in parts of a fetch: what one notebook's network takes, and the whole bucket.
        step = limits.client / fetch.size
        most = {"requests": reads / fetch.requests, "egress": limits.egress / fetch.size}
        tighter = min(most, key=lambda name: most[name])
        rate = _fair(waves, most[tighter], step)
        bound = "client" if rate == step else tighter
        held[bound] += 1
        passed = sum(count * min(rate, left) for count, left in waves)
        peak = [max(peak[0], passed * fetch.requests), max(peak[1], passed * fetch.size)]
        for wave in waves:
            wave[1] -= min(rate, wave[1])
        done += sum(count for count, left in waves if left <= 1e-9)
        waves = [wave for wave in waves if wave[1] > 1e-9]
        second += 1
        if bound == "requests":
            reads *= 2 ** (1 / limits.doubling)
        if not median and done >= notebooks / 2:
            median = float(second)
    return Outcome(median, float(second), max(held, key=lambda name: held[name]), peak[0], peak[1])


def _fair(waves: list[list[float]], most: float, step: float) -> float:
    """What each notebook gets in a second, at most `step`, so that all get at most `most`."""
    count = sum(wave[0] for wave in waves)
    for number, left in sorted(waves, key=lambda wave: wave[1]):
        level = most / count
        if min(step, left) >= level:
            return min(step, level)
        most, count = most - number * min(step, left), count - number
    return step


def first_limit(fetch: Fetch, limits: Limits = Limits()) -> dict[str, float]:  # noqa: B008
    """For each limit, how many notebooks fetching at full speed at one time reach it."""
    rate = limits.client / fetch.size
    return {
        "requests": limits.reads / (rate * fetch.requests),
        "egress": limits.egress / limits.client,
    }
