"""Tests of the compiled kernels as a backend for layers of torch models."""

from __future__ import annotations

import pytest
import torch

from core.inference.backends.native import NativeBackend, NativeLinear
from core.inference.native import build, library
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import BLOCKS, CARD, CPU, PLAIN, apart, facts, layer

BACKEND = NativeBackend()
needs_kernels = pytest.mark.skipif(library.why_not() != "", reason="the kernels cannot be compiled here")
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.015}
"""Largest relative error: activations in two planes of 8 bits, or in one plane with rounding to bfloat16."""


@needs_kernels
@pytest.mark.parametrize("scheme", [*PLAIN, *BLOCKS], ids=lambda scheme: scheme.label())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_scheme_is_as_exact_as_its_dtype(scheme: LayerScheme, dtype: torch.dtype) -> None:
    stored, x, bias = layer(scheme), torch.randn(2, 3, 256), torch.randn(48)
    assert BACKEND.refusal(facts(stored), CPU, dtype) == ""
    found = BACKEND.build(stored, bias, CPU, dtype)(x.to(dtype))

    assert (found.dtype, found.shape) == (dtype, (2, 3, 48))
    assert apart(found, x @ stored.dequantize().t() + bias) < BOUNDS[dtype]


@needs_kernels
def test_a_transposed_input_is_computed() -> None:
    stored, x = layer(LayerScheme(4, 64)), torch.randn(256, 5)
    assert apart(NativeLinear(stored, None, torch.float32)(x.t()), x.t() @ stored.dequantize().t()) < 1e-4


@needs_kernels
def test_the_packed_weights_count_as_buffers_but_not_as_state() -> None:
    module = NativeLinear(layer(LayerScheme(4, 128), outputs=64, inputs=1024), None, torch.float32)
    assert sum(buffer.nbytes for buffer in module.buffers()) == 64 * 1024 // 2 + 64 * 8 * 2
    assert module.state_dict() == {}


@needs_kernels
def test_the_backend_is_available_on_a_cpu() -> None:
    assert BACKEND.missing(CPU) is None


def test_the_backend_is_not_available_on_a_card() -> None:
    missing = BACKEND.missing(CARD)
    assert missing is not None
    assert "CPU" in missing.reason


def test_without_a_compiler_the_install_command_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "why_not", lambda: "There is no C++ compiler.")
    missing = BACKEND.missing(CPU)
    assert missing is not None
    assert missing.install == build.INSTALL


def test_inputs_that_are_not_a_multiple_of_32_are_refused() -> None:
    assert BACKEND.refusal(facts(layer(LayerScheme(4, -1), inputs=80)), CPU, torch.float32)
