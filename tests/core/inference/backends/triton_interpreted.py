"""Tests of the Triton kernels in Triton's interpreter, against dequantized weights.

`test_triton.py` runs this file in a separate process: TRITON_INTERPRET must be set before triton is imported, and must
not be set for compilation.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from triton.runtime import interpreter

from core.block_types import TYPES
from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.inference.backends import triton_layer
from core.inference.backends.triton_layer import FEW, MANY, TritonLinear
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import layer
from tests.matrix import combinations

TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 1.2e-2}
"""Largest `error_of`: a few units in the last place of each dtype, as the product and the sum with the bias are
rounded."""

ORDERS = ((32, False), (64, True), (-1, False))
"""Group size, and whether the inputs are in act-order."""
EVEN_TYPES = sorted(name for name, kind in TYPES.items() if not kind.code_book)
"""Types with evenly spaced levels; the backend refuses the others."""
SOME_TYPES = ("q2_k", "q3_k", "q4_0", "q5_1")
"""Block types with and without minimums, of each size of block."""


@pytest.fixture(scope="module", autouse=True)
def _products_of_bfloat16() -> None:
    """Convert bfloat16 operands to float32, because the interpreter stores them as uint16 and multiplies integers."""
    multiply = interpreter.InterpreterBuilder.create_dot

    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        a, b = (_widened(side) for side in (a, b))
        return multiply(self, a, b, *rest)

    interpreter.InterpreterBuilder.create_dot = create_dot


def _widened(side: Any) -> Any:
    if side.data.dtype != numpy.uint16:
        return side
    bits = side.data.astype(numpy.uint32) << 16
    return interpreter.TensorHandle(bits.view(numpy.float32), interpreter.tl.float32)


def layer_of(bits: int, group: int, sym: bool, outputs: int, inputs: int, act_order: bool = False) -> StoredLayer:
    return layer(LayerScheme(bits, group, sym), outputs, inputs, act_order=act_order)


def error_of(built: TritonLinear, stored: StoredLayer, bias: Tensor | None, rows: int, dtype: torch.dtype) -> float:
    """Return the largest error of the product of random rows, relative to the sum of the terms' absolute values."""
    x = torch.randn(rows, stored.ints.shape[1], generator=torch.Generator().manual_seed(2)).to(dtype)
    weight = stored.dequantize().double()
    expected, terms = x.double() @ weight.T, x.double().abs() @ weight.abs().T
    if bias is not None:
        expected += bias.to(dtype).double()
        terms += bias.double().abs()
    y = built(x)
    assert y.dtype == dtype
    return float((y.double() - expected).abs().max() / terms.max())


def test_kernels_run_in_the_interpreter() -> None:
    assert triton_layer.INTERPRETED


@pytest.mark.parametrize(
    ("bits", "sym", "group", "act_order"),
    combinations(
        [(bits, sym, *order) for bits, sym, order in product((2, 3, 4, 8), (True, False), ORDERS)],
        [(2, True, 32, False), (3, False, 64, True), (4, True, -1, False), (8, False, 32, False)],
    ),
)
def test_the_weight_is_the_dequantized_one_to_the_bit(bits: int, sym: bool, group: int, act_order: bool) -> None:
    stored = layer_of(bits, group, sym, 40, 192, act_order)
    assert torch.equal(TritonLinear(stored, None, "cpu", torch.float32).weight(), stored.dequantize())


@pytest.mark.parametrize("name", combinations(EVEN_TYPES, SOME_TYPES))
def test_the_weight_of_a_block_type_is_the_dequantized_one(name: str) -> None:
    stored = layer(LayerScheme.of_type(name), 12, 256)
    weight = TritonLinear(stored, None, "cpu", torch.float32).weight()
    assert torch.allclose(weight, stored.dequantize(), rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("name", combinations(EVEN_TYPES, SOME_TYPES))
@pytest.mark.parametrize("rows", [1, FEW + 1])
def test_products_with_block_types_are_exact(name: str, rows: int) -> None:
    stored = layer(LayerScheme.of_type(name), 12, 256)
    built = TritonLinear(stored, None, "cpu", torch.float16)
    assert error_of(built, stored, None, rows, torch.float16) < TOLERANCE[torch.float16]


def check_products(
    bits: int,
    group: int,
    sym: bool,
    act_order: bool,
    outputs: int,
    inputs: int,
    rows: int,
    dtype: torch.dtype,
    bias: bool,
) -> None:
    stored = layer_of(bits, group, sym, outputs, inputs, act_order)
    added = torch.linspace(-1, 1, outputs) if bias else None
    built = TritonLinear(stored, added, "cpu", dtype)
    assert error_of(built, stored, added, rows, dtype) < TOLERANCE[dtype]


@pytest.mark.parametrize("rows", [1, FEW + 1])
@pytest.mark.parametrize("dtype", sorted(TOLERANCE, key=str), ids=str)
def test_products_in_each_dtype_are_those_of_the_dequantized_weight(dtype: torch.dtype, rows: int) -> None:
    check_products(3, 96, False, True, 37, 160, rows, dtype, True)


@pytest.mark.matrix
@settings(max_examples=25)
@given(
    bits=st.sampled_from([2, 3, 4, 8]),
    group=st.sampled_from([-1, 32, 64, 96, 128]),
    sym=st.booleans(),
    act_order=st.booleans(),
    outputs=st.integers(1, 70),
    inputs=st.integers(1, 9).map(lambda blocks: 32 * blocks),
    rows=st.sampled_from([1, 2, FEW, FEW + 1, 17, 33]),
    dtype=st.sampled_from(sorted(TOLERANCE, key=str)),
    bias=st.booleans(),
)
def test_products_are_those_of_the_dequantized_weight(
    bits: int,
    group: int,
    sym: bool,
    act_order: bool,
    outputs: int,
    inputs: int,
    rows: int,
    dtype: torch.dtype,
    bias: bool,
) -> None:
    check_products(bits, group, sym, act_order, outputs, inputs, rows, dtype, bias)


@pytest.mark.parametrize("tiles", [tiles for group in triton_layer.MANY_TILES.values() for tiles, _ in group], ids=str)
def test_every_tile_size_is_exact(tiles: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stored = layer_of(4, 32, False, 72, 160)
    kernel = triton_layer.many_rows
    monkeypatch.setattr(triton_layer, "choose_kernel", lambda key: (kernel, tiles))
    built = TritonLinear(stored, None, "cpu", torch.float16)
    assert error_of(built, stored, None, 70, torch.float16) < TOLERANCE[torch.float16]


@pytest.mark.parametrize("tiles", [tiles for tiles, _ in triton_layer.FEW_TILES], ids=str)
def test_every_tile_size_for_few_rows_is_exact(tiles: dict[str, int], monkeypatch: pytest.MonkeyPatch) -> None:
    stored = layer_of(3, 64, True, 21, 1088)
    kernel = triton_layer.few_rows
    monkeypatch.setattr(triton_layer, "choose_kernel", lambda key: (kernel, tiles))
    built = TritonLinear(stored, None, "cpu", torch.float32)
    assert error_of(built, stored, None, 2, torch.float32) < TOLERANCE[torch.float32]


def test_very_many_rows_are_multiplied_by_the_whole_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = layer_of(4, 32, True, 24, 64, act_order=True)
    monkeypatch.setattr(TritonLinear, "_product", None)
    built = TritonLinear(stored, torch.ones(24), "cpu", torch.bfloat16)
    error = error_of(built, stored, torch.ones(24), MANY + 1, torch.bfloat16)
    assert error < TOLERANCE[torch.bfloat16]


def test_leading_dimensions_are_kept() -> None:
    built = TritonLinear(layer_of(4, 32, True, 24, 64), None, "cpu", torch.float32)
    assert built(torch.zeros(2, 3, 64)).shape == (2, 3, 24)


def test_an_empty_input_gives_an_empty_output() -> None:
    built = TritonLinear(layer_of(4, 32, True, 24, 64), None, "cpu", torch.float32)
    assert built(torch.zeros(1, 0, 64)).shape == (1, 0, 24)


def test_a_strided_input_is_computed() -> None:
    built = TritonLinear(layer_of(4, 32, True, 24, 64), None, "cpu", torch.float32)
    x = torch.randn(2, 128)[:, ::2]
    assert torch.equal(built(x), built(x.contiguous()))


def test_equal_rows_give_equal_outputs_alone_and_together() -> None:
    """The order of summation does not depend on the number of rows, so a token's logits do not change either."""
    built = TritonLinear(layer_of(4, 32, True, 24, 64), None, "cpu", torch.float32)
    x = torch.randn(FEW, 64)
    assert torch.equal(built(x)[FEW - 1], built(x[FEW - 1 :])[0])


@pytest.mark.parametrize(("bits", "expected"), [(2, 2), (3, 3), (4, 4), (8, 8)])
def test_memory_is_that_of_the_bits(bits: int, expected: int) -> None:
    stored = layer_of(bits, -1, True, 64, 256)
    built = TritonLinear(stored, None, "cpu", torch.float16)
    assert built.nbytes == 64 * 256 * expected // 8 + 2 * 64


def test_inputs_that_are_not_a_multiple_of_32_are_refused() -> None:
    stored = QuantizedLinear(
        "odd", LayerScheme(4, -1, True), torch.zeros(8, 40, dtype=torch.uint8), torch.ones(8, 1).half(),
        torch.full((8, 1), 8, dtype=torch.uint8),
    )  # fmt: skip
    with pytest.raises(ValueError, match="not a multiple of 32"):
        TritonLinear(stored, None, "cpu", torch.float32)
