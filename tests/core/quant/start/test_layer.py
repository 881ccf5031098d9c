"""The start of a layer: each step reduces the error, and the result can be stored."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core.quant.start.descent import descend
from core.quant.start.feedback import error_factors, round_with_feedback
from core.quant.start.layer import start_layer
from core.quant.start.least_squares import fit_scales
from core.quant.start.levels import squared_error
from core.quant.start.scale_search import search
from core.schemes import LayerScheme
from tests.core.quant.start.problem import layer

SCHEMES = [LayerScheme(bits, 32, sym) for bits in (2, 3, 4, 8) for sym in (True, False)]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.label())
def test_every_step_reduces_the_error_of_the_outputs(scheme: LayerScheme) -> None:
    weight, gram = layer()
    searched = search(weight, scheme, gram.diagonal())
    rounded = round_with_feedback(weight, searched, error_factors(gram))
    fitted = fit_scales(weight, rounded, gram)
    descended = descend(weight, fitted, gram)
    errors = [squared_error(weight, found, gram) for found in (searched, rounded, fitted, descended)]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] < 0.5 * errors[0]


@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda scheme: scheme.label())
def test_the_scales_of_a_start_are_float16_values(scheme: LayerScheme) -> None:
    weight, gram = layer()
    found = start_layer(weight, scheme, gram).levels
    assert torch.equal(found.scale, found.scale.half().float())
    assert int(found.levels.max()) < scheme.levels
    assert torch.equal(found.zero, found.zero.round().clamp(0, scheme.levels - 1))


def test_zero_points_are_those_that_a_format_can_store() -> None:
    weight, gram = layer()
    assert int(start_layer(weight.abs(), LayerScheme(4, 32, False), gram, min_zero=1).levels.zero.min()) == 1


@settings(max_examples=25, deadline=None)
@given(scale=st.integers(-12, 12), dead=st.integers(0, 127), seed=st.integers(0, 1000), bits=st.sampled_from([2, 3, 4]))
def test_a_start_is_never_worse_than_the_search(scale: int, dead: int, seed: int, bits: int) -> None:
    weight, gram = layer(seed=seed)
    weight, gram = weight * 2.0**scale, gram.clone()
    gram[dead], gram[:, dead] = 0.0, 0.0
    scheme = LayerScheme(bits, 32)
    searched, found = search(weight, scheme, gram.diagonal()), start_layer(weight, scheme, gram).levels
    assert found.values().isfinite().all()
    assert squared_error(weight, found, gram) <= squared_error(weight, searched, gram)


def test_a_gram_matrix_of_few_inputs_is_damped_enough() -> None:
    weight, _ = layer()
    inputs = torch.randn(3, 128, generator=torch.Generator().manual_seed(1))
    gram = inputs.T @ inputs
    scheme = LayerScheme(3, 32)
    searched, found = search(weight, scheme, gram.diagonal()), start_layer(weight, scheme, gram).levels
    assert squared_error(weight, found, gram) < 0.1 * squared_error(weight, searched, gram)


def test_a_layer_of_zeros_stays_zero() -> None:
    _, gram = layer()
    found = start_layer(torch.zeros(32, 128), LayerScheme(4, 32), gram).levels
    assert not found.values().any()
