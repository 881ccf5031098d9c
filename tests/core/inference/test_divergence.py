"""Tests of the distance between two small random models, against the plain formulas."""

from __future__ import annotations

import math

import pytest
import torch

from core.errors import BadInput
from core.inference.divergence import TokenComparison, compare_logits, compare_tokens
from core.inference.evaluate import perplexity
from tests.core.inference.test_evaluate import WORDS, make_model


@pytest.fixture
def windows() -> torch.Tensor:
    return torch.randint(0, WORDS, (5, 24), generator=torch.Generator().manual_seed(1))


def of_divergences(values: list[list[float]]) -> TokenComparison:
    table = torch.tensor(values)
    losses = torch.zeros(len(table), table.shape[1] - 1)
    return TokenComparison(losses, losses, table, torch.ones_like(table, dtype=torch.bool))


def test_the_divergence_of_a_model_from_itself_is_zero(windows: torch.Tensor) -> None:
    found = compare_logits(make_model(), make_model(), windows)
    assert (found.kl_mean, found.top1, found.positions) == (0.0, 1.0, 5 * 24)


def test_the_divergence_equals_the_formula(windows: torch.Tensor) -> None:
    first, second = make_model(0), make_model(1)
    with torch.no_grad():
        p = torch.softmax(first(input_ids=windows).logits.double(), -1)
        q = torch.softmax(second(input_ids=windows).logits.double(), -1)
    expected = float((p * (p / q).log()).sum(-1).mean())
    assert compare_logits(first, second, windows).kl_mean == pytest.approx(expected, rel=1e-4)


def test_agreement_is_the_share_of_equal_first_choices(windows: torch.Tensor) -> None:
    first, second = make_model(0), make_model(1)
    with torch.no_grad():
        same = first(input_ids=windows).logits.argmax(-1) == second(input_ids=windows).logits.argmax(-1)
    assert compare_logits(first, second, windows).top1 == pytest.approx(float(same.double().mean()))


def test_models_of_different_vocabularies_are_not_compared(windows: torch.Tensor) -> None:
    with pytest.raises(BadInput, match="vocabularies"):
        compare_logits(make_model(), make_model(vocabulary=WORDS + 5), windows)


def test_percentiles_are_those_of_all_positions() -> None:
    found = of_divergences([[float(value) for value in range(1, 101)], [float(value) for value in range(101, 201)]])
    summary = found.summary()
    assert (summary.kl_median, summary.kl_p90, summary.kl_p99) == (100, 180, 198)


def test_standard_errors_are_those_of_the_windows_not_of_the_tokens() -> None:
    """Equal tokens within a window carry no more information than one."""
    summary = of_divergences([[1.0] * 50, [2.0] * 50, [3.0] * 50]).summary()
    assert (summary.kl_mean, summary.windows, summary.positions) == (2.0, 3, 150)
    assert summary.kl_standard_error == pytest.approx(1 / math.sqrt(3))


def test_the_perplexity_ratio_is_that_of_the_two_perplexities(windows: torch.Tensor) -> None:
    first, second = make_model(0), make_model(1)
    found = compare_logits(first, second, windows)
    expected = perplexity(second, windows).value / perplexity(first, windows).value
    assert found.perplexity_ratio == pytest.approx(expected, rel=1e-5)
    increases = torch.tensor([compare_logits(first, second, row[None]).loss_increase for row in windows])
    assert found.perplexity_ratio_standard_error == pytest.approx(
        expected * float(increases.std()) / math.sqrt(5), rel=1e-4
    )


def test_the_losses_are_those_of_both_models(windows: torch.Tensor) -> None:
    found = compare_tokens(make_model(0), make_model(1), windows)
    assert float(found.reference_losses.mean()) == pytest.approx(perplexity(make_model(0), windows).nll, rel=1e-5)
    assert float(found.losses.mean()) == pytest.approx(perplexity(make_model(1), windows).nll, rel=1e-5)
