"""Grids with learned integers: their values, the moves of levels, and what is stored."""

from __future__ import annotations

import pytest
import torch

from core.quant.latent_grid import LEARNED_BITS, LatentGrid, latent_grid, unit_bits
from core.quant.start.scale_search import search
from core.schemes import LayerScheme

pytestmark = pytest.mark.usefixtures("both_paths")


def grid_of(sym: bool = True, bits: int = 3, iterations: int = 10) -> tuple[torch.Tensor, LatentGrid]:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(5)) * 0.1
    return weight, latent_grid(search(weight, LayerScheme(bits, 32, sym), None), weight, iterations, 1.0)


@pytest.mark.parametrize("bits", LEARNED_BITS)
@pytest.mark.parametrize("sym", [True, False])
def test_the_first_integers_are_those_of_the_start(sym: bool, bits: int) -> None:
    weight = torch.randn(24, 96, generator=torch.Generator().manual_seed(5)) * 0.1
    start = search(weight, LayerScheme(bits, 32, sym), None)
    start.levels.copy_(torch.randint(0, 1 << bits, start.levels.shape))  # far from plain rounding, as error feedback is
    grid = latent_grid(start, weight, 10, 1.0)
    assert torch.equal(grid.settled().start.levels, start.levels)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("sym", [True, False])
def test_the_weight_of_a_pass_is_the_stored_one(sym: bool, dtype: torch.dtype) -> None:
    _, grid = grid_of(sym)
    out, before = torch.empty(24, 96, dtype=dtype), grid.freeze("layer").ints
    for left in range(10, 0, -1):
        grid.step(torch.randn(24, 96), out, left, 0.01 * left / 10)
    stored = grid.freeze("layer")
    assert not torch.equal(stored.ints, before)
    assert torch.equal(stored.dequantize().to(dtype), out)


def test_a_step_moves_latent_levels_and_factors_against_their_gradients() -> None:
    (_, grid), gradient = grid_of(), torch.randn(24, 96)
    _, other = grid_of()
    out = torch.empty(24, 96)
    grid.step(gradient, out, 7, 0.01)
    other.latent = other.latent.clone()
    sums = torch.empty_like(other.scales.scale)
    levels = other.levels().view(24, 3, 32) - other.scales.start.zero.unsqueeze(-1)
    sums = (levels * gradient.view(24, 3, 32)).sum(-1)
    moves = (gradient.sign().view(24, 3, 32) * other.scales.scale.sign().unsqueeze(-1)).view(24, 96)
    expected = (other.latent - moves * round(7 * other.unit_step)).clamp(*other.limits)
    assert torch.equal(grid.latent, expected.to(torch.int16))
    factors = 1 - (sums * other.scales.start.scale).sign() * 0.01
    assert torch.equal(grid.scales.factor, factors)


def test_levels_stay_in_their_range() -> None:
    for bits in LEARNED_BITS:
        _, grid = grid_of(bits=bits, iterations=1)
        for direction in (1.0, -1.0):
            for _ in range(40):
                grid.step(torch.full((24, 96), direction), torch.empty(24, 96), 1, 0.0)
            levels = grid.levels().view(24, 3, 32)
            ends = torch.where(grid.scales.scale * direction > 0, 0, (1 << bits) - 1)
            assert torch.equal(levels.long(), ends.unsqueeze(-1).expand_as(levels))


def test_the_sum_of_all_steps_is_half_of_the_rate() -> None:
    for iterations in (10, 200):
        _, grid = grid_of(bits=4, iterations=iterations)
        before = grid.latent.clone()
        for left in range(iterations, 0, -1):
            grid.step(torch.ones(24, 96), torch.empty(24, 96), left, 0.0)
        moved = (grid.latent - before).abs().float() / (1 << unit_bits(4))
        inside = (grid.latent > grid.limits[0]) & (grid.latent < grid.limits[1])
        assert float((moved[inside] - 0.5).abs().max()) < 0.06


def test_steps_against_the_gradient_reduce_the_error_of_outputs() -> None:
    torch.manual_seed(0)
    weight, grid = grid_of(bits=3, iterations=100)
    inputs = torch.randn(400, 12) @ torch.randn(12, 96) + 0.1 * torch.randn(400, 96)
    gram = inputs.T @ inputs / 400
    out = torch.empty_like(weight)
    grid.quantize_into(out)

    def error() -> float:
        return float((((out - weight) @ gram) * (out - weight)).sum())

    before, levels = error(), grid.levels()
    for left in range(100, 0, -1):
        grid.step(2 * (out - weight) @ gram, out, left, 0.0)
    assert error() < 0.8 * before
    assert not torch.equal(grid.levels(), levels)


def test_a_restored_state_gives_the_same_layer() -> None:
    _, grid = grid_of()
    state, before = grid.state(), grid.freeze("layer")
    for left in range(10, 0, -1):
        grid.step(torch.randn(24, 96), torch.empty(24, 96), left, 0.1)
    assert not torch.equal(grid.freeze("layer").ints, before.ints)
    grid.restore(state)
    assert torch.equal(grid.freeze("layer").dequantize(), before.dequantize())
    assert torch.equal(grid.freeze("layer").ints, before.ints)


def test_a_part_steps_the_rows_of_the_whole() -> None:
    _, whole = grid_of()
    _, apart = grid_of()
    gradient, out = torch.randn(24, 96), torch.empty(24, 96)
    whole.step(gradient, out, 10, 0.1)
    for rows in (slice(0, 16), slice(16, 24)):
        apart.part(rows).step(gradient[rows], torch.empty_like(gradient[rows]), 10, 0.1)
    assert torch.equal(whole.latent, apart.latent)
    assert torch.equal(whole.scales.scale, apart.scales.scale)
