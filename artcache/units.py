"""Sizes such as `5G` and ages such as `30d`, as people write and read them. For every room."""

from __future__ import annotations

import re

from .errors import UsageError

HOUR = 3600.0
DAY = 24 * HOUR
_SIZES = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
_BINARY = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_AGES = {"s": 1.0, "min": 60.0, "h": 3600.0, "d": DAY, "w": 7 * DAY, "y": 365 * DAY}


def parse_size(text: str) -> int:
    """Bytes: `500M`, `5G`, `1.5 TB` in powers of 1000, `5Gi` in powers of 1024.

    Raises:
        UsageError: it is no size.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?", text.strip().upper())
    if not match or (match[3] and not match[2]):
        raise UsageError(f"{text!r} is no size", hint="write it like 500M, 5G or 1.5T")
    return int(float(match[1]) * (_BINARY if match[3] else _SIZES)[match[2]])


def parse_age(text: str) -> float:
    """Seconds: `45s`, `30min`, `12h`, `30d`, `2w`, `1y`; of numbers only `0` needs no unit.

    Raises:
        UsageError: it is no age.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if match and match[2] in _AGES:
        return float(match[1]) * _AGES[match[2]]
    if match and not match[2] and float(match[1]) == 0:
        return 0.0
    if match and match[2] in ("", "m"):  # minutes or months?
        hint = f"{match[1]} of what? {match[1]}min, {match[1]}h, {match[1]}d, {match[1]}w"
    else:
        hint = "write it like 12h, 30d or 2w"
    raise UsageError(f"{text!r} is no age", hint=hint)


def human_size(count: float) -> str:
    """Bytes in SI units: `1.2 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(count) < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def human_age(seconds: float) -> str:
    """`5 min`, `3 h`, `12 d`."""
    for size, unit in ((DAY, "d"), (HOUR, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds // size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def human_seconds(seconds: float) -> str:
    """`3 ms`, `8.6 s`, `2 min 5 s`."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
