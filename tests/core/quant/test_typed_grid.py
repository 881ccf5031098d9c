"""Tuning on a block type's own grid: what is tuned is what is stored, and offsets follow the true gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.block_types import TYPES
from core.formats.gguf.blocks import BlockLinear, decode
from core.model.slices import ParameterSlice
from core.quant import grid as grids
from core.quant.block_tuning import Tuning, tune_block
from core.quant.grid import Grid
from core.quant.parameter_grid import ParameterGrid, RowPlaces
from core.schemes import LayerScheme

PATHS = pytest.mark.parametrize("compiled", [True, False], ids=["compiled", "portable"])
KINDS = pytest.mark.parametrize("name", sorted(TYPES))


def made(name: str, compiled: bool, seed: int, dtype: torch.dtype = torch.float32) -> tuple[Grid, torch.Tensor]:
    """A grid in the middle of its tuning, and a gradient."""
    generator = torch.Generator().manual_seed(seed)
    weight = (torch.randn(24, 512, generator=generator) * 0.05).to(dtype)
    importance = torch.rand(512, generator=generator)
    scheme = LayerScheme.of_type(name)
    grid = grids.new_grid(weight, scheme, iterations=50, rate=0.02, importance=importance, compiled=compiled)
    grid.offset += torch.randint(-1000, 1000, weight.shape, generator=generator, dtype=torch.int16)
    return grid, (torch.randn(weight.shape, generator=generator) * 1e-7).to(dtype)


@KINDS
@PATHS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_weight_of_the_last_step_is_what_is_stored(name: str, compiled: bool, dtype: torch.dtype) -> None:
    grid, gradient = made(name, compiled, 1, dtype)
    out = torch.empty(grid.weight.shape)
    grid.step(gradient, out, 10, 0.01)
    assert torch.equal(grid.freeze("layer").dequantize(), out)


@KINDS
def test_the_file_gives_the_weight_of_the_last_step(name: str) -> None:
    grid, gradient = made(name, True, 2)
    out = torch.empty(grid.weight.shape)
    grid.step(gradient, out, 10, 0.01)
    layer = grid.freeze("layer")
    assert isinstance(layer, BlockLinear)
    assert torch.equal(decode("layer", name, layer.encode()).dequantize(), out)


def reference(grid: Grid, offset: torch.Tensor) -> torch.Tensor:
    """W_q by autograd-friendly operations, from the description of the types in `BlockLinear`."""
    kind, layer = TYPES[grid.scheme.type], grid.freeze("layer")
    assert isinstance(layer, BlockLinear)
    step = layer.d.float().repeat_interleave(kind.block // kind.group, 1)
    low = torch.zeros_like(step) if layer.m is None else layer.m.float().repeat_interleave(kind.block // kind.group, 1)
    if layer.scales is not None:
        step = step * layer.scales
        low = low if layer.mins is None else -(low * layer.mins)
    step, low = step.unsqueeze(-1), low.unsqueeze(-1)
    ratio = (grid.weight.view(*grid.scale.shape, -1) - low) / step
    if kind.code_book:
        first, *inner, last = kind.code_book
        codes = [first + 99 * (first - inner[0]), first, *inner, last, last + 99 * (last - inner[-1])]
        ratio = torch.from_numpy(np.interp(ratio.numpy(), codes, [-99, *range(16), 114])).float()
    raw = ratio + offset.view(*grid.scale.shape, -1)
    level = ((raw.round() - raw).detach() + raw).clamp(*grid.bounds)
    if kind.code_book:
        value = torch.tensor(kind.code_book)[level.detach().round().long()]
        level = (value - level).detach() + level
    return (level * step + low).view_as(grid.weight)


@KINDS
@PATHS
def test_the_dequantized_weight_is_that_of_the_description(name: str, compiled: bool) -> None:
    grid, _ = made(name, compiled, 3)
    out = torch.empty_like(grid.weight)
    grid.quantize_into(out)
    # A straight-through sum is rounded once more than the grid's levels.
    assert torch.allclose(out, reference(grid, grid.offset.float() * grid.unit), rtol=1e-5, atol=1e-7)


@KINDS
@PATHS
def test_a_step_follows_the_signs_of_autograd(name: str, compiled: bool) -> None:
    grid, gradient = made(name, compiled, 4)
    offset = (grid.offset.float() * grid.unit).requires_grad_()
    reference(grid, offset).backward(gradient)
    before = grid.offset.clone()
    grid.step(gradient, torch.empty_like(grid.weight), 37, 0.004)
    assert offset.grad is not None
    expected = (-37 * offset.grad.sign()).to(torch.int16)
    # Straight-through levels just at the end of their range are off it by one rounding.
    assert (grid.offset - before == expected).float().mean() > 0.999


@KINDS
def test_no_step_moves_the_scales(name: str) -> None:
    grid, gradient = made(name, True, 6)
    scale = grid.scale.clone()
    grid.step(gradient, torch.empty_like(grid.weight), 1, 0.5)
    grid.set_scales()
    assert torch.equal(grid.scale, scale)


@KINDS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_the_two_paths_agree(name: str, dtype: torch.dtype) -> None:
    results = []
    for compiled in (True, False):
        grid, gradient = made(name, compiled, 5, dtype)
        out = torch.empty(grid.weight.shape, dtype=dtype)
        grid.step(gradient, out, 3, 0.0)
        results.append((grid.offset, out))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(TYPES)),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, 1.0, 3e4]),
)
def test_all_that_is_stored_is_finite_and_in_its_range(name: str, seed: int, spread: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(8, 256, generator=generator) * spread
    weight[0] = 0.0
    weight[1, ::7] *= 1000.0
    weight.clamp_(-6e4, 6e4)
    grid = grids.new_grid(weight, LayerScheme.of_type(name), iterations=1, rate=0.5)
    grid.offset += torch.randint(-1, 2, weight.shape, generator=generator, dtype=torch.int16)
    out = torch.empty_like(weight)
    grid.quantize_into(out)
    layer = grid.freeze("layer")
    assert isinstance(layer, BlockLinear)
    assert bool(torch.isfinite(out).all())
    assert torch.equal(decode("layer", name, layer.encode()).dequantize(), out)


@KINDS
def test_no_step_is_zero(name: str) -> None:
    weight = torch.zeros(4, 256)
    weight[1, 0], weight[2, ::16] = 1.0, 1e-6
    grid = grids.new_grid(weight, LayerScheme.of_type(name))
    assert bool((grid.scale != 0).all())


def test_a_plain_scheme_has_no_base() -> None:
    grid = grids.new_grid(torch.randn(32, 64), LayerScheme(4, 32, False))
    assert grid.base is None
    assert grid.numbers is None


@KINDS
def test_tuning_beats_plain_rounding(name: str) -> None:
    generator = torch.Generator().manual_seed(11)
    weight = torch.randn(32, 256, generator=generator) * 0.1
    # Correlated inputs: the nearest level of each weight by itself is then not the best choice.
    mix = torch.randn(256, 256, generator=generator) + 1.0
    inputs = torch.randn(12, 16, 256, generator=generator) @ mix * 0.1
    targets = inputs @ weight.t()
    parameter = torch.nn.Parameter(weight.clone(), requires_grad=False)
    places = RowPlaces(weight.shape, [ParameterSlice("weight", None, slice(None), slice(None), False)])
    grid = grids.new_grid(weight, LayerScheme.of_type(name), iterations=40, rate=1 / 40)
    outcome = tune_block(
        [ParameterGrid(grid, parameter, places, [], 1 / 40, True)],
        lambda index: inputs[index] @ parameter.t(),
        lambda index: targets[index],
        12,
        Tuning(40, 4, 1, 0),
        lambda iteration, loss: None,
        lambda: False,
    )
    assert outcome.loss_after < 0.95 * outcome.loss_before
    assert torch.equal(grid.freeze("layer").dequantize(), parameter)
