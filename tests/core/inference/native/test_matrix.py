"""Packing for the compiled kernels: what comes back, how much it takes, what it refuses."""

from __future__ import annotations

import pytest
import torch

from core.errors import BadInput
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
    stored = layer(scheme, ordered=True)
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
    ],
)  # fmt: skip
def test_block_types_take_little_more_than_their_files(name: str, bits: float) -> None:
    """K types keep a second float16 for every 256 weights even without minimums, and Q3_K is packed in four bits."""
    assert matrix.pack(layer(LayerScheme.of_type(name), outputs=64, inputs=1024)).nbytes * 8 == bits * 64 * 1024


def test_zero_points_that_are_all_the_same_are_one_number() -> None:
    stored = layer(LayerScheme(4, 64))
    asym = layer(LayerScheme(4, 64, False))
    assert matrix.pack(stored).struct.scales == library.SYMMETRIC
    assert matrix.pack(asym).struct.scales == library.ZEROS


def test_inputs_in_their_own_order_need_none() -> None:
    assert matrix.pack(layer(LayerScheme(4, 64))).struct.order is None
    assert matrix.pack(layer(LayerScheme(4, 64), ordered=True)).struct.order is not None


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
