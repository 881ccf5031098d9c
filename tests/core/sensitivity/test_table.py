"""The table of predicted loss increases, and its JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import CorruptFile
from core.model.plans import LayerPlan
from core.model.tree import Linear
from core.schemes import LayerScheme
from core.sensitivity.table import SensitivityTable, from_json

TWO, FOUR = LayerScheme(2, 64), LayerScheme(4, 64)
TABLE = SensitivityTable("fisher", ("a", "b"), (TWO, FOUR), ((1.0, 0.25), (0.5, 0.125)))


def plan(name: str, scheme: LayerScheme) -> LayerPlan:
    return LayerPlan(Linear(name, 0, name, 64, 64, "BF16", False, False), scheme, "default", "")


def test_the_loss_increase_of_a_layer_is_looked_up_by_its_scheme() -> None:
    assert TABLE.of("b", TWO) == 0.5


def test_sixteen_bits_add_no_loss() -> None:
    assert TABLE.of("a", LayerScheme(16, 64)) == 0.0


def test_another_group_size_or_symmetry_has_the_loss_increase_of_the_same_bits() -> None:
    assert TABLE.of("a", LayerScheme(4, 32, sym=False)) == 0.25


@pytest.mark.parametrize(("layer", "scheme"), [("c", TWO), ("a", LayerScheme(3, 64))])
def test_an_unmeasured_layer_or_scheme_is_none(layer: str, scheme: LayerScheme) -> None:
    assert TABLE.of(layer, scheme) is None


def test_the_loss_increase_of_a_map_is_the_sum_of_its_layers() -> None:
    assert TABLE.total([plan("a", FOUR), plan("b", TWO)]) == 0.75


def test_a_total_with_an_unknown_layer_is_none() -> None:
    assert TABLE.total([plan("a", FOUR), plan("c", TWO)]) is None


@pytest.mark.parametrize(
    "loss_increase", [((1.0,), (1.0,)), ((1.0, 2.0),), ((-1.0, 0.0), (0.0, 0.0)), ((1.0, float("nan")),) * 2]
)
def test_a_table_with_wrong_sizes_or_values_is_refused(loss_increase: tuple[tuple[float, ...], ...]) -> None:
    with pytest.raises(ValueError, match=r"one row|finite"):
        SensitivityTable("fisher", ("a", "b"), (TWO, FOUR), loss_increase)


@given(st.lists(st.tuples(st.floats(0, 1e6), st.floats(0, 1e6)), max_size=5))
def test_a_table_survives_a_round_trip_through_json(rows: list[tuple[float, float]]) -> None:
    table = SensitivityTable("output", tuple(f"layer.{n}" for n in range(len(rows))), (TWO, FOUR), tuple(rows))
    assert from_json(json.loads(json.dumps(table.to_json()))) == table


@pytest.mark.parametrize("value", [None, [], {}, {"version": 2}, {**TABLE.to_json(), "loss_increase": [[1.0]]}])
def test_json_that_is_no_table_is_refused(value: object) -> None:
    with pytest.raises(CorruptFile, match="not a table"):
        from_json(value)
