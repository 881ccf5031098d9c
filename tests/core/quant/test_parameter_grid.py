"""Grids of parameters with many matrices: every expert has its own scales, and rows return to their places."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from core.formats.quantized import QuantizedLinear
from core.model.plans import LayerPlan
from core.model.slices import ParameterSlice
from core.model.tree import Linear
from core.quant.grid import new_grid
from core.quant.parameter_grid import GridRows, ParameterGrid, RowPlaces, joined
from core.schemes import LayerScheme

SCHEME = LayerScheme(4, 32)
EVERYTHING = slice(None)


def plan(name: str, out: int, inputs: int = 64) -> LayerPlan:
    linear = Linear(name, 0, name, inputs, out, "F32", False, False)
    return LayerPlan(linear, SCHEME, "", "")


def halves(expert: int, interleaved: bool, transposed: bool) -> list[ParameterSlice]:
    """Return the places of the gate and up projections of an expert in a parameter with 48 output rows."""
    rows = (slice(0, 48, 2), slice(1, 48, 2)) if interleaved else (slice(0, 24), slice(24, 48))
    return [ParameterSlice("experts", expert, part, EVERYTHING, transposed) for part in rows]


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize("experts", [[0, 1, 2], [1], [0, 2]])
def test_rows_are_read_and_written_at_their_places(experts: list[int], interleaved: bool, transposed: bool) -> None:
    shape = (3, 64, 48) if transposed else (3, 48, 64)
    parameter = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    places = [place for expert in experts for place in halves(expert, interleaved, transposed)]
    expected = torch.cat([place.view(parameter) for place in places])
    rows = RowPlaces(shape, places)
    assert torch.equal(rows.read(parameter), expected)
    written = parameter.clone()
    rows.write(written, expected * 2)
    assert torch.equal(rows.read(written), expected * 2)
    untouched = torch.ones(3, dtype=torch.bool)
    untouched[experts] = False
    assert torch.equal(written[untouched], parameter[untouched])


def test_matrices_below_each_other_are_rows_of_their_expert() -> None:
    parameter = torch.arange(6 * 4.0).view(6, 4)  # three experts of [in, out] = [2, 4]
    place = ParameterSlice("w2", 1, EVERYTHING, EVERYTHING, True, 2)
    rows = RowPlaces((6, 4), [place])
    assert torch.equal(rows.read(parameter), parameter[2:4].T)
    rows.write(parameter, torch.zeros(4, 2))
    assert parameter[2:4].abs().sum() == 0
    assert parameter[:2].abs().sum() > 0


def test_every_expert_has_scales_of_its_own() -> None:
    parameter = nn.Parameter(torch.randn(3, 48, 64), requires_grad=False)
    parameter.data *= torch.tensor([1.0, 10.0, 100.0]).view(3, 1, 1)
    members = [(expert, place) for expert in range(3) for place in halves(expert, False, False)]
    places = RowPlaces(parameter.shape, [place for _, place in members])
    rows = [
        GridRows(plan(f"experts.{expert}.{part}", 24), place, 24 * number, 24 * (number + 1))
        for number, ((expert, place), part) in enumerate(zip(members, ("gate", "up") * 3, strict=True))
    ]
    grid = new_grid(places.read(parameter.data).clone(), SCHEME)
    layer = ParameterGrid(grid, parameter, places, rows, 0.0, True)
    found = {stored.name: stored for _, stored in layer.layers()}
    for (expert, place), part in zip(members, ("gate", "up") * 3, strict=True):
        alone = new_grid(place.view(parameter.data).clone(), SCHEME).freeze(f"experts.{expert}.{part}")
        stored = found[f"experts.{expert}.{part}"]
        assert all(torch.equal(a, b) for a, b in zip(stored.parts(), alone.parts(), strict=True))


def test_a_layer_in_several_parameters_is_put_together_by_its_rows() -> None:
    item = plan("qkv", 6)
    weight = torch.randn(6, 64)
    whole = new_grid(weight, SCHEME).freeze("qkv")
    orders = (torch.tensor([4, 0, 2]), torch.tensor([1, 3, 5]))
    parts = [
        (
            GridRows(item, ParameterSlice("p", None, EVERYTHING, order, False), 0, 3),
            new_grid(weight[order], SCHEME).freeze("qkv"),
        )
        for order in orders
    ]
    found = joined(parts)
    assert isinstance(found, QuantizedLinear)
    assert all(torch.equal(a, b) for a, b in zip(found.parts(), whole.parts(), strict=True))
