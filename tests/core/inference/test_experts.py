"""Tests that the layers of experts compute the products with their weights, in every form that transformers uses."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from core.inference.backends.portable import dense_linear
from core.inference.experts import ExpertWeights, JoinedLinear

EXPERTS, OUT, IN = 4, 6, 5
WEIGHT = torch.randn(EXPERTS, OUT, IN, generator=torch.Generator().manual_seed(1))
X = torch.randn(3, IN, generator=torch.Generator().manual_seed(2))


class CountingLinear(nn.Module):
    """A linear layer that counts the rows of its inputs."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.linear, self.rows = dense_linear(weight, None), 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += x.shape[0]
        product: Tensor = self.linear(x)
        return product


def weights(*shape: int, transposed: bool = False) -> Any:  # type checkers expect tensors in products
    experts = [CountingLinear(matrix) for matrix in WEIGHT]
    return ExpertWeights(experts, shape or (EXPERTS, OUT, IN), transposed, torch.float32)


def rows(of: Any) -> list[int]:
    return [expert.rows for expert in of.experts]


def close(found: Any, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected)


def test_a_product_with_one_expert_uses_only_its_layer() -> None:
    plain, transposed = weights(), weights(EXPERTS, IN, OUT, transposed=True)
    bias = torch.ones(OUT)
    close(functional.linear(X, plain[torch.tensor(2)]), X @ WEIGHT[2].T)
    close(functional.linear(X, plain[2], bias), X @ WEIGHT[2].T + bias)
    close(X.matmul(plain[2].T), X @ WEIGHT[2].T)
    close(X @ transposed[1], X @ WEIGHT[1].T)
    assert rows(plain) == [0, 0, 9, 0]
    assert rows(transposed) == [0, 3, 0, 0]


def test_no_tokens_need_no_product() -> None:
    """JetMoE multiplies with all experts, most of which have no tokens."""
    of = weights()
    assert functional.linear(X[:0], of[0]).shape == (0, OUT)
    assert rows(of) == [0] * EXPERTS


@pytest.mark.parametrize("transposed", [True, False])
def test_a_product_with_all_experts_skips_those_without_inputs(transposed: bool) -> None:
    of = weights(EXPERTS, IN, OUT, transposed=True) if transposed else weights()
    x = X.expand(EXPERTS, 3, IN).clone()
    x[1] = 0
    close(torch.bmm(x, of if transposed else of.transpose(1, 2)), torch.bmm(x, WEIGHT.transpose(1, 2)))
    assert rows(of) == [3, 0, 3, 3]


def test_experts_below_each_other_are_viewed_as_a_stack() -> None:
    """DBRX."""
    of = weights(EXPERTS * OUT, IN)
    close(X.matmul(of.view((-1, OUT, IN))[3].T), X @ WEIGHT[3].T)
    assert rows(of) == [0, 0, 0, 3]


def test_other_operations_get_unpacked_weights() -> None:
    of = weights()
    close(torch.ones(3, OUT) @ of[0], torch.ones(3, OUT) @ WEIGHT[0])
    close(torch.einsum("eoi,ni->eno", of.stack, X), torch.einsum("eoi,ni->eno", WEIGHT, X))


@pytest.mark.parametrize("interleaved", [False, True])
def test_rows_of_several_layers_are_joined(interleaved: bool) -> None:
    half = OUT // 2
    places = [slice(0, OUT, 2), slice(1, OUT, 2)] if interleaved else [slice(0, half), slice(half, OUT)]
    parts = [dense_linear(WEIGHT[0][place], None) for place in places]
    joined = JoinedLinear(parts, places, OUT, torch.arange(OUT).float())
    close(joined(X), X @ WEIGHT[0].T + torch.arange(OUT))
