"""Tests of trial layers: correct results pass, wrong results and failures give a reason, and results are cached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn

from core.inference.backends import trial
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import CPU

SCHEMES = (LayerScheme(4, 128, True), LayerScheme(3, 64, False))


@pytest.fixture(autouse=True)
def _no_remembered_trials() -> Iterator[None]:
    trial._found.clear()
    yield
    trial._found.clear()


class DenseLayer(nn.Module):
    """A dense layer with the dequantized weight, after adding `shift` to the zero points."""

    def __init__(self, stored: Any, bias: Any, shift: int = 0) -> None:
        super().__init__()
        self.weight = stored.dequantize() + shift * stored.scales.float().repeat_interleave(
            stored.in_features // stored.scales.shape[1], 1
        )
        self.bias = bias

    def forward(self, x: Any) -> Any:
        return nn.functional.linear(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_a_right_layer_passes(dtype: torch.dtype) -> None:
    assert trial.failure("right", CPU, dtype, DenseLayer, SCHEMES) == ""


def test_zero_points_that_are_off_by_one_are_found() -> None:
    """The two versions of the GPTQ format differ by one in the zero points."""
    reason = trial.failure("off", CPU, torch.bfloat16, lambda stored, bias: DenseLayer(stored, bias, 1), SCHEMES)
    assert "has a relative error of" in reason


def test_nan_is_an_error() -> None:
    def build(stored: Any, bias: Any) -> nn.Module:
        return DenseLayer(stored, bias * float("nan"))

    assert "has a relative error of" in trial.failure("nan", CPU, torch.float32, build, SCHEMES)


def test_an_exception_is_reported_by_its_first_line() -> None:
    def build(stored: Any, bias: Any) -> nn.Module:
        raise RuntimeError("no kernel image for this device.\nCompile with DSA")

    reason = trial.failure("broken", CPU, torch.float32, build, SCHEMES)
    assert reason == "A trial layer failed on Some processor: no kernel image for this device."


def test_a_trial_runs_once() -> None:
    built: list[Any] = []

    def build(stored: Any, bias: Any) -> nn.Module:
        built.append(stored)
        return DenseLayer(stored, bias)

    for _ in range(2):
        trial.failure("once", CPU, torch.float32, build, SCHEMES)
    assert len(built) == len(SCHEMES)
