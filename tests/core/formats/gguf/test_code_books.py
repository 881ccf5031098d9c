"""Tests of code books: values as in gguf-py, and the nearest integer by comparison with all values."""

from __future__ import annotations

import gguf.quants
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from core.block_types import TYPES
from core.formats.gguf.code_books import code_values, decoded, nearest_code, nearest_in_cell, positions

BOOKS = sorted(name for name in TYPES if TYPES[name].code_book)


@pytest.mark.parametrize("name", BOOKS)
def test_the_values_are_those_of_gguf(name: str) -> None:
    assert TYPES[name].code_book == gguf.quants.IQ4_NL.kvalues


@given(
    name=st.sampled_from(BOOKS), values=st.lists(st.floats(-300, 300, width=32) | st.integers(-130, 130), min_size=1)
)
def test_no_other_integer_is_nearer(name: str, values: list[float]) -> None:
    ratio = torch.tensor(values, dtype=torch.float32)
    found = nearest_code(ratio, name)
    off = (decoded(found, name) - ratio).abs()
    least = (code_values(name) - ratio.unsqueeze(-1)).abs().amin(-1)
    assert torch.allclose(off, least, rtol=0, atol=1e-4)


@given(name=st.sampled_from(BOOKS), values=st.lists(st.floats(-300, 300, width=32), min_size=1))
def test_a_rounded_position_is_the_nearest_integer(name: str, values: list[float]) -> None:
    ratio = torch.tensor(values, dtype=torch.float32)
    place = positions(ratio, name)
    sure = (place - place.floor() - 0.5).abs() > 1e-3
    assert torch.equal(place.round().clamp(0, 15)[sure], nearest_code(ratio, name).float()[sure])


@pytest.mark.parametrize("name", BOOKS)
def test_every_value_has_its_own_integer_and_position(name: str) -> None:
    every = torch.arange(16)
    assert torch.equal(nearest_code(code_values(name), name).long(), every)
    assert torch.equal(positions(code_values(name), name), every.float())
    assert torch.equal(decoded(every.view(4, 4), name), code_values(name).view(4, 4))


@pytest.mark.parametrize("name", BOOKS)
def test_a_cell_for_every_half_from_the_first_value_to_the_last(name: str) -> None:
    book = TYPES[name].code_book
    assert len(nearest_in_cell(name)) == 2 * (book[-1] - book[0]) + 1
