"""Which budgets are possible, and how they are written."""

from __future__ import annotations

from typing import get_args

import pytest

from app.pages.layers.budget.steps import BudgetSteps, curve_steps, even_steps, overhead
from core.allocation.request import BudgetKind
from core.bitsmap import BitsMap
from core.estimation import sizes
from core.model.tree import resolve_schemes
from core.schemes import LayerScheme
from tests.core.paper_model import llama

TREE = llama(4)
PLAIN = BitsMap(LayerScheme(4, 64))


def test_even_steps_go_from_the_fewest_bits_to_the_most() -> None:
    steps = even_steps(TREE, PLAIN, (2, 8), "auto_round", "bytes")
    ends = [
        sizes.output_size(TREE, resolve_schemes(TREE, BitsMap(LayerScheme(bits, 64))), "auto_round").total
        for bits in (2, 8)
    ]
    assert [steps.values[0], steps.values[-1]] == ends
    assert list(steps.values) == sorted(steps.values)


def test_sixteen_bits_are_sixteen() -> None:
    assert even_steps(TREE, PLAIN, (4, 16), "auto_round", "bpw").values[-1] == 16


def test_memory_is_the_file_and_what_running_takes_besides() -> None:
    assert curve_steps("ram", [100, 200], [2.0, 4.0], 7).values == (107.0, 207.0)
    assert overhead(TREE) > 0


def test_points_alike_are_one_step() -> None:
    assert curve_steps("bpw", [100, 100, 200], [2.0, 2.0, 4.0], 0).values == (2.0, 4.0)


@pytest.mark.parametrize(("most", "suffix"), [(5e9, "GB"), (110e6, "MB"), (9e5, "kB")])
def test_the_unit_suits_the_size(most: float, suffix: str) -> None:
    assert BudgetSteps("bytes", (1.0, most)).unit.suffix == suffix


def test_bits_are_bits() -> None:
    assert BudgetSteps("bpw", (2.0, 8.0)).unit.suffix == "bits"
    assert set(get_args(BudgetKind)) == {"bpw", "bytes", "ram"}


@pytest.mark.parametrize(("value", "place"), [(1.0, 0), (2.0, 0), (2.9, 0), (3.0, 1), (99.0, 2)])
def test_a_value_stands_at_the_step_below_it(value: float, place: int) -> None:
    assert BudgetSteps("bpw", (2.0, 3.0, 4.0)).place(value) == place
