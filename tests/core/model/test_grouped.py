"""Grouped products with filled-up rows equal those of torch, and have few different shapes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from core.model.block_runner import products_in
from core.model.grouped import ROWS, filled_up, grouped_product, used_experts

GENERATOR = torch.Generator().manual_seed(4)
ENDS = torch.tensor([5, 5, 42, 64], dtype=torch.int32)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_products_are_those_of_torch(dtype: torch.dtype) -> None:
    rows = torch.randn(64, 32, generator=GENERATOR).to(dtype)
    matrices = torch.randn(4, 48, 32, generator=GENERATOR).to(dtype).transpose(1, 2)
    torch.testing.assert_close(
        grouped_product(rows, matrices, ENDS.tolist()),
        functional.grouped_mm(rows, matrices, offs=ENDS),
        rtol=1e-2,
        atol=1e-2,
    )


def test_rows_behind_the_last_expert_are_zero() -> None:
    rows, matrices = torch.ones(70, 32), torch.ones(4, 32, 8)
    assert grouped_product(rows, matrices, ENDS.tolist())[64:].abs().sum() == 0


def test_experts_without_rows_are_left_out() -> None:
    assert used_experts([5, 5, 42, 64]) == [(0, slice(0, 5)), (2, slice(5, 42)), (3, slice(42, 64))]


def test_rows_in_16_bits_are_filled_up_with_zeros() -> None:
    rows = torch.ones(ROWS + 3, 8, dtype=torch.bfloat16)
    full = filled_up(rows)
    assert len(full) == 2 * ROWS
    assert torch.equal(full[: len(rows)], rows)
    assert full[len(rows) :].abs().sum() == 0
    assert filled_up(rows.float()).shape == rows.shape


def test_passes_without_gradients_use_them(monkeypatch: pytest.MonkeyPatch) -> None:
    from core.model import grouped

    seen: list[int] = []

    def noted(inputs: torch.Tensor, matrices: torch.Tensor, ends: list[int]) -> torch.Tensor:
        seen.append(len(inputs))
        return grouped_product(inputs, matrices, ends)

    monkeypatch.setattr(grouped, "grouped_product", noted)
    rows, matrices = torch.randn(64, 32).bfloat16(), torch.randn(4, 32, 48).bfloat16()
    with products_in(torch.bfloat16, torch.device("cpu")):
        with torch.no_grad():
            functional.grouped_mm(rows, matrices, offs=ENDS)
        functional.grouped_mm(rows, matrices, offs=ENDS)
    assert seen == [64]
