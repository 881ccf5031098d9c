"""Tests of GGUF blocks: bytes and values, compared with gguf-py."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from hypothesis import given
from hypothesis import strategies as st

from core.block_types import TYPES
from core.formats.gguf.blocks import BlockLinear, decode, grid_steps
from core.schemes import LayerScheme

EXTREMES = (0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF, 0x7C00, 0xFC00, 0x7E00)
"""Float16: zeros, subnormals, the smallest normal, the largest, infinities, not a number."""
HALVES = {
    "q4_0": (0,), "q4_1": (0, 2), "q5_0": (0,), "q5_1": (0, 2), "q8_0": (0,),
    "q2_k": (80, 82), "q3_k": (108,), "q4_k": (0, 2), "q5_k": (0, 2), "q6_k": (208,),
    "iq4_nl": (0,), "iq4_xs": (0,),
}  # fmt: skip
"""Offsets of the float16 values in a block."""


def random_bytes(type_name: str, rows: int, blocks: int, seed: int) -> torch.Tensor:
    """Return random bytes, uint8 [rows, bytes of a row]."""
    shape = (rows, blocks * TYPES[type_name].nbytes)
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


def read_by_gguf(type_name: str, data: torch.Tensor) -> torch.Tensor:
    """Dequantize the bytes with gguf-py, float32 [rows, in]."""
    with np.errstate(all="ignore"):
        return torch.from_numpy(np.array(gguf.dequantize(data.numpy(), GGMLQuantizationType[type_name.upper()])))


def bits(weight: torch.Tensor) -> torch.Tensor:
    """Return the bits of float32 values, with one pattern for all NaN."""
    return torch.where(weight.isnan(), torch.full_like(weight, torch.nan), weight).view(torch.int32)


@pytest.mark.parametrize("name", TYPES)
def test_sizes_are_those_of_gguf(name: str) -> None:
    assert GGML_QUANT_SIZES[GGMLQuantizationType[name.upper()]] == (TYPES[name].block, TYPES[name].nbytes)


@given(
    name=st.sampled_from(sorted(TYPES)), rows=st.integers(1, 5), blocks=st.integers(1, 4), seed=st.integers(0, 2**32)
)
def test_encoding_undoes_decoding(name: str, rows: int, blocks: int, seed: int) -> None:
    data = random_bytes(name, rows, blocks, seed)
    assert torch.equal(decode("layer", name, data).encode(), data)


@given(
    name=st.sampled_from(sorted(TYPES)), rows=st.integers(1, 5), blocks=st.integers(1, 4), seed=st.integers(0, 2**32)
)
def test_values_are_those_of_gguf_to_the_bit(name: str, rows: int, blocks: int, seed: int) -> None:
    data = random_bytes(name, rows, blocks, seed)
    assert torch.equal(bits(decode("layer", name, data).dequantize()), bits(read_by_gguf(name, data)))


@pytest.mark.parametrize("name", TYPES)
def test_extreme_float16_mean_what_they_mean_to_gguf(name: str) -> None:
    pairs = [(first, second) for first in EXTREMES for second in EXTREMES]
    data = random_bytes(name, len(pairs), 1, 3)
    for row, pair in zip(data, pairs, strict=True):
        for place, half in zip(HALVES[name], pair, strict=False):
            row[place], row[place + 1] = half & 255, half >> 8
    assert torch.equal(bits(decode("layer", name, data).dequantize()), bits(read_by_gguf(name, data)))


@pytest.mark.parametrize("name", TYPES)
def test_decoded_parts_are_the_numbers_of_the_formula(name: str) -> None:
    """Compute the formula of the class weight by weight in double precision."""
    data = random_bytes(name, 2, 2, 5)
    for row in data.view(-1, TYPES[name].nbytes):
        for place in HALVES[name]:
            row[place + 1] = row[place + 1] & 0xBF | 0x20  # neither infinite nor tiny
    layer, kind = decode("layer", name, data), TYPES[name]
    weight = layer.dequantize()
    for k in range(layer.in_features):
        d, q = layer.d[1, k // kind.block].item(), int(layer.ints[1, k])
        step = d if layer.scales is None else d * int(layer.scales[1, k // kind.group])
        low = 0.0 if layer.m is None else layer.m[1, k // kind.block].item()
        if layer.mins is not None:
            low = -low * int(layer.mins[1, k // kind.group])
        expected = step * (q - 2 ** (kind.bits - 1)) if kind.sym else step * q + low
        if kind.code_book:
            expected = step * kind.code_book[q]
        assert weight[1, k].item() == pytest.approx(expected, rel=1e-6, abs=1e-6 * abs(low))


@pytest.mark.parametrize("name", TYPES)
def test_many_rows_are_handled_in_chunks(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = random_bytes(name, 7, 3, 8)
    whole = decode("layer", name, data)
    monkeypatch.setattr("core.formats.gguf.blocks._CHUNK", 2 * whole.in_features)
    chunked = decode("layer", name, data)
    assert all(torch.equal(a, b) for a, b in zip(whole.parts()[:1], chunked.parts()[:1], strict=True))
    assert torch.equal(chunked.encode(), data)
    assert torch.equal(bits(chunked.dequantize()), bits(read_by_gguf(name, data)))


def test_worked_bytes_of_q4_k() -> None:
    """auto-round 0.16.1 wrote this block for a pattern of eight values times (j+1)/8, first weight -0.1."""
    head = "77169a228890d8e08890d8df77ff77ff"
    data = torch.frombuffer(bytearray.fromhex(head + "0099bb66ff88dd88" * 16), dtype=torch.uint8).view(1, -1)
    layer = decode("layer", "q4_k", data)
    assert layer.scales is not None
    assert layer.mins is not None
    assert layer.scales.tolist() == [[8, 16, 24, 32, 39, 47, 55, 63]]
    assert layer.mins.tolist() == [[8, 16, 24, 31, 39, 47, 55, 63]]
    assert layer.d.item() == pytest.approx(0.0015786, rel=1e-3)
    assert layer.dequantize()[0, 0].item() == pytest.approx(-0.10315, rel=1e-4)


def test_rows_are_taken_in_the_order_asked_for() -> None:
    layer = decode("layer", "q4_k", random_bytes("q4_k", 4, 2, 1))
    order = torch.tensor([2, 0, 3, 1])
    assert torch.equal(layer.take(order).encode(), layer.encode()[order])


@pytest.mark.parametrize("name", ["q4_1", "q3_k", "q5_k"])
def test_steps_and_lows_make_the_weight(name: str) -> None:
    data = random_bytes(name, 3, 1, 2)
    layer = decode("layer", name, data)
    step, low = grid_steps(layer.d.double(), layer.m, layer.scales, layer.mins)
    assert step.shape == (3, layer.in_features // TYPES[name].group)
    assert (low is None) == TYPES[name].sym


def plain_parts(name: str) -> BlockLinear:
    return decode("layer", name, torch.zeros(2, TYPES[name].nbytes, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("q4_0", {"ints": torch.full((2, 32), 16, dtype=torch.uint8)}),
        ("q5_1", {"ints": torch.full((2, 32), 32, dtype=torch.uint8)}),
        ("q2_k", {"scales": torch.full((2, 16), 16, dtype=torch.int8)}),
        ("q3_k", {"scales": torch.full((2, 16), -33, dtype=torch.int8)}),
        ("q4_k", {"scales": torch.full((2, 8), -1, dtype=torch.int8)}),
        ("q5_k", {"mins": torch.full((2, 8), 64, dtype=torch.int8)}),
    ],
)
def test_what_a_type_cannot_store_is_not_written(name: str, change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="lie in"):
        replace(plain_parts(name), **change).encode()


@pytest.mark.parametrize(
    "change",
    [
        {"ints": torch.zeros(2, 256, dtype=torch.int32)},
        {"ints": torch.zeros(2, 255, dtype=torch.uint8)},
        {"d": torch.zeros(2, 2, dtype=torch.float16)},
        {"d": torch.zeros(2, 1)},
        {"m": None},
        {"scales": None},
        {"mins": torch.zeros(2, 9, dtype=torch.int8)},
        {"scheme": LayerScheme.of_type("q3_k")},
        {"scheme": LayerScheme(4, 32, True)},
    ],
)
def test_parts_that_are_not_those_of_the_type_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="layer"):
        replace(plain_parts("q4_k"), **change)
