"""Budgets, allocation requests and sizes written as text."""

from __future__ import annotations

import math

import pytest

from core.allocation.request import AllocationRequest, Budget, parse_size
from core.bitsmap import Rule
from core.errors import BadInput
from core.schemes import LayerScheme


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("110MB", 110_000_000),
        ("1.5 GB", 1_500_000_000),
        (" 2gib ", 2 << 30),
        ("110000000", 110_000_000),
        ("7 bytes", 7),
        ("3k", 3000),
        (".5MiB", 1 << 19),
        ("8T", 8 * 10**12),
    ],
)
def test_a_size_with_a_unit_is_parsed(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "MB", "-3MB", "3 XB", "1e9", "0", "5ib", "3.MBMB"])
def test_a_text_that_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not a size"):
        parse_size(text)


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan])
def test_a_budget_must_be_finite_and_positive(value: float) -> None:
    with pytest.raises(BadInput, match="is not possible"):
        Budget("bpw", value)


def test_an_unknown_kind_of_budget_is_refused() -> None:
    with pytest.raises(BadInput, match="no budget of the kind 'pounds'"):
        Budget("pounds", 3)  # type: ignore[arg-type]


@pytest.mark.parametrize("choices", [(), (4, 5)])
def test_choices_that_are_no_valid_bits_are_refused(choices: tuple[int, ...]) -> None:
    with pytest.raises(BadInput, match="bits to choose from"):
        AllocationRequest(Budget("bpw", 4), choices)


def test_a_minimum_without_bits_is_refused() -> None:
    with pytest.raises(BadInput, match="minimum"):
        AllocationRequest(Budget("bpw", 4), min_bits=(Rule("*", group_size=32),))


def test_a_pin_that_sets_nothing_is_refused() -> None:
    with pytest.raises(BadInput, match="sets neither bits"):
        AllocationRequest(Budget("bpw", 4), pins=(Rule("*"),))


def test_schemes_are_the_sorted_choices_without_duplicates() -> None:
    assert AllocationRequest(Budget("bpw", 4), (8, 3, 8), group_size=64, sym=False).schemes() == (
        LayerScheme(3, 64, False),
        LayerScheme(8, 64, False),
    )


def test_the_label_of_a_budget_has_its_unit() -> None:
    assert [Budget("bpw", 3.5).label(), Budget("ram", 8e9).label(), Budget("bytes", 1).label(2000)] == [
        "3.5 bits per weight",
        "8 GB",
        "2 kB",
    ]
