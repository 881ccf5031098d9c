"""Scales by search: never worse than those of the largest weight, and led by the inputs that matter."""

from __future__ import annotations

import pytest
import torch

from core.quant.grid import new_grid
from core.quant.rtn import search_scale, searchable
from core.schemes import LayerScheme


def error(weight: torch.Tensor, scheme: LayerScheme, scale: torch.Tensor | None, weigh: torch.Tensor) -> float:
    layer = new_grid(weight, scheme, searched=scale).freeze("layer")
    return ((layer.dequantize() - weight).square() * weigh).sum().item()


@pytest.mark.parametrize("bits", [2, 3, 4])
@pytest.mark.parametrize("group", [32, -1])
def test_a_searched_scale_has_less_weighted_error(bits: int, group: int) -> None:
    generator = torch.Generator().manual_seed(2)
    weight = torch.randn(64, 96, generator=generator)
    importance = torch.rand(96, generator=generator) ** 4
    scheme = LayerScheme(bits, group)
    searched = search_scale(weight, scheme, importance)
    assert error(weight, scheme, searched, importance) < 0.95 * error(weight, scheme, None, importance)


def test_importance_leads_the_search() -> None:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(32, 32, generator=generator)
    importance = torch.zeros(32)
    importance[:4] = 1.0
    scheme = LayerScheme(2, 32)
    led = error(weight, scheme, search_scale(weight, scheme, importance), importance)
    blind = error(weight, scheme, search_scale(weight, scheme, None), importance)
    assert led < 0.7 * blind


def test_a_group_of_zeros_stays_zero() -> None:
    scheme = LayerScheme(4, 32)
    weight = torch.zeros(32, 32)
    layer = new_grid(weight, scheme, searched=search_scale(weight, scheme, None)).freeze("layer")
    assert not layer.dequantize().any()


def test_only_symmetric_low_bits_are_searched() -> None:
    assert searchable(LayerScheme(2, 32))
    assert searchable(LayerScheme(4, 32))
    assert not searchable(LayerScheme(8, 32))
    assert not searchable(LayerScheme(4, 32, sym=False))
    assert not searchable(LayerScheme.of_type("q4_0"))
