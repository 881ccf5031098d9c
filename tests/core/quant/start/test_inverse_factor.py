"""The upper Cholesky factor of an inverse, in place and in blocks of columns."""

from __future__ import annotations

import pytest
import torch

from core.quant.start import inverse_factor
from core.quant.start.inverse_factor import invert_and_factor


@pytest.mark.parametrize(("width", "block"), [(7, 512), (64, 16), (100, 16), (100, 99)])
def test_it_is_the_factor_of_the_inverse(monkeypatch: pytest.MonkeyPatch, width: int, block: int) -> None:
    monkeypatch.setattr(inverse_factor, "_BLOCK", block)
    inputs = torch.randn(2 * width, width, generator=torch.Generator().manual_seed(width))
    gram = inputs.T @ inputs / len(inputs)
    expected = torch.linalg.cholesky(torch.linalg.inv(gram.double()), upper=True)
    assert invert_and_factor(gram)
    assert torch.allclose(gram.double(), expected, atol=1e-5)
    assert torch.equal(gram, gram.triu())


@pytest.mark.parametrize("odd", [-1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("place", [0, 5, 11])
def test_a_matrix_that_is_not_positive_definite_or_not_finite_is_reported(
    monkeypatch: pytest.MonkeyPatch, odd: float, place: int
) -> None:
    monkeypatch.setattr(inverse_factor, "_BLOCK", 4)
    matrix = torch.eye(12)
    matrix[place, place] = odd
    assert not invert_and_factor(matrix)
