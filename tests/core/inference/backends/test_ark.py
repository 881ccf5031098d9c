"""Tests of auto-round-lib, where it is installed: supported schemes against the exact weights, and refused ones."""

from __future__ import annotations

import importlib.util
import sys
from types import ModuleType

import pytest
import torch

from core.inference.backends.ark import ArkBackend
from core.inference.machine import Device
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import BLOCKS, CARD, CPU, PLAIN, apart, facts, layer

BACKEND = ArkBackend()
XPU = Device("xpu:0", "xpu", "Some card", 1 << 40, 1 << 40)
ALL = [*PLAIN, *BLOCKS]
SUPPORTED = [scheme for scheme in ALL if scheme.sym or not scheme.type]
installed = pytest.mark.skipif(
    importlib.util.find_spec("auto_round_kernel") is None, reason="auto-round-lib is not installed"
)


@installed
@pytest.mark.parametrize("scheme", SUPPORTED, ids=[scheme.label() for scheme in SUPPORTED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_scheme_is_exact(scheme: LayerScheme, dtype: torch.dtype) -> None:
    stored = layer(scheme)
    x, bias = torch.randn(1, 5, 256).to(dtype), torch.randn(48)
    assert (BACKEND.missing(CPU), BACKEND.refusal(facts(stored), CPU, dtype)) == (None, "")
    found = BACKEND.build(stored, bias, CPU, dtype)(x)
    assert found.dtype == dtype
    exact = torch.nn.functional.linear(x.float(), stored.dequantize(), bias)
    assert apart(found, exact) < (1e-6 if dtype == torch.float32 else 4e-3)


@installed
@pytest.mark.parametrize("sym", [True, False])
@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_act_order_is_computed(bits: int, sym: bool) -> None:
    stored = layer(LayerScheme(bits, 64, sym), act_order=True)
    x = torch.randn(1, 256)
    found = BACKEND.build(stored, None, CPU, torch.float32)(x)
    assert apart(found, x @ stored.dequantize().t()) < 1e-6


@installed
@pytest.mark.parametrize(("group", "inputs", "outputs"), [(96, 288, 40), (-1, 576, 33), (96, 256, 100), (32, 32, 1)])
def test_unusual_shapes_are_computed(group: int, inputs: int, outputs: int) -> None:
    stored = layer(LayerScheme(4, group), outputs=outputs, inputs=inputs)
    x = torch.randn(3, inputs)
    found = BACKEND.build(stored, None, CPU, torch.float32)(x)
    assert apart(found, x @ stored.dequantize().t()) < 1e-6


@pytest.mark.parametrize(
    ("scheme", "device", "reason"),
    [
        (LayerScheme.of_type("q4_k"), CPU, "there is no kernel for GGUF types with minimums"),
        (LayerScheme(2, 64), XPU, "there is no kernel for 2 bits"),
        (LayerScheme(4, 64, sym=False), XPU, "there is no kernel for asymmetric layers on an XPU"),
    ],
)
def test_unsupported_layers_are_refused_with_the_reason(scheme: LayerScheme, device: Device, reason: str) -> None:
    assert BACKEND.refusal(facts(layer(scheme)), device, torch.float32) == reason


def test_the_backend_is_not_available_on_cuda() -> None:
    missing = BACKEND.missing(CARD)
    assert missing is not None
    assert missing.install == ""


@pytest.mark.usefixtures("fresh_probes")
def test_a_library_that_is_too_old_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("auto_round_kernel")
    old.__spec__ = importlib.util.spec_from_loader("auto_round_kernel", None)
    monkeypatch.setitem(sys.modules, "auto_round_kernel", old)
    missing = BACKEND.missing(CPU)
    assert missing is not None
    assert "too old" in missing.reason
