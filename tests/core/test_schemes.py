"""Tests of the valid schemes, and of the scheme of a layer of a given shape."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import BadInput
from core.schemes import BITS, LayerScheme

SCHEMES = st.builds(
    LayerScheme,
    bits=st.sampled_from([*BITS, 16]),
    group_size=st.one_of(st.just(-1), st.integers(1, 40).map(lambda n: 32 * n)),
    sym=st.booleans(),
)


@pytest.mark.parametrize("bits", [0, 1, 5, 6, 7, 9, 32, -4, True, 4.0, "4", None, [4]])
def test_other_bits_are_refused(bits: Any) -> None:
    with pytest.raises(BadInput, match="bits is not possible"):
        LayerScheme(bits=bits)


@pytest.mark.parametrize("size", [0, 7, 16, 33, 100, -2, -32, True, 64.0, "64", None])
def test_other_group_sizes_are_refused(size: Any) -> None:
    with pytest.raises(BadInput, match="Group size"):
        LayerScheme(group_size=size)


@pytest.mark.parametrize("sym", [1, "yes", None])
def test_symmetry_is_true_or_false(sym: Any) -> None:
    with pytest.raises(BadInput, match="not true or false"):
        LayerScheme(sym=sym)


def test_groups_of_a_row() -> None:
    assert LayerScheme(group_size=64).groups(576) == 9
    assert LayerScheme(group_size=128).groups(576) == 5
    assert LayerScheme(group_size=-1).groups(576) == 1


@pytest.mark.parametrize(
    ("scheme", "shape", "expected", "reason"),
    [
        (LayerScheme(4, 128), (576, 576), LayerScheme(4, 64), "group 128 does not divide 576: 64"),
        (LayerScheme(4, 128), (96, 64), LayerScheme(4, 32), "group 128 does not divide 96: 32"),
        (LayerScheme(4, 96), (64, 64), LayerScheme(4, 64), "group 96 does not divide 64: 64"),
        (LayerScheme(4, 64), (64, 64), LayerScheme(4, 64), ""),
        (LayerScheme(2, -1), (96, 32), LayerScheme(2, -1), ""),
        (LayerScheme(16, 128), (33, 7), LayerScheme(16, 128), ""),
        (LayerScheme(4, 128), (100, 64), LayerScheme(16, 128), "64x100 is not divisible by 32: left in 16 bits"),
        (LayerScheme(4, 32), (64, 50257), LayerScheme(16, 32), "50257x64 is not divisible by 32: left in 16 bits"),
    ],
)
def test_the_scheme_that_a_layer_can_have(
    scheme: LayerScheme, shape: tuple[int, int], expected: LayerScheme, reason: str
) -> None:
    assert scheme.fit(*shape) == (expected, reason)


@given(SCHEMES, st.integers(1, 5000), st.integers(1, 5000))
def test_a_fitted_scheme_divides_its_layer_and_says_why_it_changed(
    scheme: LayerScheme, rows: int, columns: int
) -> None:
    fitted, reason = scheme.fit(rows, columns)
    assert (fitted == scheme) == (reason == "")
    if fitted.quantized:
        assert rows % fitted.group_of(rows) == 0
        assert rows % 32 == columns % 32 == 0
        assert (fitted.bits, fitted.sym) == (scheme.bits, scheme.sym)
    assert fitted.fit(rows, columns) == (fitted, "")


def test_labels_for_people() -> None:
    assert LayerScheme(4, 64).label() == "W4 g64 sym"
    assert LayerScheme(2, -1, sym=False).label() == "W2 row asym"
    assert LayerScheme(16).label() == "16 bit"
