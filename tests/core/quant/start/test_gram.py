"""Gram matrices of inputs: summed over passes, shared between weights with the same inputs, and kept by expert."""

from __future__ import annotations

import torch
from torch.nn import functional

from core.quant.start.gram import GramMatrices


def parameter(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def mean(grams: GramMatrices, weight: torch.Tensor, expert: int = 0) -> torch.Tensor:
    found = grams.of(weight, expert)
    assert found is not None
    return found


def test_the_mean_over_all_tokens_of_all_passes() -> None:
    weight = parameter(4, 8)
    grams = GramMatrices({weight: 1})
    inputs = torch.randn(5, 6, 8)
    for part in inputs.split(2):
        with grams.recording():
            functional.linear(part, weight)
    rows = inputs.reshape(-1, 8)
    assert torch.allclose(mean(grams, weight), rows.T @ rows / len(rows), atol=1e-5)


def test_weights_with_the_same_inputs_share_a_matrix() -> None:
    query, key, output = parameter(4, 8), parameter(2, 8) + 1, parameter(8, 4)
    grams = GramMatrices({query: 1, key: 1, output: 1})
    for _ in range(2):
        inputs = torch.randn(3, 8)
        with grams.recording():
            mixed = functional.linear(inputs, query)
            functional.linear(inputs, key)
            functional.linear(mixed, output)
    assert torch.equal(mean(grams, query), mean(grams, key))
    assert len(grams._sums) == 2
    assert mean(grams, output).shape == (4, 4)


def test_each_expert_has_the_matrix_of_its_tokens() -> None:
    experts = parameter(3, 8, 4)
    grams = GramMatrices({experts: 3})
    inputs = torch.randn(6, 8)
    with grams.recording():
        torch._grouped_mm(inputs, experts, offs=torch.tensor([2, 2, 6], dtype=torch.int32))
    assert torch.allclose(mean(grams, experts, 0), inputs[:2].T @ inputs[:2] / 2, atol=1e-6)
    assert torch.allclose(mean(grams, experts, 2), inputs[2:].T @ inputs[2:] / 4, atol=1e-6)
    assert grams.of(experts, 1) is None  # no tokens


def test_only_the_wanted_experts_are_recorded() -> None:
    experts = parameter(3, 8, 4)
    grams = GramMatrices({experts: 3}, {experts: {2}})
    inputs = torch.randn(6, 8)
    with grams.recording():
        torch._grouped_mm(inputs, experts, offs=torch.tensor([2, 4, 6], dtype=torch.int32))
    assert torch.allclose(mean(grams, experts, 2), inputs[4:].T @ inputs[4:] / 2, atol=1e-6)
    assert list(grams._sums) == [grams.key(experts, 2)]


def test_a_weight_that_was_not_multiplied_has_none() -> None:
    weight = parameter(4, 8)
    assert GramMatrices({weight: 1}).of(weight) is None


def test_a_released_matrix_is_freed() -> None:
    query, key = parameter(4, 8), parameter(2, 8) + 1
    grams = GramMatrices({query: 1, key: 1})
    inputs = torch.randn(3, 8)
    with grams.recording():
        functional.linear(inputs, query)
        functional.linear(inputs, key)
    assert grams.key(query) == grams.key(key)
    grams.release(grams.key(key))
    assert not grams._sums
