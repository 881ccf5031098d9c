"""Tests of the grids' Triton kernels without a device: their compilation, their results, and the choice of kernels.

The results are tested by triton_interpreted.py, run here in a separate process; with the marker `matrix`, all tests of
the grids run with the kernels.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from core.quant import device_kernels, kernels
from core.quant.device_kernels import fused_for, kernels_for

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
GPU = torch.device("cuda", 0)

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(autouse=True)
def _no_remembered_trials() -> Iterator[None]:
    device_kernels.missing.cache_clear()
    yield
    device_kernels.missing.cache_clear()


def test_a_cpu_has_the_loops_of_numba_and_no_fused_step() -> None:
    assert kernels_for(torch.empty(1)) is kernels
    assert fused_for(torch.empty(1)) is None


def test_without_triton_a_gpu_uses_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert device_kernels.missing(GPU) == "The package triton is not installed."


@needs_triton
def test_a_step_that_fails_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(device: torch.device) -> bool:
        raise RuntimeError("no kernel image is available\nfor this device")

    monkeypatch.setattr(device_kernels, "_trial", fail)
    assert device_kernels.missing(GPU) == "A trial step failed: no kernel image is available."


@needs_triton
def test_a_step_with_other_results_is_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device_kernels, "_trial", lambda device: False)
    assert device_kernels.missing(GPU) == "A trial step has wrong results."


FLAGS: dict[str, dict[str, Any]] = {
    "round_groups": {"BASE": True},
    "move_offsets": {"BASE": False},
    "dequantize_groups": {"DIGITS": 11, "BASE": False},
    "sum_groups": {},
    "step_groups": {"DIGITS": 13, "LEARNED": True, "WRITE": True},
}
TYPES = {
    "weight": "*bf16", "gradient": "*bf16", "out": "*bf16", "offset": "*i16", "levels": "*i16",
    "steps": "i32", "move": "i32", "groups": "i32", "size": "i32",
    "unit": "fp32", "factor_step": "fp32", "reach": "fp32",
}  # fmt: skip


@needs_triton
@pytest.mark.parametrize("arch", [80, 90])
@pytest.mark.parametrize("name", sorted(FLAGS))
def test_the_kernels_compile_for_cuda(name: str, arch: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from core.quant import triton_kernels

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel: Any = getattr(triton_kernels, name)
    constants: dict[str, Any] = {**FLAGS[name], "BLOCK_G": 32, "BLOCK_S": 64}
    limits = "i32" if name == "step_groups" else "fp32"
    types = {**TYPES, "low": limits, "high": limits}
    signature = {arg: "constexpr" if arg in constants else types.get(arg, "*fp32") for arg in kernel.arg_names}
    values = {arg: constants[arg] for arg in kernel.arg_names if arg in constants}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values)
    options = {"num_warps": 4, "enable_fp_fusion": False}
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)
    assert "cubin" in made.asm
    assert "fma.rn.f32" not in made.asm["ptx"]


@needs_triton
@pytest.mark.parametrize("marker", ["not matrix", pytest.param("matrix", marks=pytest.mark.matrix)])
def test_the_kernels_equal_torch_in_the_interpreter(marker: str) -> None:
    files = ["triton_interpreted.py"]
    if marker == "matrix":
        files += ["test_grid.py", "test_level_grid.py", "test_latent_grid.py", "test_typed_grid.py"]
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider"]
    command += ["-m", "not matrix"] if marker != "matrix" else ["-m", "matrix or not matrix", "-k", "not portable"]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        [*command, *(str(HERE / name) for name in files)],
        cwd=ROOT, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stdout[-6000:] + found.stderr[-2000:]
