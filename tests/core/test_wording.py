"""Tests of the display of numbers and units."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import datetime

import pytest

from core.wording import count, day, duration, exact_bytes, figure, human, percentage, short_figure, time_range


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (98_100_000, "98.1 MB"),
        (999_700_000, "1 GB"),
        (7e12, "7 TB"),
    ],
)
def test_bytes(bytes_: float, text: str) -> None:
    assert human(bytes_) == text


@pytest.mark.parametrize(
    ("bytes_", "text"),
    [
        (12, "12 bytes"),
        (1_500_000_000, "1.5 GB"),
        (8_000_000_000, "8 GB"),
        (2_000_001_000_000, "2000.001 GB"),
        (1_234_567, "1234.567 kB"),
        (123_456_789_012_345, "123456789012.345 kB"),
        (10_000_000_001, "10000000.001 kB"),
    ],
)
def test_exact_bytes(bytes_: int, text: str) -> None:
    assert exact_bytes(bytes_) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (0.042, "42 ms"), (2.54, "2.5 s"), (45, "45 s"), (700, "12 min"), (12_600, "3.5 h")],
)
def test_seconds(seconds: float, text: str) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [(180, 300, "3 to 5 min"), (40, 300, "40 s to 5 min"), (700, 710, "about 12 min"), (5, 9, "5.0 to 9.0 s")],
)
def test_ranges(low: float, high: float, text: str) -> None:
    assert time_range(low, high) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.14712, "0.147"), (23.94, "23.9"), (12895.2, "12,895"), (2.4e-5, "2.4e-05")]
)
def test_figures(value: float, text: str) -> None:
    assert figure(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (0.123, "0.12"),
        (12.3, "12"),
        (1234.5, "1,234"),
        (0.00234, "2.3e-3"),
        (4e-12, "4.0e-12"),
        (2.5e7, "2.5e7"),
    ],
)
def test_short_figures(value: float, text: str) -> None:
    assert short_figure(value) == text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.0, "0 %"), (0.00123, "0.12 %"), (0.0314, "3.1 %"), (0.0996, "10 %"), (0.456, "46 %"), (1.234, "120 %")],
)
def test_percentages(share: float, text: str) -> None:
    assert percentage(share) == text


@pytest.mark.parametrize("format_figure", [figure, short_figure, percentage])
def test_what_is_no_number_is_a_dash(format_figure: Callable[[float], str]) -> None:
    assert format_figure(math.nan) == "\N{EN DASH}"


@pytest.mark.parametrize(
    ("number", "text"), [(134_515_008, "135 million"), (1.24e9, "1.24 billion"), (12_480, "12,480")]
)
def test_counts(number: float, text: str) -> None:
    assert count(number) == text


@pytest.mark.parametrize(("month", "text"), [(3, "03 Mar"), (5, "03 May"), (10, "03 Oct"), (12, "03 Dec")])
def test_a_day_is_told_in_one_language_whatever_the_locale(month: int, text: str) -> None:
    assert day(datetime(2026, month, 3)) == text  # noqa: DTZ001 - a day alone
