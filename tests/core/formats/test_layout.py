"""Layers that the layouts cannot store, and special zero points."""

from __future__ import annotations

import pytest
import torch

from core.formats.layout import decode, encode, planned
from core.formats.packing import AUTO_ROUND, AUTO_ROUND_AWQ, AUTO_ROUND_GPTQ, GPTQ, Packing, measure
from core.formats.quantized import QuantizedLinear
from core.schemes import LayerScheme


def layer(scheme: LayerScheme, zero: int, out_features: int = 32, in_features: int = 64) -> QuantizedLinear:
    generator = torch.Generator().manual_seed(3)
    groups = scheme.groups(in_features)
    return QuantizedLinear(
        "layer",
        scheme,
        torch.randint(0, scheme.levels, (out_features, in_features), generator=generator).to(torch.uint8),
        torch.randn(out_features, groups, generator=generator).to(torch.float16),
        torch.full((out_features, groups), zero, dtype=torch.uint8),
    )


def test_gptq_cannot_store_a_zero_point_of_zero() -> None:
    with pytest.raises(ValueError, match="zero point of 0"):
        encode(GPTQ, layer(LayerScheme(4, 32, False), zero=0))


def test_the_plain_layout_stores_a_zero_point_of_zero() -> None:
    tensors = encode(AUTO_ROUND, layer(LayerScheme(4, 32, False), zero=0))
    assert not bool(tensors["layer.qzeros"].any())


def test_a_symmetric_layer_must_have_the_middle_as_its_zero_point() -> None:
    with pytest.raises(ValueError, match="middle"):
        encode(AUTO_ROUND, layer(LayerScheme(4, 32, True), zero=7))


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_a_stored_zero_point_of_all_ones_wraps_to_zero(bits: int) -> None:
    scheme = LayerScheme(bits, 32, False)
    parts = {
        name.removeprefix("layer."): tensor for name, tensor in encode(GPTQ, layer(scheme, scheme.levels - 1)).items()
    }
    parts["qzeros"] = torch.full_like(parts["qzeros"], -1)
    assert not bool(decode(GPTQ, "layer", scheme, parts).zeros.any())


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_the_largest_zero_point_is_restored_with_a_bias_of_one(bits: int) -> None:
    scheme = LayerScheme(bits, 32, False)
    original = layer(scheme, scheme.levels - 1)
    parts = {name.removeprefix("layer."): tensor for name, tensor in encode(AUTO_ROUND_GPTQ, original).items()}
    assert torch.equal(decode(AUTO_ROUND_GPTQ, "layer", scheme, parts).zeros, original.zeros)


@pytest.mark.parametrize("group_size", [-1, 32, 64])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("packing", [AUTO_ROUND, AUTO_ROUND_GPTQ, GPTQ], ids=lambda packing: packing.name)
def test_encoded_tensors_match_the_plan(packing: Packing, bits: int, group_size: int) -> None:
    scheme = LayerScheme(bits, group_size, True)
    tensors = encode(packing, layer(scheme, 1 << (bits - 1), out_features=96, in_features=128))
    expected = {plan.name: plan.shape for plan in planned(packing, "layer", scheme, 128, 96)}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected


def test_encoded_awq_tensors_match_the_plan() -> None:
    scheme = LayerScheme(4, 64, False)
    tensors = encode(AUTO_ROUND_AWQ, layer(scheme, 8, out_features=96, in_features=128))
    expected = {plan.name: plan.shape for plan in planned(AUTO_ROUND_AWQ, "layer", scheme, 128, 96)}
    assert {name: tuple(tensor.shape) for name, tensor in tensors.items()} == expected


def test_g_idx_counts_the_groups() -> None:
    g_idx = encode(GPTQ, layer(LayerScheme(4, 32, True), 8))["layer.g_idx"]
    assert g_idx.dtype == torch.int32
    assert g_idx.tolist() == [0] * 32 + [1] * 32


@pytest.mark.parametrize(
    "shapes",
    [
        {"qweight": (8, 32), "qzeros": (2, 4), "scales": (3, 32)},
        {"qweight": (8, 32), "qzeros": (2, 5), "scales": (2, 32)},
        {"qweight": (8, 16), "qzeros": (2, 4), "scales": (2, 32)},
        {"qweight": (8,), "qzeros": (2, 4), "scales": (2, 32)},
        {"qweight": (0, 32), "qzeros": (2, 4), "scales": (2, 32)},
        {"qweight": (7, 32), "qzeros": (2, 3), "scales": (2, 32)},
        {"qweight": (8, 32), "qzeros": (2, 400), "scales": (2, 32)},
    ],
)
def test_inconsistent_shapes_are_not_measured(shapes: dict[str, tuple[int, ...]]) -> None:
    assert measure(GPTQ, shapes) is None
