"""Tests of packing for the compiled kernels: values, size, errors."""

from __future__ import annotations

import ctypes

import pytest
import torch

from core.errors import BadInput, CorruptFile
from core.formats.gguf.blocks import BlockLinear
from core.inference.backends.backend import LayerFacts
from core.inference.native import library, matrix
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import BLOCKS, PLAIN, facts, layer

pytestmark = pytest.mark.skipif(library.why_not() != "", reason="nothing compiles the kernels here")


@pytest.mark.parametrize("scheme", [*PLAIN, *BLOCKS], ids=lambda scheme: scheme.label())
def test_every_scheme_comes_back_as_it_was(scheme: LayerScheme) -> None:
    stored = layer(scheme, outputs=50)
    torch.testing.assert_close(matrix.pack(stored).dequantize(), stored.dequantize(), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("scheme", [each for each in PLAIN if each.group_size == 64], ids=lambda scheme: scheme.label())
def test_plain_schemes_come_back_to_the_bit(scheme: LayerScheme) -> None:
    stored = layer(scheme, act_order=True)
    assert torch.equal(matrix.pack(stored).dequantize(), stored.dequantize())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_weights_that_are_not_quantized_come_back_as_they_were(dtype: torch.dtype) -> None:
    weight = torch.randn(50, 96).to(dtype)
    assert torch.equal(matrix.dense(weight).dequantize(), weight.float())


def test_all_float16_numbers_are_read_as_torch_reads_them() -> None:
    every = torch.arange(-(1 << 15), 1 << 15, dtype=torch.int32).to(torch.int16).view(torch.float16).view(1 << 11, 32)
    found = matrix.dense(every).dequantize()
    assert torch.equal(found.nan_to_num(7.0), every.float().nan_to_num(7.0))


@pytest.mark.parametrize(("bits", "nbytes"), [(2, 16384), (3, 24576), (4, 32768), (8, 65536)])
def test_integers_take_their_bits(bits: int, nbytes: int) -> None:
    packed = matrix.pack(layer(LayerScheme(bits, 128), outputs=64, inputs=1024))
    assert packed.nbytes == nbytes + 64 * 8 * 2  # and a float16 for each group


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("q4_0", 4.5), ("q4_1", 5), ("q5_0", 5.5), ("q5_1", 6), ("q8_0", 8.5),
        ("q2_k", 3.125), ("q3_k", 4.625), ("q4_k", 4.625), ("q5_k", 5.625), ("q6_k", 6.625),
        ("iq4_nl", 8.5), ("iq4_xs", 8.375),
    ],
)  # fmt: skip
def test_block_types_take_little_more_than_their_files(name: str, bits: float) -> None:
    """K-quants have a second float16 for every 256 weights even without minimums, and Q3_K is packed in four bits.

    The values of a code book are packed in eight bits.
    """
    assert matrix.pack(layer(LayerScheme.of_type(name), outputs=64, inputs=1024)).nbytes * 8 == bits * 64 * 1024


def test_zero_points_that_are_all_the_same_are_one_number() -> None:
    stored = layer(LayerScheme(4, 64))
    asym = layer(LayerScheme(4, 64, False))
    assert matrix.pack(stored).struct.scales == library.SYMMETRIC
    assert matrix.pack(asym).struct.scales == library.ZEROS


def test_inputs_in_their_own_order_need_none() -> None:
    assert matrix.pack(layer(LayerScheme(4, 64))).struct.order.at is None
    assert matrix.pack(layer(LayerScheme(4, 64), act_order=True)).struct.order.at is not None


def test_memory_is_aligned() -> None:
    for size in (1, 63, 64, 1000):
        memory = matrix.aligned(size)
        assert (memory.data_ptr() % library.ALIGNMENT, memory.nbytes) == (0, size)


def test_inputs_that_are_no_multiple_of_32_are_refused_before_and_while_packing() -> None:
    stored = layer(LayerScheme(4, -1), inputs=80)
    assert "multiple of 32" in matrix.refusal(facts(stored))
    with pytest.raises(BadInput, match="multiple of 32"):
        matrix.pack(stored)
    with pytest.raises(BadInput, match="80 inputs"):
        matrix.dense(torch.zeros(4, 80))


def test_dtypes_that_the_kernels_do_not_read_are_refused() -> None:
    with pytest.raises(BadInput, match="float64"):
        matrix.dense(torch.zeros(4, 64, dtype=torch.float64))


def test_layers_of_16_bits_are_not_refused_for_their_groups() -> None:
    assert matrix.refusal(LayerFacts("x", 64, 64, LayerScheme(16))) == ""


@pytest.mark.parametrize(
    "x", [torch.zeros(2, 128), torch.zeros(2, 512), torch.zeros(256), torch.zeros(2, 256, dtype=torch.float64)]
)
def test_rows_that_are_not_the_layers_are_refused(x: torch.Tensor) -> None:
    packed = matrix.pack(layer(LayerScheme(4, 64)))
    with pytest.raises(ValueError, match="rows of 256 inputs"):
        matrix.linear(packed, x)


def test_rows_that_do_not_lie_in_one_piece_are_copied() -> None:
    packed, x = matrix.pack(layer(LayerScheme(4, 64))), torch.randn(256, 3)
    assert torch.equal(matrix.linear(packed, x.t()), matrix.linear(packed, x.t().contiguous()))


def test_more_rows_than_the_kernels_take_at_once() -> None:
    packed, x = matrix.pack(layer(LayerScheme(4, 64), outputs=16, inputs=64)), torch.randn(4100, 64)
    assert torch.equal(matrix.linear(packed, x)[4096:], matrix.linear(packed, x[4096:]))


def test_a_bias_of_other_outputs_is_refused() -> None:
    with pytest.raises(BadInput, match=r"shape \[4\], and its layer 48 outputs"):
        matrix.pack(layer(LayerScheme(4, 64)), torch.zeros(4))


def test_a_tensor_in_pieces_gives_no_address() -> None:
    with pytest.raises(ValueError, match="strides"):
        library.memory(torch.zeros(4, 4).t())


@pytest.mark.parametrize("field", ["out_features", "in_features", "group_size", "block", "bits", "planes", "scales"])
@pytest.mark.parametrize("value", [-1, 100, (1 << 31) - 1])
def test_the_kernels_refuse_a_matrix_that_cannot_be(field: str, value: int) -> None:
    packed, row = matrix.pack(layer(LayerScheme(4, 64))), torch.empty(256)
    setattr(packed.struct, field, value)
    assert library.load().bw_matrix_row(ctypes.byref(packed.struct), 0, row.data_ptr(), row.nbytes) < 0


@pytest.mark.parametrize("part", ["data", "scale", "offset"])
def test_the_kernels_refuse_memory_that_is_too_short(part: str) -> None:
    packed, row = matrix.pack(layer(LayerScheme(4, 64, False))), torch.empty(256)
    getattr(packed.struct, part).bytes -= 1
    with pytest.raises(CorruptFile, match="memory is shorter than its shape"):
        library.checked(library.load().bw_matrix_row(ctypes.byref(packed.struct), 0, row.data_ptr(), row.nbytes))


def test_the_kernels_refuse_an_order_that_names_no_input() -> None:
    packed, row = matrix.pack(layer(LayerScheme(4, 64), act_order=True)), torch.empty(256)
    next(part for part in packed.tensors if part.dtype == torch.int32)[17] = 256
    with pytest.raises(CorruptFile, match="an input order has an index out of range"):
        library.checked(library.load().bw_matrix_row(ctypes.byref(packed.struct), 0, row.data_ptr(), row.nbytes))


@pytest.mark.parametrize("scheme", BLOCKS, ids=lambda scheme: scheme.label())
def test_a_layer_in_pieces_is_packed_as_the_whole(scheme: LayerScheme) -> None:
    stored = layer(scheme, outputs=50)
    assert isinstance(stored, BlockLinear)
    pieces = [stored.take(torch.arange(start, min(50, start + 32))) for start in (0, 32)]
    assert torch.equal(matrix.pack_pieces(pieces, 50).dequantize(), matrix.pack(stored).dequantize())


def test_floats_in_pieces_are_packed_as_the_whole() -> None:
    weight = torch.randn(50, 96)
    assert torch.equal(matrix.dense_pieces(weight.split(16), 50).dequantize(), weight)


def test_pieces_that_are_not_the_whole_or_begin_within_a_tile_are_refused() -> None:
    weight = torch.randn(50, 96)
    with pytest.raises(ValueError, match="32 rows of 50"):
        matrix.dense_pieces([weight[:32]], 50)
    with pytest.raises(CorruptFile, match="a size or a kind"):
        matrix.dense_pieces(weight.split(10), 50)
