"""Sizes and ages as people write them."""

from __future__ import annotations

import pytest

from artcache.errors import UsageError
from artcache.units import parse_age, parse_size


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("700", 700),
        ("5G", 5_000_000_000),
        ("5GB", 5_000_000_000),
        ("1.5 tb", 1_500_000_000_000),
        ("500k", 500_000),
        ("5Gi", 5 * 2**30),
        ("2MiB", 2 * 2**20),
    ],
)
def test_a_size_is_in_bytes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "G", "5X", "-1G", "5 G B", "1e9", "i", "5i", "five"])
def test_what_is_no_size_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(UsageError, match="no size") as refused:
        parse_size(text)
    assert "5G" in refused.value.hint


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("0d", 0),
        ("45s", 45),
        ("30min", 1800),
        ("12h", 43200),
        ("30d", 2_592_000),
        ("2w", 1_209_600),
        ("1y", 31_536_000),
        ("1.5 D", 129_600),
    ],
)
def test_an_age_is_in_seconds(text: str, seconds: float) -> None:
    assert parse_age(text) == seconds


@pytest.mark.parametrize(("text", "hint"), [("30", "30d"), ("5m", "5min"), ("x", "30d"), ("", "")])
def test_what_is_no_age_is_refused_and_a_bare_number_is_asked_for_its_unit(
    text: str, hint: str
) -> None:
    with pytest.raises(UsageError, match="no age") as refused:
        parse_age(text)
    assert hint in refused.value.hint
