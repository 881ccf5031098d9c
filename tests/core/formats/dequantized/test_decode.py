"""FP4, E8M0 and packed integers decode as their formulas say."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.formats.dequantized.decode import fp4, packed_integers, powers_of_two
from tests.core.formats.dequantized.stored import e2m1, to_words


@given(st.lists(st.integers(0, 255), min_size=1, max_size=40))
def test_a_byte_is_two_fp4_values_the_low_half_first(data: list[int]) -> None:
    expected = [value for byte in data for value in (e2m1(byte % 16), e2m1(byte // 16))]
    found = fp4(torch.tensor(data, dtype=torch.uint8))
    assert found.tolist() == expected
    assert [math.copysign(1, value) for value in found.tolist()] == [math.copysign(1, value) for value in expected]


@given(st.lists(st.integers(0, 254), max_size=40))
def test_an_exponent_byte_is_a_power_of_two(data: list[int]) -> None:
    found = powers_of_two(torch.tensor(data, dtype=torch.uint8))
    assert found.tolist() == [math.ldexp(1.0, byte - 127) for byte in data]


def test_the_largest_exponent_byte_is_not_a_number() -> None:
    with pytest.raises(ValueError, match="not finite"):
        powers_of_two(torch.tensor([[3, 255]], dtype=torch.uint8))


@given(st.integers(1, 8), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_packed_integers_are_a_bitstream(bits: int, columns: int, seed: int) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << bits, (3, columns))
    assert packed_integers(to_words(values, bits), bits, columns).tolist() == values.tolist()
