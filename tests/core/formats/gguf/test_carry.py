"""Tests of integers in GGUF blocks: bit-exact weights for every supported scheme."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.block_types import TYPES, carrier
from core.formats.gguf.blocks import decode
from core.formats.gguf.carry import as_integers, carry
from core.formats.quantized import QuantizedLinear
from core.formats.stored import digest
from core.schemes import LayerScheme

CARRIED = [(bits, sym) for bits in (2, 3, 4, 8) for sym in (True, False) if (bits, sym) != (8, False)]


def random_layer(bits: int, sym: bool, group_size: int, width: int, seed: int, rows: int = 3) -> QuantizedLinear:
    """Generate any finite float16 scales, and zero points with 0 and the highest value more often."""
    scheme, rng = LayerScheme(bits, group_size, sym), np.random.default_rng(seed)
    shape, top = (rows, scheme.groups(width)), scheme.levels - 1
    scales = rng.integers(0, 1 << 16, shape, dtype=np.uint16)
    scales = np.where((scales & 0x7C00) == 0x7C00, scales & 0xBFFF, scales).astype(np.uint16)
    zeros = np.choose(
        rng.integers(0, 3, shape), [np.zeros(shape), np.full(shape, top), rng.integers(0, top + 1, shape)]
    )
    if sym:
        zeros = np.full(shape, scheme.levels // 2)
    return QuantizedLinear(
        "layer",
        scheme,
        torch.from_numpy(rng.integers(0, scheme.levels, (rows, width), dtype=np.uint8)),
        torch.from_numpy(scales.view(np.float16)),
        torch.from_numpy(zeros.astype(np.uint8)),
    )


def same_numbers(first: torch.Tensor, second: torch.Tensor) -> bool:
    """Return whether two tensors are bit-equal, including the signs of zeros."""
    return torch.equal(first.view(torch.int32), second.view(torch.int32))


@given(
    kind=st.sampled_from(CARRIED),
    group_size=st.sampled_from([32, 64, 96, 128, -1]),
    blocks=st.integers(1, 9),
    seed=st.integers(0, 2**32),
)
def test_carried_weights_are_the_same_to_the_bit(
    kind: tuple[int, bool], group_size: int, blocks: int, seed: int
) -> None:
    layer = random_layer(*kind, group_size, 32 * blocks, seed)
    carried = carry(layer)
    assert carried.type is TYPES[carrier(layer.scheme.bits, layer.scheme.group_size, layer.scheme.sym)]
    assert same_numbers(carried.dequantize(), layer.dequantize())
    assert same_numbers(decode("layer", carried.type.name, carried.encode()).dequantize(), layer.dequantize())


@given(bits=st.sampled_from([4, 8]), blocks=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_integers_come_back_as_they_were(bits: int, blocks: int, seed: int) -> None:
    layer = random_layer(bits, True, 32, 32 * blocks, seed)
    back = as_integers(carry(layer))
    assert (back.name, back.scheme) == (layer.name, layer.scheme)
    assert digest(back) == digest(layer)


@given(name=st.sampled_from(["q4_0", "q8_0"]), blocks=st.integers(1, 5), seed=st.integers(0, 2**32))
def test_blocks_come_back_as_they_were(name: str, blocks: int, seed: int) -> None:
    data = np.random.default_rng(seed).integers(0, 256, (3, blocks * TYPES[name].nbytes), dtype=np.uint8)
    layer = decode("layer", name, torch.from_numpy(data))
    assert digest(carry(as_integers(layer))) == digest(layer)


@pytest.mark.parametrize("name", sorted(set(TYPES) - {"q4_0", "q8_0"}))
def test_other_types_are_no_integers(name: str) -> None:
    layer = decode("layer", name, torch.zeros(1, TYPES[name].nbytes, dtype=torch.uint8))
    with pytest.raises(ValueError, match="layer"):
        as_integers(layer)


def test_eight_asymmetric_bits_have_no_carrier() -> None:
    with pytest.raises(ValueError, match="no GGUF block type"):
        carry(random_layer(8, False, 32, 64, 1))


def test_inputs_out_of_order_are_refused() -> None:
    layer = random_layer(4, True, 32, 64, 1)
    with pytest.raises(ValueError, match="order"):
        carry(replace(layer, g_idx=torch.arange(64, dtype=torch.int32) % 2))


def test_rows_of_broken_blocks_are_refused() -> None:
    with pytest.raises(ValueError, match="multiple of the block size"):
        carry(random_layer(4, True, -1, 48, 1))


def test_a_symmetric_layer_with_another_zero_point_is_not_carried_wrong() -> None:
    """Q4_0 has no levels from -15 to 0. Bitwright does not write such layers, but a file may contain them."""
    layer = random_layer(4, True, 32, 64, 1)
    with pytest.raises(ValueError, match="does not fit"):
        carry(replace(layer, zeros=torch.full_like(layer.zeros, 15)))


def test_source_layer_is_not_changed() -> None:
    layer = random_layer(4, False, 64, 128, 2)
    before = digest(layer)
    carry(layer).ints.zero_()
    assert digest(layer) == before
