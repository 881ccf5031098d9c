"""Packing compared with a slow packer written from the description, and worked examples."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.formats.pack import pack_inputs, pack_outputs, unpack_inputs, unpack_outputs
from core.formats.packing import AWQ_ORDER, PLAIN_ORDER, block_values

BITS = (2, 3, 4, 8)


def slow_stream(values: list[int], bits: int) -> list[int]:
    """Little-endian bitstream, bit by bit: bit j of value k is bit k*bits + j of the stream, 32 of them a word."""
    words = [0] * (len(values) * bits // 32)
    for k, value in enumerate(values):
        for j in range(bits):
            place = k * bits + j
            words[place // 32] |= ((value >> j) & 1) << (place % 32)
    return words


def slow_awq(values: list[int]) -> list[int]:
    """Pack column i of each eight at shift 4 * [0, 4, 1, 5, 2, 6, 3, 7][i]."""
    shifts = [0, 4, 1, 5, 2, 6, 3, 7]
    return [
        sum(values[start + i] << (4 * shifts[i]) for i in range(8)) & 0xFFFFFFFF for start in range(0, len(values), 8)
    ]


def unsigned(words: torch.Tensor) -> list[list[int]]:
    return [[word & 0xFFFFFFFF for word in row] for row in words.tolist()]


@st.composite
def matrices(draw: st.DrawFn, bits: int, unit: int) -> torch.Tensor:
    """Draw uint8 [rows, columns], with `columns` a multiple of `unit`."""
    rows, columns = draw(st.integers(1, 5)), unit * draw(st.integers(1, 3))
    values = draw(st.binary(min_size=rows * columns, max_size=rows * columns))
    return torch.tensor(list(values), dtype=torch.uint8).reshape(rows, columns) & (2**bits - 1)


@pytest.mark.parametrize("bits", BITS)
@given(data=st.data())
def test_inputs_pack_as_a_bitstream_along_each_column(bits: int, data: st.DataObject) -> None:
    ints = data.draw(matrices(bits, 32))
    expected = [slow_stream(row, bits) for row in ints.tolist()]
    assert unsigned(pack_inputs(ints, bits).T) == expected


@pytest.mark.parametrize("bits", BITS)
@given(data=st.data())
def test_outputs_pack_as_a_bitstream_along_each_row(bits: int, data: st.DataObject) -> None:
    values = data.draw(matrices(bits, 32)).T
    expected = [slow_stream(row, bits) for row in values.T.tolist()]
    assert unsigned(pack_outputs(values, bits)) == expected


@given(data=st.data())
def test_awq_order_equals_its_table_of_shifts(data: st.DataObject) -> None:
    values = data.draw(matrices(4, 8)).T
    assert unsigned(pack_outputs(values, 4, AWQ_ORDER)) == [slow_awq(row) for row in values.T.tolist()]


@pytest.mark.parametrize("bits", BITS)
@given(data=st.data())
def test_unpack_inputs_inverts_pack_inputs(bits: int, data: st.DataObject) -> None:
    ints = data.draw(matrices(bits, block_values(bits)))
    assert torch.equal(unpack_inputs(pack_inputs(ints, bits), bits), ints)


@pytest.mark.parametrize(("bits", "order"), [*((b, PLAIN_ORDER) for b in BITS), (4, AWQ_ORDER)])
@given(data=st.data())
def test_unpack_outputs_inverts_pack_outputs(bits: int, order: tuple[int, ...], data: st.DataObject) -> None:
    values = data.draw(matrices(bits, max(block_values(bits), len(order)))).T
    assert torch.equal(unpack_outputs(pack_outputs(values, bits, order), bits, order), values)


@pytest.mark.parametrize("bits", BITS)
def test_packing_restores_any_unpacked_words(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    words = torch.randint(-(2**31), 2**31, (3 * bits, 5), generator=generator).to(torch.int32)
    assert torch.equal(pack_inputs(unpack_inputs(words, bits), bits), words)


@pytest.mark.parametrize("bits", BITS)
def test_a_matrix_of_several_slices_is_restored(bits: int) -> None:
    generator = torch.Generator().manual_seed(bits)
    ints = torch.randint(0, 2**bits, (700, 1024), generator=generator).to(torch.uint8)
    assert torch.equal(unpack_inputs(pack_inputs(ints, bits), bits), ints)
    assert torch.equal(unpack_outputs(pack_outputs(ints[:672], bits), bits), ints[:672])


@pytest.mark.parametrize(("value", "bits"), [(4, 2), (8, 3), (16, 4)])
def test_a_value_too_large_for_its_bits_is_rejected(value: int, bits: int) -> None:
    ints = torch.zeros(1, 32, dtype=torch.uint8)
    ints[0, 5] = value
    with pytest.raises(ValueError, match="does not fit"):
        pack_inputs(ints, bits)


def test_values_that_do_not_fill_words_are_rejected() -> None:
    with pytest.raises(ValueError, match="whole words"):
        pack_inputs(torch.zeros(1, 33, dtype=torch.uint8), 3)


def test_words_without_whole_blocks_are_rejected() -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        unpack_inputs(torch.zeros(4, 1, dtype=torch.int32), 3)


def test_other_dtypes_are_rejected() -> None:
    with pytest.raises(ValueError, match="uint8"):
        pack_inputs(torch.zeros(1, 32, dtype=torch.int32), 4)
