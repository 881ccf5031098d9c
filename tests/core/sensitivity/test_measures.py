"""The measures, each compared with its definition."""

from __future__ import annotations

import torch

from core.schemes import LayerScheme
from core.sensitivity import measures
from core.sensitivity.passes import CapturedActivations

GENERATOR = torch.Generator().manual_seed(1)
WEIGHT = torch.randn(32, 64, generator=GENERATOR)
ACTIVATIONS = CapturedActivations(
    torch.randn(50, 64, generator=GENERATOR), torch.randn(50, 32, generator=GENERATOR), 50
)


def test_the_weight_error_decreases_with_the_bits() -> None:
    coarse, fine = (measures.error_of(WEIGHT, LayerScheme(bits, 32)) for bits in (2, 8))
    assert coarse.shape == WEIGHT.shape
    assert 0 < fine.abs().max() < WEIGHT.abs().max() / 100 < coarse.abs().max()


def test_fisher_is_half_the_mean_square_of_gradient_times_output_error() -> None:
    error = measures.error_of(WEIGHT, LayerScheme(2, 32))
    each = [float(g @ (error @ x)) for x, g in zip(ACTIVATIONS.inputs, ACTIVATIONS.gradients, strict=True)]
    expected = 0.5 * sum(e * e for e in each) / len(each)
    torch.testing.assert_close(measures.fisher(ACTIVATIONS, error), expected, rtol=1e-4, atol=0)


def test_first_order_is_the_sum_of_absolute_gradient_times_error() -> None:
    error = measures.error_of(WEIGHT, LayerScheme(3, 32))
    gradient = sum(torch.outer(g, x) for x, g in zip(ACTIVATIONS.inputs, ACTIVATIONS.gradients, strict=True))
    expected = float((gradient * error).abs().sum()) / len(ACTIVATIONS.inputs)
    torch.testing.assert_close(measures.first_order(ACTIVATIONS, error), expected, rtol=1e-4, atol=0)


def test_output_is_the_relative_output_error_for_independent_inputs() -> None:
    inputs = torch.randn(20_000, 64, generator=GENERATOR)
    error = measures.error_of(WEIGHT, LayerScheme(2, 32))
    exact = float((inputs @ error.T).square().sum() / (inputs @ WEIGHT.T).square().sum())
    assert abs(measures.output(CapturedActivations(inputs, inputs[:0], len(inputs)), WEIGHT, error) / exact - 1) < 0.05


def test_all_measures_are_zero_without_an_error() -> None:
    nothing = torch.zeros_like(WEIGHT)
    assert measures.fisher(ACTIVATIONS, nothing) == 0
    assert measures.first_order(ACTIVATIONS, nothing) == 0
    assert measures.output(ACTIVATIONS, WEIGHT, nothing) == 0


def test_output_of_zero_inputs_is_zero() -> None:
    silent = CapturedActivations(torch.zeros(5, 64), torch.zeros(5, 32), 5)
    assert measures.output(silent, WEIGHT, measures.error_of(WEIGHT, LayerScheme(2, 32))) == 0
