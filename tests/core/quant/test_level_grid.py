"""Grids with fixed integers: their values, the gradient of their scales, and what is stored."""

from __future__ import annotations

import pytest
import torch

from core.quant.level_grid import LevelGrid, level_grid
from core.quant.start.scale_search import search
from core.schemes import LayerScheme

pytestmark = pytest.mark.usefixtures("both_paths")


def grid_of(sym: bool = True, bits: int = 3) -> tuple[torch.Tensor, LevelGrid]:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(5)) * 0.1
    return weight, level_grid(search(weight, LayerScheme(bits, 32, sym), None))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sym", [True, False])
def test_the_weight_of_a_pass_is_the_stored_one(sym: bool, dtype: torch.dtype) -> None:
    _, grid = grid_of(sym)
    out = torch.empty(24, 96, dtype=dtype)
    grid.step(torch.randn(24, 96), out, 1, 0.01)
    assert torch.equal(grid.freeze("layer").dequantize().to(dtype), out)


@pytest.mark.parametrize("sym", [True, False])
def test_the_slopes_are_the_gradients_of_the_factors(sym: bool) -> None:
    _, grid = grid_of(sym)
    gradient = torch.randn(24, 96)
    factor = grid.factor.clone().requires_grad_(True)
    centered = grid.start.centered().view(24, 3, 32)
    ((centered * (grid.start.scale * factor).unsqueeze(-1)).view(24, 96) * gradient).sum().backward()
    assert factor.grad is not None
    assert torch.allclose(grid.slopes(gradient), factor.grad, atol=1e-4)


def test_steps_against_the_gradient_reduce_the_error() -> None:
    weight, grid = grid_of(bits=2)
    target, out = weight * 1.2, torch.empty_like(weight)
    grid.quantize_into(out)
    before = (out - target).square().sum()
    for left in range(20, 0, -1):
        grid.step(2 * (out - target), out, left, 0.02 * left / 20)
    assert (out - target).square().sum() < 0.9 * before


def test_a_restored_state_gives_the_same_layer() -> None:
    _, grid = grid_of()
    state, before = grid.state(), grid.freeze("layer").dequantize()
    grid.step(torch.randn(24, 96), torch.empty(24, 96), 1, 0.1)
    assert not torch.equal(grid.freeze("layer").dequantize(), before)
    grid.restore(state)
    assert torch.equal(grid.freeze("layer").dequantize(), before)


def test_a_part_steps_the_rows_of_the_whole() -> None:
    _, whole = grid_of()
    _, apart = grid_of()
    gradient, out = torch.randn(24, 96), torch.empty(24, 96)
    whole.step(gradient, out, 1, 0.1)
    for rows in (slice(0, 16), slice(16, 24)):
        apart.part(rows).step(gradient[rows], torch.empty_like(gradient[rows]), 1, 0.1)
    assert torch.equal(whole.now.scale, apart.now.scale)
