"""Dequantization and validation of quantized layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from core.formats.quantized import QuantizedLinear
from core.schemes import LayerScheme


def make(scheme: LayerScheme, in_features: int = 64, **changes: torch.Tensor) -> QuantizedLinear:
    generator = torch.Generator().manual_seed(1)
    groups = scheme.groups(in_features)
    parts = {
        "ints": torch.randint(0, scheme.levels, (3, in_features), generator=generator).to(torch.uint8),
        "scales": torch.randn(3, groups, generator=generator).to(torch.float16),
        "zeros": torch.randint(0, scheme.levels, (3, groups), generator=generator).to(torch.uint8),
    }
    return QuantizedLinear("layer", scheme, **(parts | changes))


@pytest.mark.parametrize("in_features", [64, 72])
@pytest.mark.parametrize("group_size", [32, -1])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_dequantize_is_scale_times_difference_exactly(bits: int, group_size: int, in_features: int) -> None:
    layer = make(LayerScheme(bits, group_size, False), in_features)
    size = in_features if group_size == -1 else group_size
    weight = layer.dequantize()
    assert weight.dtype == torch.float32
    for row in range(3):
        for k in range(in_features):
            difference = int(layer.ints[row, k]) - int(layer.zeros[row, k // size])
            assert weight[row, k].item() == float(layer.scales[row, k // size]) * difference


def test_dequantize_does_not_modify_the_layer() -> None:
    layer = make(LayerScheme(4, 32, False))
    before = layer.ints.clone(), layer.scales.clone(), layer.zeros.clone()
    layer.dequantize()
    assert all(torch.equal(a, b) for a, b in zip(before, (layer.ints, layer.scales, layer.zeros), strict=True))


@pytest.mark.parametrize(
    "change",
    [
        {"ints": torch.zeros(3, 64, dtype=torch.int32)},
        {"scales": torch.zeros(3, 2)},
        {"scales": torch.zeros(3, 3, dtype=torch.float16)},
        {"zeros": torch.zeros(2, 3, dtype=torch.uint8)},
    ],
)
def test_parts_of_other_shapes_or_dtypes_are_rejected(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        make(LayerScheme(4, 32, False), **change)


def test_a_scheme_of_16_bits_is_rejected() -> None:
    with pytest.raises(ValueError, match="not a quantized"):
        make(LayerScheme(16, 32, False))
