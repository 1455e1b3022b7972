"""Plots as SVG text: bars with whiskers, and curves on logarithmic axes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from .report import amount

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1, ""), (1e-3, "m"), (1e-6, "\u03bc"))
_WIDTH, _LEFT, _RIGHT, _ROW = 860, 290, 90, 26


def bars(contenders: Mapping[str, Mapping[str, Any]], unit: str) -> str:
    """One bar a contender. Logarithmic if the longest would make the shortest vanish."""
    top = max(one["most"] for one in contenders.values()) or 1.0
    least = min(one["median"] for one in contenders.values() if one["median"] > 0)
    scale = _Log(least / 2, top) if top / least > 40 else _Linear(top)
    room, height = _WIDTH - _LEFT - _RIGHT, _ROW * len(contenders) + 30
    parts = [_tick(scale, value, room, height - 22, unit) for value in scale.ticks]
    for number, (name, one) in enumerate(contenders.items()):
        parts += _bar(number * _ROW + 4, name, one, scale, room, unit)
    if isinstance(scale, _Log):
        parts.append(f'<text class="soft" x="4" y="{height - 6}">logarithmic</text>')
    return _svg(height, "Times of each contender", parts)


def _bar(
    y: float, name: str, one: Mapping[str, Any], scale: _Scale, room: float, unit: str
) -> Iterator[str]:
    kind = "ours" if name.partition(": ")[2].startswith("artcache") or _ours(name) else "peer"
    long = scale(one["median"]) * room
    low, high = (_LEFT + scale(one[word]) * room for word in ("least", "most"))
    middle = y + 9
    yield f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(_short(name))}</text>'
    box = f'x="{_LEFT}" y="{y}" width="{max(long, 1):.1f}" height="18" rx="2"'
    yield f'<rect class="{kind}" {box}/>'
    if high - low > 2:
        yield (
            f'<path class="whisker" fill="none" d="M{low:.1f} {middle}H{high:.1f}'
            f'M{low:.1f} {middle - 4}v8M{high:.1f} {middle - 4}v8"/>'
        )
    text = amount(one["median"], unit)
    yield f'<text x="{max(high, _LEFT + long) + 6:.1f}" y="{y + 13}">{text}</text>'


def _ours(name: str) -> bool:
    return name.startswith(("artcache", "hit", "first look", "again"))


def _short(name: str) -> str:
    return name if len(name) <= 40 else name[:38] + "\u2026"


def _tick(scale: _Scale, value: float, room: float, bottom: float, unit: str) -> str:
    x = _LEFT + scale(value) * room
    return (
        f'<path class="axis" d="M{x:.1f} 0V{bottom}"/><text class="soft" x="{x:.1f}"'
        f' y="{bottom + 16}" text-anchor="middle">{_round(value, unit)}</text>'
    )


def _round(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / 1e6:g} MB"
    if value >= 1 or value == 0:
        return f"{value:g} s"
    return f"{value * 1000:g} ms" if value >= 0.001 else f"{value * 1e6:g} us"


# -- curves -------------------------------------------------------------------------------


def growth(plot: Mapping[str, Any]) -> str:
    """Points and fitted lines on logarithmic axes, one panel a measure."""
    panels = list(plot["panels"])
    wide = _WIDTH / len(panels)
    parts: list[str] = []
    for number, panel in enumerate(panels):
        parts += _panel(panel, number * wide, wide, plot["x"])
    return _svg(270, plot["title"], parts)


def _panel(panel: Mapping[str, Any], left: float, wide: float, x_name: str) -> Iterator[str]:
    points: Sequence[tuple[float, float]] = panel["points"]
    if not points:
        return
    xs, ys = [max(p[0], 1e-9) for p in points], [max(p[1], 1e-9) for p in points]
    across, up = _Log(min(xs), max(xs)), _Log(min(ys) / 1.5, max(ys) * 1.5)
    at = left + 62
    room, tall = wide - 84, 190

    def place(x: float, y: float) -> str:
        return f"{at + across(x) * room:.1f} {24 + (1 - up(y)) * tall:.1f}"

    yield f'<text x="{at}" y="14">{escape(panel["title"])}</text>'
    for value in across.ticks:
        x = at + across(value) * room
        yield f'<path class="axis" d="M{x:.1f} 24V{24 + tall}"/>'
        yield _label(x, 40 + tall, "middle", si(value))
    for value in up.ticks:
        y = 24 + (1 - up(value)) * tall
        yield f'<path class="axis" d="M{at} {y:.1f}h{room:.1f}"/>'
        yield _label(at - 6, y + 4, "end", si(value))
    yield _label(at + room / 2, 58 + tall, "middle", x_name)
    if panel.get("fit"):
        line = "L".join(place(x, y) for x, y in panel["fit"])
        yield f'<path class="fit" d="M{line}"/>'
    for x, y in zip(xs, ys, strict=True):
        cx, cy = place(x, y).split()
        yield f'<circle class="ours" cx="{cx}" cy="{cy}" r="4"/>'


def _label(x: float, y: float, anchor: str, text: str) -> str:
    return (
        f'<text class="soft" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'
    )


def si(value: float) -> str:
    """A round number with a prefix: 20k, 1.5M, 5m."""
    for size, letter in (
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1, ""),
        (1e-3, "m"),
        (1e-6, "\u03bc"),
    ):
        if abs(value) >= size * 0.9999:
            return f"{value / size:.3g}{letter}"
    return f"{value:.3g}"


# -- scales -------------------------------------------------------------------------------


class _Scale:
    ticks: list[float]

    def __call__(self, value: float) -> float:
        """A value's place, 0 to 1."""
        raise NotImplementedError


class _Linear(_Scale):
    def __init__(self, top: float) -> None:
        self._top = top
        self.ticks = nice_ticks(top)

    def __call__(self, value: float) -> float:
        return value / self._top


class _Log(_Scale):
    def __init__(self, low: float, high: float) -> None:
        self._low, self._high = math.log10(low), math.log10(max(high, low * 1.001))
        tens = range(math.ceil(self._low - 1e-9), math.floor(self._high + 1e-9) + 1)
        steps = (1,) if len(tens) > 2 else (1, 2, 5)
        more = range(math.floor(self._low), math.floor(self._high) + 1)
        found = [step * 10.0**power for power in more for step in steps]
        self.ticks = [v for v in found if self._low - 1e-9 <= math.log10(v) <= self._high + 1e-9]

    def __call__(self, value: float) -> float:
        if value <= 0:
            return 0.0
        return max(0.0, (math.log10(value) - self._low) / (self._high - self._low))


def _svg(height: float, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg viewBox="0 0 {_WIDTH} {height:.0f}" role="img" aria-label="{escape(title)}">'
        + "".join(parts)
        + "</svg>"
    )


def nice_ticks(top: float) -> list[float]:
    """Up to six round numbers from 0 to `top`."""
    step = 10 ** math.floor(math.log10(top or 1))
    for part in (0.2, 0.5, 1, 2):
        if top / (step * part) <= 5:
            step *= part
            break
    return [step * number for number in range(int(top / step) + 1)]
