"""Fixtures for tests of runs."""

from __future__ import annotations

import os
from typing import Any

import pytest
import torch

from core.quant import device_kernels, kernels


@pytest.fixture(autouse=True)
def _triton_on_a_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process with Triton's interpreter, the compiled path is that of Triton; see `test_triton_kernels.py`."""
    if os.environ.get("TRITON_INTERPRET") == "1":
        monkeypatch.setattr(kernels, "DEVICE", "other")
        monkeypatch.setattr(device_kernels, "GPUS", {"cpu"})
        _round_to_bfloat16(monkeypatch)


def _round_to_bfloat16(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the interpreter round float32 to bfloat16 to nearest, as devices do; it cuts off the last 16 bits."""
    from triton.runtime import interpreter

    cast = interpreter.InterpreterBuilder.cast_impl

    def rounding(self: Any, src: Any, dst_type: Any) -> Any:
        if src.dtype.scalar == interpreter.tl.float32 and dst_type.scalar == interpreter.tl.bfloat16:
            bits = torch.from_numpy(src.data.astype("float32")).bfloat16().view(torch.uint16).numpy()
            return interpreter.TensorHandle(bits, dst_type.scalar)
        return cast(self, src, dst_type)

    monkeypatch.setattr(interpreter.InterpreterBuilder, "cast_impl", rounding)


@pytest.fixture
def float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compute in float32 on every machine."""
    from core.inference.devices import DtypeProbe
    from core.quant import prepare

    monkeypatch.setattr(prepare, "probe_dtype", lambda device: DtypeProbe("float32", {}, 0.0))


@pytest.fixture(params=[True, False], ids=["compiled", "portable"])
def both_paths(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the compiled kernels, and with torch operations."""
    if not request.param:
        monkeypatch.setattr(kernels, "DEVICE", "other")
        monkeypatch.setattr(device_kernels, "GPUS", ())
