"""Regridding of layers: identical weights if `exact` is true, for all shapes, zero points and scales."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.block_types import TYPES
from core.conversion.regrid import exact, mirrored, regrid, widened
from core.formats.gguf.blocks import BlockLinear
from core.formats.gguf.mixes import tuned_as
from core.formats.gguf.rounding import round_to
from core.formats.plain import PlainLinear
from core.formats.quantized import QuantizedLinear
from core.schemes import BITS, LayerScheme
from tests.core.formats.tiny import round_to_nearest

NAME = "model.layers.0.mlp.up_proj"
SIMPLE = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0")


def planned(name: str) -> LayerScheme:
    """Return the planned scheme for a block type."""
    return tuned_as(name)


@st.composite
def layers(draw: st.DrawFn, *, sym: bool | None = None, act_order: bool = False) -> QuantizedLinear:
    """Draw a layer of any scheme with random levels, extreme scales, and zero points up to both limits."""
    bits = draw(st.sampled_from(BITS))
    even = draw(st.booleans()) if sym is None else sym
    size = draw(st.sampled_from((-1, 32, 64, 96)))
    rows, groups = draw(st.integers(1, 5)), draw(st.integers(1, 3))
    columns = groups * (96 if size == -1 else size)
    groups = 1 if size == -1 else groups
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1 << 30)))
    top = 1 << bits
    ints = torch.randint(0, top, (rows, columns), generator=generator).to(torch.uint8)
    scales = torch.randn(rows, groups, generator=generator) * draw(st.sampled_from((1e-7, 1e-2, 1.0, 200.0)))
    if even:
        zeros = torch.full((rows, groups), top // 2)
    else:
        zeros = torch.randint(0, top, (rows, groups), generator=generator)
        zeros[0, 0] = draw(st.sampled_from((0, top - 1)))
    order = torch.randperm(columns, generator=generator).to(torch.int32) // (columns // groups) if act_order else None
    scheme = LayerScheme(bits, size, even)
    return QuantizedLinear(NAME, scheme, ints, scales.half(), zeros.to(torch.uint8), order)


@given(layers(sym=False))
def test_a_mirrored_layer_has_the_same_weights_and_no_zero_point_of_zero(layer: QuantizedLinear) -> None:
    found = mirrored(layer)
    assert int(found.zeros.min()) >= 1
    assert torch.equal(found.dequantize(), layer.dequantize())
    assert found.scheme == layer.scheme


@given(layers(sym=False, act_order=True))
def test_mirroring_follows_groups_out_of_order(layer: QuantizedLinear) -> None:
    assert torch.equal(mirrored(layer).dequantize(), layer.dequantize())


def test_only_the_groups_that_need_it_are_mirrored() -> None:
    ints = torch.tensor([[3] * 32 + [1] * 32], dtype=torch.uint8)
    layer = QuantizedLinear(
        NAME, LayerScheme(2, 32, sym=False), ints, torch.ones(1, 2).half(), torch.tensor([[0, 2]], dtype=torch.uint8)
    )
    found = mirrored(layer)
    assert found.zeros.tolist() == [[3, 2]]
    assert found.scales.tolist() == [[-1, 1]]
    assert found.ints.tolist() == [[0] * 32 + [1] * 32]


def test_a_layer_without_a_zero_point_of_zero_is_unchanged() -> None:
    layer = round_to_nearest(NAME, torch.randn(4, 64), LayerScheme(4, 32, sym=False), 1)
    assert mirrored(layer) is layer
    assert regrid(layer, layer.scheme, 1) is layer


@given(layers(), st.sampled_from(list(TYPES)))
def test_regridding_keeps_the_weights_if_exact_is_true(layer: QuantizedLinear, name: str) -> None:
    if exact(layer.scheme, planned(name)):
        assert torch.equal(regrid(layer, planned(name)).dequantize(), layer.dequantize())


@given(layers(), st.sampled_from(SIMPLE))
def test_a_widened_layer_has_identical_weights(layer: QuantizedLinear, name: str) -> None:
    found = widened(layer, name)
    if found is not None:
        assert found.scheme.type == name
        assert torch.equal(found.dequantize(), layer.dequantize())


@pytest.mark.parametrize("name", SIMPLE)
@pytest.mark.parametrize("start", ["q4_0", "q5_0", "q8_0"])
def test_symmetric_blocks_fit_into_types_with_more_bits(start: str, name: str) -> None:
    layer = round_to(torch.randn(8, 64), start, None, NAME)
    assert exact(layer.scheme, planned(name)) == (TYPES[name].bits >= TYPES[start].bits)
    if exact(layer.scheme, planned(name)):
        assert torch.equal(regrid(layer, planned(name)).dequantize(), layer.dequantize())


EXPECTED = {
    # type: bits of the symmetric and of the asymmetric schemes that it can represent exactly
    "q4_0": ({2, 3, 4}, {2, 3}),
    "q4_1": ({2, 3, 4}, set()),
    "q5_0": ({2, 3, 4}, {2, 3, 4}),
    "q5_1": ({2, 3, 4}, set()),
    "q8_0": ({2, 3, 4, 8}, {2, 3, 4}),
    "q4_k": (set(), set()),
}


@pytest.mark.parametrize("name", list(EXPECTED))
def test_exact_types_by_bits_and_symmetry(name: str) -> None:
    for sym, expected in zip((True, False), EXPECTED[name], strict=True):
        assert {bits for bits in BITS if exact(LayerScheme(bits, 64, sym), planned(name))} == expected


def test_groups_out_of_order_fit_no_blocks() -> None:
    assert not exact(LayerScheme(4, 32), planned("q4_0"), act_order=True)
    layer = QuantizedLinear(
        NAME, LayerScheme(4, 32), torch.randint(0, 16, (4, 64)).to(torch.uint8), torch.rand(4, 2).half(),
        torch.full((4, 2), 8, dtype=torch.uint8), torch.arange(64, dtype=torch.int32) % 2,
    )  # fmt: skip
    assert widened(layer, "q8_0") is None


@pytest.mark.parametrize("name", list(TYPES))
def test_unquantized_weights_are_rounded(name: str) -> None:
    weight = torch.randn(4, 256)
    found = regrid(PlainLinear(NAME, weight), planned(name))
    assert found.scheme == planned(name)
    assert (found.dequantize() - weight).norm() < 0.5 * weight.norm()


def test_a_layer_that_has_the_planned_type_is_unchanged() -> None:
    layer = round_to(torch.randn(4, 256), "q4_k", None, NAME)
    assert regrid(layer, layer.scheme) is layer


def test_a_block_type_converts_to_the_equivalent_integers() -> None:
    layer = round_to(torch.randn(4, 64), "q4_0", None, NAME)
    found = regrid(layer, LayerScheme(4, 32))
    assert isinstance(found, QuantizedLinear)
    assert torch.equal(found.dequantize(), layer.dequantize())


def test_a_block_type_does_not_convert_to_other_integers() -> None:
    layer = round_to(torch.randn(4, 64), "q4_0", None, NAME)
    assert isinstance(layer, BlockLinear)
    with pytest.raises(ValueError, match="cannot be converted to W4 g64 sym"):
        regrid(layer, LayerScheme(4, 64))


def test_a_layer_planned_in_16_bits_is_unchanged() -> None:
    layer = PlainLinear(NAME, torch.randn(4, 64))
    assert regrid(layer, LayerScheme(bits=16)) is layer


def test_groups_out_of_order_are_rounded_into_blocks() -> None:
    layer = QuantizedLinear(
        NAME, LayerScheme(4, 32), torch.randint(0, 16, (4, 64)).to(torch.uint8), torch.rand(4, 2).half(),
        torch.full((4, 2), 8, dtype=torch.uint8), torch.arange(64, dtype=torch.int32) % 2,
    )  # fmt: skip
    found = regrid(layer, layer.scheme, contiguous_groups=True)
    assert isinstance(found, QuantizedLinear)
    assert found.g_idx is None
    assert regrid(layer, layer.scheme) is layer
