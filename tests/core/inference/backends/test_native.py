"""The compiled kernels as a backend for layers of torch models."""

from __future__ import annotations

import pytest
import torch

from core.inference.backends.native import NativeBackend, NativeLinear
from core.inference.native import build, library
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import BLOCKS, CARD, CPU, PLAIN, apart, facts, layer

BACKEND = NativeBackend()
needs_kernels = pytest.mark.skipif(library.why_not() != "", reason="nothing compiles the kernels here")
BOUNDS = {torch.float32: 1e-4, torch.bfloat16: 0.015}
"""Eight bits of activations and, twice, of a bfloat16."""


@needs_kernels
@pytest.mark.parametrize("scheme", [*PLAIN, *BLOCKS], ids=lambda scheme: scheme.label())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_every_scheme_is_as_exact_as_its_dtype(scheme: LayerScheme, dtype: torch.dtype) -> None:
    stored, x, bias = layer(scheme), torch.randn(2, 3, 256), torch.randn(48)
    assert BACKEND.refusal(facts(stored), CPU, dtype) == ""
    found = BACKEND.build(stored, bias, CPU, dtype)(x.to(dtype))
    print(scheme.label(), dtype, apart(found, x @ stored.dequantize().t() + bias))
    assert (found.dtype, found.shape) == (dtype, (2, 3, 48))
    assert apart(found, x @ stored.dequantize().t() + bias) < BOUNDS[dtype]


@needs_kernels
def test_rows_that_do_not_lie_in_order() -> None:
    stored, x = layer(LayerScheme(4, 64)), torch.randn(256, 5)
    assert apart(NativeLinear(stored, None, torch.float32)(x.t()), x.t() @ stored.dequantize().t()) < 1e-4


@needs_kernels
def test_its_memory_is_seen_as_that_of_a_module() -> None:
    module = NativeLinear(layer(LayerScheme(4, 128), outputs=64, inputs=1024), None, torch.float32)
    assert sum(buffer.nbytes for buffer in module.buffers()) == 64 * 1024 // 2 + 64 * 8 * 2
    assert module.state_dict() == {}


@needs_kernels
def test_it_is_there() -> None:
    assert BACKEND.missing(CPU) is None


def test_it_computes_on_no_card() -> None:
    missing = BACKEND.missing(CARD)
    assert missing is not None
    assert "CPU" in missing.reason


def test_without_a_compiler_the_table_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "why_not", lambda: "There is no C++ compiler.")
    missing = BACKEND.missing(CPU)
    assert missing is not None
    assert missing.install == build.INSTALL


def test_inputs_that_are_no_multiple_of_32_are_refused() -> None:
    assert BACKEND.refusal(facts(layer(LayerScheme(4, -1), inputs=80)), CPU, torch.float32)
