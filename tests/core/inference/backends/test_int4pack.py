"""Tests of torch's packed 4-bit product: every bit width against the exact weights."""

from __future__ import annotations

import pytest
import torch

from core.inference.backends.int4pack import Int4PackBackend, Int4PackLinear
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import BLOCKS, CARD, CPU, PLAIN, apart, facts, layer

BACKEND = Int4PackBackend()
SUPPORTED = [scheme for scheme in (*PLAIN, *BLOCKS) if scheme.group_size != 16 and not scheme.code_book]
pytestmark = pytest.mark.skipif(BACKEND.missing(CPU) is not None, reason="torch has no fast kernel for this processor")

ROUNDED = 0.004
"""Largest relative error: a bfloat16 has 8 significant bits, so that rows, scales and results are within 1/256."""


@pytest.mark.parametrize("scheme", SUPPORTED, ids=[scheme.label() for scheme in SUPPORTED])
@pytest.mark.parametrize("rows", [1, 5])
def test_every_bit_width_is_as_exact_as_bfloat16(scheme: LayerScheme, rows: int) -> None:
    stored = layer(scheme)
    x, bias = torch.randn(1, rows, 256), torch.randn(48)
    assert BACKEND.refusal(facts(stored), CPU, torch.float32) == ""
    found = BACKEND.build(stored, bias, CPU, torch.float32)(x)
    exact = torch.nn.functional.linear(x, stored.dequantize(), bias)

    assert found.dtype == torch.float32
    assert apart(found, exact) < ROUNDED


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
@pytest.mark.parametrize("sym", [True, False])
def test_act_order_is_computed(bits: int, sym: bool) -> None:
    stored = layer(LayerScheme(bits, 64, sym), act_order=True)
    x = torch.randn(3, 256)
    assert apart(Int4PackLinear(stored, None, torch.float32)(x), x @ stored.dequantize().t()) < ROUNDED


@pytest.mark.parametrize(("group", "inputs"), [(96, 288), (-1, 576), (512, 1024), (96, 256)])
def test_group_sizes_that_the_kernel_does_not_support_are_split(group: int, inputs: int) -> None:
    stored = layer(LayerScheme(4, group), inputs=inputs)
    x = torch.randn(3, inputs)
    assert apart(Int4PackLinear(stored, None, torch.float32)(x), x @ stored.dequantize().t()) < ROUNDED


@pytest.mark.parametrize("outputs", [1, 8, 40, 100])
def test_outputs_are_padded_to_a_multiple_of_16(outputs: int) -> None:
    stored = layer(LayerScheme(4, 32), outputs=outputs)
    x = torch.randn(3, 256)
    found = Int4PackLinear(stored, None, torch.bfloat16)(x.to(torch.bfloat16))
    assert (found.dtype, found.shape) == (torch.bfloat16, (3, outputs))
    assert apart(found, x @ stored.dequantize().t()) < 2 * ROUNDED  # few values, so the RMS varies more


def test_four_bits_take_the_memory_of_four_bits() -> None:
    module = Int4PackLinear(layer(LayerScheme(4, 256), outputs=64, inputs=4096), None, torch.float32)
    assert sum(buffer.nbytes for buffer in module.buffers()) == 64 * 4096 // 2 + 64 * 16 * 4


@pytest.mark.parametrize(
    ("scheme", "inputs", "reason"),
    [
        (LayerScheme.of_type("q6_k"), 256, "groups of 16 are not a multiple of 32"),
        (LayerScheme.of_type("iq4_nl"), 256, "a code book"),
        (LayerScheme(4, -1), 48, "multiple of 32"),
    ],
)
def test_unsupported_layers_are_refused_with_the_reason(scheme: LayerScheme, inputs: int, reason: str) -> None:
    assert reason in BACKEND.refusal(facts(layer(scheme, inputs=inputs)), CPU, torch.float32)


def test_the_backend_is_available_on_a_cpu_only() -> None:
    missing = BACKEND.missing(CARD)
    assert missing is not None
    assert (missing.reason, missing.install) == ("It runs on a CPU only.", "")


def test_a_processor_without_avx2_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    missing = BACKEND.missing(CPU)
    assert missing is not None
    assert "DEFAULT" in missing.reason
