"""Products with parameters are recognized in every form in which models compute them, with the right expert."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers.pytorch_utils import Conv1D

from core.model.block_runner import products_in
from core.quant.input_statistics import InputStatistics
from core.quant.products import Product, ProductObserver

GENERATOR = torch.Generator().manual_seed(5)
X = torch.randn(2, 5, 32, generator=GENERATOR)
WEIGHT = torch.randn(48, 32, generator=GENERATOR)
EXPERTS = torch.randn(3, 48, 32, generator=GENERATOR)


def observed(parameters: dict[Tensor, int], run: Callable[[], Any]) -> list[Product]:
    found: list[Product] = []
    with ProductObserver(parameters, found.append), torch.no_grad():
        run()
    return found


@pytest.mark.parametrize(
    "product",
    [
        lambda x, w: functional.linear(x, w),
        lambda x, w: functional.linear(x, w, torch.zeros(48)),
        lambda x, w: x @ w.t(),
        lambda x, w: torch.matmul(x, w.T),
        lambda x, w: torch.mm(x.reshape(-1, 32), w.t()),
        lambda x, w: torch.addmm(torch.zeros(48), x.reshape(-1, 32), w.t()),
        lambda x, w: (w @ x.transpose(1, 2)).transpose(1, 2),
    ],
)
def test_every_form_of_a_product_reports_its_inputs(product: Callable[[Tensor, Tensor], Tensor]) -> None:
    weight = WEIGHT.clone()
    (found,) = observed({weight: 1}, lambda: product(X, weight))
    inputs, output = found.of_expert(0)
    torch.testing.assert_close(inputs, X.reshape(-1, 32))
    torch.testing.assert_close(output, X.reshape(-1, 32) @ weight.t(), rtol=1e-4, atol=1e-5)


def test_modules_of_models_are_observed() -> None:
    linear, conv = nn.Linear(32, 48), Conv1D(48, 32)
    assert len(observed({linear.weight: 1}, lambda: linear(X))) == 1
    (found,) = observed({conv.weight: 1}, lambda: conv(X))
    torch.testing.assert_close(found.of_expert(0)[0], X.reshape(-1, 32))


def test_products_with_other_weights_are_not_reported() -> None:
    weight = WEIGHT.clone()
    assert observed({weight: 1}, lambda: functional.linear(X, WEIGHT)) == []


def test_a_loop_over_experts_reports_the_expert_of_each_view() -> None:
    weights = EXPERTS.clone()
    found = observed({weights: 3}, lambda: [functional.linear(X, weights[number]) for number in (2, 0)])
    assert [product.expert for product in found] == [2, 0]
    assert len(found[0].of_expert(2)[0]) == 10
    assert len(found[0].of_expert(1)[0]) == 0


def test_a_grouped_product_divides_its_rows_between_the_experts() -> None:
    weights = EXPERTS.clone()
    rows = X.reshape(-1, 32)
    ends = torch.tensor([4, 4, 10], dtype=torch.int32)
    (found,) = observed({weights: 3}, lambda: functional.grouped_mm(rows, weights.transpose(1, 2), offs=ends))
    assert [len(found.of_expert(number)[0]) for number in range(3)] == [4, 0, 6]
    inputs, output = found.of_expert(2)
    torch.testing.assert_close(output, inputs @ weights[2].t(), rtol=1e-4, atol=1e-5)


def test_statistics_are_those_of_the_rows_of_each_expert() -> None:
    weights = EXPERTS.clone()
    rows, ends = X.reshape(-1, 32), torch.tensor([4, 4, 10], dtype=torch.int32)
    recorded = InputStatistics({weights: 3})
    with recorded.recording():
        functional.grouped_mm(rows, weights.transpose(1, 2), offs=ends)
        functional.linear(rows[:2], weights[0])
    assert recorded.counts(weights).tolist() == [6, 0, 6]
    means = recorded.mean_squares(weights)
    assert means is not None
    torch.testing.assert_close(means[0], torch.cat([rows[:4], rows[:2]]).square().mean(0))
    torch.testing.assert_close(means[2], rows[4:].square().mean(0))
    torch.testing.assert_close(means[1], torch.cat([rows, rows[:2]]).square().mean(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_run_records_a_grouped_product_as_one_without_filled_up_rows(dtype: torch.dtype) -> None:
    weights, rows = EXPERTS.to(dtype), X.reshape(-1, 32).to(dtype)
    recorded = InputStatistics({weights: 3})
    with torch.no_grad(), recorded.recording(), products_in(dtype, torch.device("cpu")):
        functional.grouped_mm(rows, weights.transpose(1, 2), offs=torch.tensor([4, 4, 10], dtype=torch.int32))
    assert recorded.counts(weights).tolist() == [4, 0, 6]
    assert recorded.grouped(weights)


def test_a_product_with_all_experts_counts_the_rows_that_are_not_zero() -> None:
    weights = EXPERTS.clone()
    rows = torch.zeros(3, 4, 32)
    rows[1, :2] = 1.0
    recorded = InputStatistics({weights: 3})
    with recorded.recording():
        torch.bmm(rows, weights.transpose(1, 2))
    assert recorded.counts(weights).tolist() == [0, 2, 0]


def test_a_parameter_without_products_has_no_statistics() -> None:
    weights = EXPERTS.clone()
    recorded = InputStatistics({weights: 3})
    assert recorded.mean_squares(weights) is None
    assert recorded.counts(weights).tolist() == [0, 0, 0]
