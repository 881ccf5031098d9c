"""Tests of IPEX, where it is installed: 2 to 4 bits against the exact weights, and refused layers."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from core.inference.backends.ipex import IpexBackend
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import CARD, CPU, PLAIN, apart, facts, layer

BACKEND = IpexBackend()
SUPPORTED = [scheme for scheme in PLAIN if scheme.bits <= 4]
installed = pytest.mark.skipif(
    importlib.util.find_spec("intel_extension_for_pytorch") is None, reason="IPEX is not installed"
)
ROUNDED = 0.01


@installed
@pytest.mark.parametrize("scheme", SUPPORTED, ids=[scheme.label() for scheme in SUPPORTED])
@pytest.mark.parametrize("act_order", [False, True])
def test_every_scheme_is_as_exact_as_bfloat16(scheme: LayerScheme, act_order: bool) -> None:
    stored = layer(scheme, outputs=64, act_order=act_order)
    x, bias = torch.randn(1, 5, 256), torch.randn(64)
    assert (BACKEND.missing(CPU), BACKEND.refusal(facts(stored), CPU, torch.float32)) == (None, "")
    found = BACKEND.build(stored, bias, CPU, torch.float32)(x)
    exact = torch.nn.functional.linear(x, stored.dequantize(), bias)
    assert apart(found, exact) < ROUNDED


@pytest.mark.parametrize(
    ("scheme", "outputs", "reason"),
    [
        (LayerScheme.of_type("q4_0"), 48, "there is no kernel for GGUF types"),
        (LayerScheme(8, 64), 48, "there is no kernel for 8 bits"),
        (LayerScheme(4, 96), 48, "there is no kernel for 48x256 in groups of 96"),
        (LayerScheme(4, 64), 33, "there is no kernel for 33x256 in groups of 64"),
    ],
)
def test_unsupported_layers_are_refused_with_the_reason(scheme: LayerScheme, outputs: int, reason: str) -> None:
    assert BACKEND.refusal(facts(layer(scheme, outputs)), CPU, torch.float32) == reason


def test_the_backend_is_not_available_on_a_card() -> None:
    missing = BACKEND.missing(CARD)
    assert missing is not None
    assert missing.install == ""
