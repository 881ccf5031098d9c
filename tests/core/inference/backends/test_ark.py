"""auto-round-lib, where it is installed: every scheme that it takes against the exact weights; what it leaves alone."""

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
TAKEN = [scheme for scheme in ALL if scheme.sym or not scheme.type]
installed = pytest.mark.skipif(
    importlib.util.find_spec("auto_round_kernel") is None, reason="auto-round-lib is not installed"
)


@installed
@pytest.mark.parametrize("scheme", TAKEN, ids=[scheme.label() for scheme in TAKEN])
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
def test_groups_in_an_order_of_their_own(bits: int, sym: bool) -> None:
    stored = layer(LayerScheme(bits, 64, sym), ordered=True)
    x = torch.randn(1, 256)
    found = BACKEND.build(stored, None, CPU, torch.float32)(x)
    assert apart(found, x @ stored.dequantize().t()) < 1e-6


@installed
@pytest.mark.parametrize(("group", "inputs", "outputs"), [(96, 288, 40), (-1, 576, 33), (96, 256, 100), (32, 32, 1)])
def test_odd_shapes(group: int, inputs: int, outputs: int) -> None:
    stored = layer(LayerScheme(4, group), outputs=outputs, inputs=inputs)
    x = torch.randn(3, inputs)
    found = BACKEND.build(stored, None, CPU, torch.float32)(x)
    assert apart(found, x @ stored.dequantize().t()) < 1e-6


@pytest.mark.parametrize(
    ("scheme", "device", "reason"),
    [
        (LayerScheme.of_type("q4_k"), CPU, "minimums of GGUF have no kernel"),
        (LayerScheme(2, 64), XPU, "2 bits have no kernel"),
        (LayerScheme(4, 64, sym=False), XPU, "asymmetric layers have no kernel on an XPU"),
    ],
)
def test_what_it_does_not_take(scheme: LayerScheme, device: Device, reason: str) -> None:
    assert BACKEND.refusal(facts(layer(scheme)), device, torch.float32) == reason


def test_it_is_not_for_a_cuda_card() -> None:
    missing = BACKEND.missing(CARD)
    assert missing is not None
    assert missing.install == ""


@pytest.mark.usefixtures("fresh_probes")
def test_one_that_is_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    old = ModuleType("auto_round_kernel")
    old.__spec__ = importlib.util.spec_from_loader("auto_round_kernel", None)
    monkeypatch.setitem(sys.modules, "auto_round_kernel", old)
    missing = BACKEND.missing(CPU)
    assert missing is not None
    assert "too old" in missing.reason
