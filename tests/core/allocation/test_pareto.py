"""The Pareto curve and the bits maps of its points."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.allocation.pareto import pareto
from core.allocation.problem import AllocationRequest, Budget, allocate
from core.bitsmap import Rule
from core.estimation.sizes import output_size
from core.model.tree import resolve_schemes
from tests.core.allocation.problems import table_for
from tests.core.paper_model import llama

TREE = llama(5, tied=False)
TABLE = table_for(TREE, without=("lm_head",))
REQUEST = AllocationRequest(
    Budget("bpw", 4), (2, 3, 4, 8, 16), pins=(Rule("*.1.mlp.*", bits=4),), format_name="auto_gptq"
)
CURVE = pareto(TREE, TABLE, REQUEST)


@pytest.mark.parametrize("index", [0, 1, 7, len(CURVE) // 2, len(CURVE) - 2, -1])
def test_the_map_of_a_point_has_its_bytes_bits_and_loss_increase(index: int) -> None:
    plans = resolve_schemes(TREE, CURVE.map_at(index))
    assert output_size(TREE, plans, "auto_gptq").total == CURVE.bytes[index]
    assert TABLE.total([plan for plan in plans if plan.linear.block >= 0]) == pytest.approx(CURVE.loss_increase[index])


def test_the_bits_of_a_point_are_those_of_its_allocation() -> None:
    for index in (0, len(CURVE) // 3, len(CURVE) - 1):
        found = allocate(TREE, TABLE, replace(REQUEST, budget=Budget("bytes", int(CURVE.bytes[index]))))
        assert found.bits == pytest.approx(CURVE.bits[index])
        assert found.loss_increase == pytest.approx(CURVE.loss_increase[index])


def test_no_allocation_is_below_the_curve() -> None:
    for size in np.linspace(CURVE.bytes[0], CURVE.bytes[-1], 12).astype(int).tolist():
        found = allocate(TREE, TABLE, replace(REQUEST, budget=Budget("bytes", size)))
        assert found.loss_increase >= np.interp(found.cost, CURVE.bytes, CURVE.loss_increase) * (1 - 1e-9)
        assert found.loss_increase <= CURVE.loss_increase[CURVE.within(size)] * (1 + 1e-9)


def test_the_points_have_the_values_of_the_arrays() -> None:
    assert len(CURVE.points) == len(CURVE) > 20
    first = CURVE.points[0]
    assert (first.bytes, first.bits, first.loss_increase) == (CURVE.bytes[0], CURVE.bits[0], CURVE.loss_increase[0])


def test_the_point_within_a_size() -> None:
    assert CURVE.within(int(CURVE.bytes[3])) == 3
    assert CURVE.within(int(CURVE.bytes[3]) - 1) == 2
    assert CURVE.within(1) == -1


def test_a_point_that_is_not_there() -> None:
    with pytest.raises(IndexError):
        CURVE.map_at(len(CURVE))


def test_one_choice_is_one_point() -> None:
    assert len(pareto(TREE, TABLE, AllocationRequest(Budget("bpw", 4), (4,)))) == 1
