"""The start of block types of GGUF: every step reduces the error, and the result is what a file holds."""

from __future__ import annotations

import gguf
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from core.block_types import TYPES
from core.formats.gguf.blocks import SCALE_RANGE, BlockLinear, decode
from core.quant.level_grid import LevelGrid, level_grid
from core.quant.start.block_scales import fit_blocks, search_blocks
from core.quant.start.descent import descend
from core.quant.start.feedback import error_factors, round_with_feedback
from core.quant.start.layer import start_layer
from core.quant.start.levels import Levels, joined_levels, squared_error
from core.schemes import LayerScheme
from tests.core.quant.start.problem import layer

KINDS = pytest.mark.parametrize("name", sorted(TYPES))


def theirs(stored: BlockLinear) -> Tensor:
    """Return the weight that gguf-py reads from the bytes of a layer."""
    kind = gguf.GGMLQuantizationType[stored.scheme.type.upper()]
    return torch.from_numpy(gguf.dequantize(stored.encode().numpy(), kind))


@KINDS
def test_every_step_reduces_the_error_of_the_outputs(name: str) -> None:
    weight, gram = layer(width=512)
    searched = search_blocks(weight, LayerScheme.of_type(name), gram.diagonal())
    rounded = round_with_feedback(weight, searched, error_factors(gram))
    fitted = fit_blocks(weight, rounded, gram)
    descended = descend(weight, fitted, gram)
    errors = [squared_error(weight, found, gram) for found in (searched, rounded, fitted, descended)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


@KINDS
def test_the_levels_of_a_start_are_those_of_the_file(name: str) -> None:
    weight, gram = layer(width=512)
    found = start_layer(weight, LayerScheme.of_type(name), gram).levels
    stored = level_grid(found).freeze("layer")
    assert isinstance(stored, BlockLinear)
    assert torch.equal(theirs(stored), found.values())


@KINDS
def test_steps_of_the_scales_stay_representable(name: str) -> None:
    weight, gram = layer(width=512)
    grid = level_grid(start_layer(weight, LayerScheme.of_type(name), gram).levels)
    target, out = weight * 1.1 + 0.01, torch.empty_like(weight)
    grid.quantize_into(out)
    before = (out - target).square().sum()
    for left in range(30, 0, -1):
        grid.step(2 * (out - target), out, left, 0.01 * left / 30)
    assert (out - target).square().sum() < before
    stored = grid.freeze("layer")
    assert isinstance(stored, BlockLinear)
    assert torch.equal(theirs(stored), out)


@KINDS
def test_the_slopes_are_the_gradients_of_the_factors(name: str) -> None:
    weight, _ = layer(width=512)
    grid = level_grid(search_blocks(weight, LayerScheme.of_type(name), None))
    grid.factor.mul_(torch.rand(grid.factor.shape, generator=torch.Generator().manual_seed(1)) + 0.5)
    gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(2))
    factor = grid.factor.clone().requires_grad_(True)
    (_described(grid, factor) * gradient).sum().backward()
    assert factor.grad is not None
    assert torch.allclose(grid.slopes(gradient), factor.grad, rtol=1e-3, atol=1e-3)


def _described(grid: LevelGrid, factor: Tensor) -> Tensor:
    """Return the weight as the docstring of the grid describes it, without rounding to float16."""
    start = grid.start
    assert start.blocks is not None
    repeats = start.scale.shape[1] // start.blocks.d.shape[1]
    common = factor[..., 0].repeat_interleave(repeats, 1)
    by_group = start.centered().view(*start.scale.shape, -1) * start.scale.unsqueeze(-1)
    if start.base is not None:
        by_group = by_group + (start.base * factor[..., 1].repeat_interleave(repeats, 1)).unsqueeze(-1)
    return (by_group * common.unsqueeze(-1)).view(start.levels.shape)


@KINDS
def test_parts_of_a_grid_step_the_rows_of_the_whole(name: str) -> None:
    weight, gram = layer(width=512)
    start = start_layer(weight, LayerScheme.of_type(name), gram).levels
    whole, apart = level_grid(start), level_grid(start)
    gradient = torch.randn(weight.shape, generator=torch.Generator().manual_seed(3))
    whole.step(gradient, torch.empty_like(weight), 1, 0.05)
    for rows in (slice(0, 8), slice(8, 32)):
        apart.part(rows).step(gradient[rows], torch.empty_like(gradient[rows]), 1, 0.05)
    assert torch.equal(whole.freeze("a").dequantize(), apart.freeze("a").dequantize())
    state = apart.state()
    apart.step(gradient, torch.empty_like(weight), 1, 0.2)
    assert not torch.equal(whole.freeze("a").dequantize(), apart.freeze("a").dequantize())
    apart.restore(state)
    assert torch.equal(whole.freeze("a").dequantize(), apart.freeze("a").dequantize())


@KINDS
def test_joined_rows_are_the_rows_of_one_matrix(name: str) -> None:
    weight, _ = layer(width=512)
    found = search_blocks(weight, LayerScheme.of_type(name), None)
    joined = joined_levels([found.rows(slice(0, 5)), found.rows(slice(5, 32))])
    assert torch.equal(joined.values(), found.values())


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(sorted(TYPES)),
    seed=st.integers(0, 2**31),
    spread=st.sampled_from([0.0, 1e-9, 1e-6, 1e-3, 1.0, 3e4]),
    dead=st.integers(0, 255),
    inputs=st.sampled_from([3, 512]),
)
def test_any_weight_gives_codes_in_their_ranges_and_no_larger_error(
    name: str, seed: int, spread: float, dead: int, inputs: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 256, generator=generator) * spread
    weight[0] = 0.0
    weight[1, ::7] *= 1000.0
    weight[2] = spread
    weight.clamp_(-6e4, 6e4)
    x = torch.randn(inputs, 256, generator=generator)
    gram = x.T @ x / inputs
    gram[dead], gram[:, dead] = 0.0, 0.0
    scheme = LayerScheme.of_type(name)
    found = start_layer(weight, scheme, gram).levels
    stored = level_grid(found).freeze("layer")
    assert isinstance(stored, BlockLinear)
    assert torch.equal(decode("layer", name, stored.encode()).dequantize(), found.values())
    assert found.values().isfinite().all()
    searched = search_blocks(weight, scheme, gram.diagonal())
    assert squared_error(weight, found, gram) <= squared_error(weight, searched, gram)
    if stored.scales is not None:
        low, high = SCALE_RANGE[name]
        assert low <= int(stored.scales.min()) <= int(stored.scales.max()) <= high


@KINDS
def test_a_fit_never_increases_the_error_of_a_row(name: str) -> None:
    weight, gram = layer(width=512, seed=4)
    found = search_blocks(weight, LayerScheme.of_type(name), None)
    fitted = fit_blocks(weight, found, gram)

    def errors(one: Levels) -> Tensor:
        error = weight - one.values()
        return ((error @ gram) * error).sum(-1)

    assert bool((errors(fitted) <= errors(found) * 1.01).all())
    assert errors(fitted).sum() < errors(found).sum()
