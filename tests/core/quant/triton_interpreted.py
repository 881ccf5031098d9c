"""Tests of the grids' Triton kernels in Triton's interpreter, against the torch operations.

`test_triton_kernels.py` runs this file in a separate process with TRITON_INTERPRET=1.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from core.quant import device_kernels, triton_kernels
from core.quant.device_kernels import fused_for, kernels_for
from core.quant.grid import new_grid
from core.quant.latent_grid import latent_grid
from core.quant.level_grid import level_grid
from core.quant.start.block_scales import search_blocks
from core.quant.start.scale_search import search
from core.quant.tuned_grid import TunedGrid
from core.schemes import LayerScheme
from tests.matrix import combinations

ROWS = 12
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SCHEMES = combinations(
    [LayerScheme(bits, group, sym) for bits in (2, 3, 4) for group in (32, 96, -1) for sym in (True, False)],
    [LayerScheme(2, 96, True), LayerScheme(3, -1, False), LayerScheme(4, 32, True)],
)
TYPES = ("q4_0", "q5_1", "q2_k")


def weight_of(inputs: int = 192) -> Tensor:
    return torch.randn(ROWS, inputs, generator=torch.Generator().manual_seed(3)) * 0.1


def rounding(scheme: LayerScheme, inputs: int) -> TunedGrid:
    return new_grid(weight_of(inputs), scheme, iterations=10, rate=0.3)


def levels(scheme: LayerScheme, inputs: int) -> TunedGrid:
    find = search_blocks if scheme.type else search
    return level_grid(find(weight_of(inputs), scheme, None))


def latents(scheme: LayerScheme, inputs: int) -> TunedGrid:
    return latent_grid(search(weight_of(inputs), scheme, None), weight_of(inputs), 10, 3.0)


def check_steps(
    monkeypatch: pytest.MonkeyPatch,
    make: Callable[[LayerScheme, int], TunedGrid],
    scheme: LayerScheme,
    dtype: torch.dtype = torch.float32,
    inputs: int = 192,
) -> None:
    """Compare three steps of a grid on both paths. The gradients are integers, so that sums do not depend on order."""
    found: list[list[Tensor]] = []
    for gpus in ({"cpu"}, set()):
        monkeypatch.setattr(device_kernels, "GPUS", gpus)
        grid, out = make(scheme, inputs), torch.full((ROWS, inputs), torch.nan, dtype=dtype)
        generator, values = torch.Generator().manual_seed(4), []
        for left in (10, 9, 8):
            gradient = torch.randint(-4, 5, out.shape, generator=generator).to(dtype)
            grid.step(gradient, out, left, 0.05 * left)
            values += [out.clone(), *grid.state()]
        found.append(values)
    assert torch.isfinite(found[0][0]).all()
    assert not torch.equal(found[0][0], found[0][-len(grid.state()) - 1])
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_the_kernels_are_those_of_triton() -> None:
    assert kernels_for(torch.empty(1)) is triton_kernels
    assert fused_for(torch.empty(1)) is triton_kernels
    assert device_kernels.missing(torch.device("cpu")) == ""


@pytest.mark.parametrize("scheme", SCHEMES, ids=LayerScheme.label)
@pytest.mark.parametrize("make", [rounding, levels, latents])
def test_steps_equal_those_of_torch_to_the_bit(
    make: Callable[[LayerScheme, int], TunedGrid], scheme: LayerScheme, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_steps(monkeypatch, make, scheme)


@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("make", [rounding, levels, latents])
def test_weights_in_16_bits_are_rounded_as_by_torch(
    make: Callable[[LayerScheme, int], TunedGrid], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_steps(monkeypatch, make, LayerScheme(3, 32, False), dtype)


@pytest.mark.parametrize("make", [rounding, levels, latents])
def test_groups_longer_than_a_tile_are_stepped_in_parts(
    make: Callable[[LayerScheme, int], TunedGrid], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(triton_kernels, "LONGEST", 64)
    check_steps(monkeypatch, make, LayerScheme(2, -1, True), inputs=160)


@pytest.mark.parametrize("name", TYPES)
@pytest.mark.parametrize("make", [rounding, levels])
def test_block_types_are_stepped_as_by_torch(
    make: Callable[[LayerScheme, int], TunedGrid], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_steps(monkeypatch, make, LayerScheme.of_type(name), inputs=256)


def test_a_strided_weight_is_written() -> None:
    grid = latents(LayerScheme(2, 32, True), 96)
    expected, out = torch.empty(ROWS, 96), torch.zeros(96, ROWS).t()
    for target in (expected, out):
        grid.quantize_into(target)
    assert torch.equal(out, expected)
    other = latents(LayerScheme(2, 32, True), 96)
    for one, target in ((grid, expected), (other, out)):
        one.step(torch.ones(96, ROWS).t(), target, 10, 0.1)
    assert torch.equal(out, expected)
