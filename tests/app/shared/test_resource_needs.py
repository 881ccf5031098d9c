"""Needed and free resources: verdict of each, and advice about the most serious shortage."""

from __future__ import annotations

from typing import Any

import pytest

from app.shared.resource_needs import (
    FITS,
    SHORT,
    TIGHT,
    UNKNOWN,
    FreeBytes,
    ResourceNeed,
    advice,
    byte_range,
    free_now,
    needs,
)
from core.estimation.costs import Costs, Range

GB = 1e9
COSTS = Costs(Range(1 * GB, 2 * GB), Range(2 * GB, 4 * GB), Range(0, 0), None, 1.0)
PLENTY = FreeBytes(100 * GB, 100 * GB, 100 * GB)


@pytest.mark.parametrize(
    ("free", "verdict"), [(5 * GB, FITS), (4 * GB, FITS), (3 * GB, TIGHT), (1 * GB, SHORT), (None, UNKNOWN)]
)
def test_the_verdict_of_a_need_of_two_to_four_gigabytes(free: float | None, verdict: str) -> None:
    assert ResourceNeed("ram", "Memory", 2 * GB, 4 * GB, free).verdict == verdict


def test_the_download_comes_on_top_of_the_disk() -> None:
    disk = needs(COSTS, 3 * GB, PLENTY)[0]
    assert (disk.low, disk.high) == (4 * GB, 5 * GB)
    assert "download" in disk.title
    assert "download" not in needs(COSTS, 0, PLENTY)[0].title


def test_the_devices_memory_only_where_a_run_uses_it() -> None:
    assert [need.key for need in needs(COSTS, 0, PLENTY)] == ["disk", "ram"]
    on_card = Costs(COSTS.disk, COSTS.ram, Range(1, 2), None, 1.0)
    assert [need.key for need in needs(on_card, 0, PLENTY)] == ["disk", "ram", "device"]


@pytest.mark.parametrize(
    ("free", "words"),
    [
        (PLENTY, ""),
        (FreeBytes(100 * GB, 3 * GB), "tight"),
        (FreeBytes(100 * GB, 1 * GB), "still try"),
        (FreeBytes(0.5 * GB, 1 * GB), "disk"),
        (FreeBytes(None, None), ""),
    ],
)
def test_advice_is_about_the_worst(free: FreeBytes, words: str) -> None:
    text = advice(needs(COSTS, 0, free))
    assert words in text
    assert bool(text) == bool(words)


def test_a_range_of_bytes_names_its_unit_once() -> None:
    assert byte_range(0.55e9, 1.5e9) == "550 MB to 1.5 GB"
    assert byte_range(1.1e9, 1.5e9) == "1.1 to 1.5 GB"
    assert byte_range(1.5e9, 1.5e9) == "1.5 GB"


def test_free_bytes_are_those_of_this_machine(context: Any) -> None:
    free = free_now(context.draft)
    assert free.disk is not None
    assert free.disk > 0
    assert free.ram is not None
    assert free.ram > 0
    assert free.device is None
