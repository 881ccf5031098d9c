"""IPEX, in an environment that has it: 2 to 4 bits against the exact weights; and what it does not take."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from core.inference.backends.ipex import IpexBackend
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import CARD, CPU, PLAIN, apart, facts, layer

BACKEND = IpexBackend()
TAKEN = [scheme for scheme in PLAIN if scheme.bits <= 4]
installed = pytest.mark.skipif(
    importlib.util.find_spec("intel_extension_for_pytorch") is None, reason="IPEX is not installed"
)
ROUNDED = 0.01


@installed
@pytest.mark.parametrize("scheme", TAKEN, ids=[scheme.label() for scheme in TAKEN])
@pytest.mark.parametrize("ordered", [False, True])
def test_every_scheme_is_as_exact_as_bfloat16(scheme: LayerScheme, ordered: bool) -> None:
    stored = layer(scheme, outputs=64, ordered=ordered)
    x, bias = torch.randn(1, 5, 256), torch.randn(64)
    assert (BACKEND.missing(CPU), BACKEND.refusal(facts(stored), CPU, torch.float32)) == (None, "")
    found = BACKEND.build(stored, bias, CPU, torch.float32)(x)
    exact = torch.nn.functional.linear(x, stored.dequantize(), bias)
    assert apart(found, exact) < ROUNDED


@pytest.mark.parametrize(
    ("scheme", "outputs", "reason"),
    [
        (LayerScheme.of_type("q4_0"), 48, "GGUF's types have no kernel"),
        (LayerScheme(8, 64), 48, "8 bits have no kernel"),
        (LayerScheme(4, 96), 48, "48x256 in groups of 96 has no kernel"),
        (LayerScheme(4, 64), 33, "33x256 in groups of 64 has no kernel"),
    ],
)
def test_what_it_does_not_take(scheme: LayerScheme, outputs: int, reason: str) -> None:
    assert BACKEND.refusal(facts(layer(scheme, outputs)), CPU, torch.float32) == reason


def test_it_is_not_for_a_card() -> None:
    missing = BACKEND.missing(CARD)
    assert missing is not None
    assert missing.install == ""
