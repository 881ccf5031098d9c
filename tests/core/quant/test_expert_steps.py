"""Experts that are stepped one at a time in the backward pass get the steps of the whole gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from core.model.plans import LayerPlan
from core.model.slices import ParameterSlice
from core.model.tree import Linear
from core.quant.block_tuning import Tuning, TuningResult, tune_block
from core.quant.expert_steps import ExpertSteps
from core.quant.grid import new_grid
from core.quant.parameter_grid import GridRows, ParameterGrid, RowPlaces
from core.schemes import LayerScheme

EXPERTS, OUT, WIDTH = 4, 64, 32
ENDS = torch.tensor([5, 5, 20, 24], dtype=torch.int32)
"""The second expert gets no row."""


def layers_of(parameter: nn.Parameter, *, schemes: tuple[LayerScheme, ...], grouped: bool) -> list[ParameterGrid]:
    """Return the grids of a parameter: one for each scheme, whose layers alternate within each expert."""
    count, made = len(schemes), []
    size = OUT // count
    for number, scheme in enumerate(schemes):
        places = [
            ParameterSlice("p", expert, slice(number * size, (number + 1) * size), slice(None), False)
            for expert in range(EXPERTS)
        ]
        rows = [
            GridRows(
                LayerPlan(Linear(f"experts.{e}.{number}", 0, "", WIDTH, size, "F32", False, False), scheme, "", ""),
                place, e * size, (e + 1) * size,
            )
            for e, place in enumerate(places)
        ]  # fmt: skip
        grid_places = RowPlaces(parameter.shape, places)
        weight = grid_places.read(parameter.data).clone()
        grid = new_grid(weight, scheme, iterations=40, rate=1 / 40)
        made.append(ParameterGrid(grid, parameter, grid_places, rows, 0.05, True, grouped=grouped))
    return made


def tuned(grouped: bool, schemes: tuple[LayerScheme, ...], accumulate: int = 1) -> tuple[TuningResult, list[Any]]:
    generator = torch.Generator().manual_seed(3)
    parameter = nn.Parameter(torch.randn(EXPERTS, OUT, WIDTH, generator=generator) * 0.1, requires_grad=False)
    mix = torch.randn(WIDTH, WIDTH, generator=generator) + 2.0
    inputs = torch.randn(8, 24, WIDTH, generator=generator) @ mix * 0.1  # correlated: rounding to nearest is not best

    def product(rows: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        sorted_rows = rows.transpose(0, 1).reshape(-1, WIDTH)  # sorted by expert
        out = functional.grouped_mm(sorted_rows, weight.transpose(1, 2), offs=ENDS * len(rows))
        return out.view(24, len(rows), OUT).transpose(0, 1)

    targets = product(inputs, parameter.data)
    layers = layers_of(parameter, schemes=schemes, grouped=grouped)

    def forward(index: torch.Tensor) -> torch.Tensor:
        return product(inputs[index], parameter)

    result = tune_block(
        layers, forward, lambda index: targets[index], 8, Tuning(40, 4, accumulate, 0), lambda *_: None, lambda: False
    )
    return result, [parameter.data, *(layer.grid.state()[0] for layer in layers)]


@pytest.mark.parametrize(
    "schemes", [(LayerScheme(3, 32),), (LayerScheme(3, 32, False),), (LayerScheme(2, 32), LayerScheme(4, 32))]
)
def test_the_result_is_that_of_the_whole_gradient(schemes: tuple[LayerScheme, ...]) -> None:
    whole, expected = tuned(False, schemes)
    by_expert, found = tuned(True, schemes)
    assert by_expert.best_iteration == whole.best_iteration > 0
    assert by_expert.loss_after == pytest.approx(whole.loss_after, rel=1e-5)
    for one, other in zip(found, expected, strict=True):
        assert (one != other).float().mean() < 0.01  # products of other sizes are rounded differently


def test_experts_without_tokens_keep_their_rounding() -> None:
    _, (_, offset) = tuned(True, (LayerScheme(3, 32),))
    moved = offset.view(EXPERTS, -1).abs().sum(1)
    assert moved[1] == 0
    assert all(moved[expert] > 0 for expert in (0, 2, 3))


def test_accumulated_gradients_use_the_whole_gradient() -> None:
    result, found = tuned(True, (LayerScheme(3, 32),), accumulate=2)
    whole, expected = tuned(False, (LayerScheme(3, 32),), accumulate=2)
    assert result == whole
    assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_second_product_in_one_pass_is_an_error() -> None:
    parameter = nn.Parameter(torch.randn(EXPERTS, OUT, WIDTH), requires_grad=False)
    steps = ExpertSteps(layers_of(parameter, schemes=(LayerScheme(4, 32),), grouped=True), lambda: (1, 1.0))
    rows, weight = torch.randn(24, WIDTH), parameter.transpose(1, 2)
    with steps:
        functional.grouped_mm(rows, weight, offs=ENDS)
        with pytest.raises(RuntimeError, match="more than once"):
            functional.grouped_mm(rows, weight, offs=ENDS)
    with steps:
        functional.grouped_mm(rows, weight, offs=ENDS)


def test_transposed_and_typed_parameters_are_not_supported() -> None:
    parameter = nn.Parameter(torch.randn(EXPERTS, OUT, WIDTH), requires_grad=False)
    (layer,) = layers_of(parameter, schemes=(LayerScheme(4, 32),), grouped=True)
    assert ExpertSteps.supported(layer)
    (other,) = layers_of(parameter, schemes=(LayerScheme(4, 32),), grouped=False)
    assert not ExpertSteps.supported(other)
