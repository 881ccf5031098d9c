"""Causal attention in blocks of queries gives the results and gradients of torch's function."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from core.model.block_runner import products_in
from core.model.causal_attention import _KEPT as KEPT
from core.model.causal_attention import LONGEST, attend, attends


def tensors(heads: int, key_heads: int, tokens: int, value_width: int = 16) -> Any:
    generator = torch.Generator().manual_seed(3)
    shapes = ((2, heads, tokens, 16), (2, key_heads, tokens, 16), (2, key_heads, tokens, value_width))
    return [torch.randn(shape, generator=generator, requires_grad=True) for shape in shapes]


@pytest.mark.parametrize("tokens", [32, 128, 300, KEPT + 9])
@pytest.mark.parametrize(("heads", "key_heads", "value_width"), [(4, 4, 16), (6, 2, 16), (4, 4, 8)])
@pytest.mark.parametrize("scale", [None, 0.3])
def test_results_and_gradients_are_those_of_torch(
    heads: int, key_heads: int, value_width: int, tokens: int, scale: float | None
) -> None:
    given = tensors(heads, key_heads, tokens, value_width)
    options: dict[str, Any] = {"is_causal": True, "scale": scale, "enable_gqa": heads != key_heads}
    assert attends(*given, **options)
    expected, found = scaled_dot_product_attention(*given, **options), attend(*given, **options)
    assert torch.allclose(found, expected, atol=1e-5)
    weights = torch.randn(found.shape, generator=torch.Generator().manual_seed(4))
    for one, other in zip(
        torch.autograd.grad((found * weights).sum(), given),
        torch.autograd.grad((expected * weights).sum(), given),
        strict=True,
    ):
        assert torch.allclose(one, other, atol=1e-4)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": False},
        {"is_causal": True, "attn_mask": torch.ones(64, 64, dtype=torch.bool)},
        {"is_causal": True, "dropout_p": 0.1},
        {"is_causal": True, "something": 1},
    ],
)
def test_other_attention_is_left_to_torch(options: dict[str, Any]) -> None:
    assert not attends(*tensors(4, 4, 64), **options)


@pytest.mark.parametrize("tokens", [1, LONGEST + 1])
def test_other_lengths_are_left_to_torch(tokens: int) -> None:
    assert not attends(*tensors(1, 1, tokens), is_causal=True)


def test_queries_that_continue_a_cache_are_left_to_torch() -> None:
    query, key, value = tensors(4, 4, 64)
    assert not attends(query[:, :, 32:], key, value, is_causal=True)


def test_products_in_16_bits_use_it() -> None:
    query, key, value = tensors(4, 4, 64)
    with products_in(torch.bfloat16, torch.device("cpu")):
        found = scaled_dot_product_attention(query, key, value, is_causal=True)
    expected = scaled_dot_product_attention(query, key, value, is_causal=True)
    assert torch.allclose(found.float(), expected, atol=0.05)
    assert found.dtype == torch.bfloat16
    assert "CausalAttention" in type(found.grad_fn).__name__


def test_gradients_in_16_bits_are_close_to_those_in_float32() -> None:
    given = tensors(6, 2, 200)
    weights = torch.randn(2, 6, 200, 16, generator=torch.Generator().manual_seed(5))
    with products_in(torch.bfloat16, torch.device("cpu")):
        found = torch.autograd.grad((attend(*given).float() * weights).sum(), given)
    expected = torch.autograd.grad((attend(*given) * weights).sum(), given)
    for one, other in zip(found, expected, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


def test_large_scores_give_finite_probabilities() -> None:
    query, key, value = tensors(2, 2, 64)
    found = attend(query * 1e4, key, value)
    expected = scaled_dot_product_attention(query * 1e4, key, value, is_causal=True)
    assert torch.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_not_hidden(number: float) -> None:
    query, key, value = tensors(1, 1, 64)
    query.data[0, 0, 40] = number
    rows = attend(query, key, value).isnan().any(-1)[0, 0]
    assert rows.nonzero().flatten().tolist() == [40]
