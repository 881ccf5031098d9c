"""Tests of the Triton backend without a device: reasons, compilation of the kernels, and their results.

The results are tested by triton_interpreted.py, run here in a separate process. Speed needs a device.
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

from core.inference.backends import trial
from core.inference.backends.backend import LayerFacts
from core.inference.backends.trial import random_layer
from core.inference.backends.triton import TritonBackend
from core.inference.machine import Device
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import CARD, CPU

ROOT = Path(__file__).resolve().parents[4]
HERE = Path(__file__).resolve().parent
XPU = Device("xpu:0", "xpu", "an Arc", 0, 0)
SMALL = 99 * 1024
"""Shared memory available to a program on consumer cards (compute capability 8.6, 8.9, 12.0), in bytes."""

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(autouse=True)
def _no_remembered_trials() -> Iterator[None]:
    trial._found.clear()
    yield
    trial._found.clear()


# --- Reasons and refused layers -----------------------------------------------------------------------------


def test_the_backend_is_not_available_on_a_cpu() -> None:
    missing = TritonBackend().missing(CPU)
    assert missing is not None
    assert "CUDA and XPU" in missing.reason


@pytest.mark.parametrize(("device", "command"), [(CARD, "pip install triton"), (XPU, "whl/xpu")])
def test_without_the_package_the_install_command_is_given(
    device: Device, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = TritonBackend().missing(device)
    assert missing is not None
    assert command in missing.install


@needs_triton
def test_an_old_card_is_refused_with_its_compute_capability(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    missing = TritonBackend().missing(CARD)
    assert missing is not None
    assert "7.5" in missing.reason


@needs_triton
def test_a_missing_device_is_reported_as_a_reason() -> None:
    if torch.xpu.is_available():
        pytest.skip("there is one")
    missing = TritonBackend().missing(XPU)
    assert missing is not None
    assert missing.reason.startswith("A trial layer failed on an Arc")


def test_all_schemes_are_supported() -> None:
    backend = TritonBackend()
    schemes = [
        LayerScheme(bits, group, sym) for bits in (2, 3, 4, 8) for group in (32, 96, -1) for sym in (True, False)
    ]
    schemes += [LayerScheme.of_type("q5_k"), LayerScheme.of_type("q2_k")]
    refusals = {backend.refusal(LayerFacts("a", 5, 256, scheme), CARD, torch.bfloat16) for scheme in schemes}
    assert refusals == {""}


def test_inputs_that_are_not_a_multiple_of_32_are_refused() -> None:
    facts = LayerFacts("a", 64, 40, LayerScheme(4, -1, True))
    assert "multiple of 32" in TritonBackend().refusal(facts, CARD, torch.bfloat16)


def test_double_precision_is_refused() -> None:
    facts = LayerFacts("a", 64, 64, LayerScheme(4, 32, True))
    assert "float64" in TritonBackend().refusal(facts, CARD, torch.float64)


# --- Compilation --------------------------------------------------------------------------------------------

CASES = [
    # (bits, group, grid, compute capability): the parameters that change the compiled code.
    (4, 128, 1, 80),
    (4, 0, 0, 90),
    (2, 128, 1, 90),
    (3, 32, 0, 80),
    (8, 64, 1, 80),
    (2, 16, 2, 80),
    (4, 32, 2, 90),
]


@pytest.fixture
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))


def compiled(kernel: Any, bits: int, group: int, grid: int, arch: int, tiles: dict[str, int], warps: int) -> Any:
    """Compile a kernel for a CUDA device, which need not be present."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    constants = {"BITS": bits, "GROUP": group, "GRID": grid, "BIAS": True, **tiles}
    wide = grid == 2
    types = {
        "x": "*bf16", "y": "*bf16", "bias": "*bf16", "low": "*i32", "high": "*i32",
        "scales": "*fp32" if wide else "*fp16", "offsets": "*fp32" if wide else "*u8",
    }  # fmt: skip
    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types.get(name, "i32") for name in names}
    # As specialized at launch: pointers are aligned, and these sizes are multiples of 16.
    divisible = {*types, "outputs", "blocks"} - set(constants)
    attrs = {(index,): [["tt.divisibility", 16]] for index, name in enumerate(names) if name in divisible}
    values = {name: constants[name] for name in names if name in constants}
    source = ASTSource(fn=kernel, signature=signature, constexprs=values, attrs=attrs)
    options = {"num_warps": warps, "num_stages": 2, "enable_fp_fusion": True}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


@needs_triton
@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize(("bits", "group", "grid", "arch"), CASES)
def test_the_product_with_few_rows_compiles_for_cuda(bits: int, group: int, grid: int, arch: int) -> None:
    from core.inference.backends.triton_layer import FEW_TILES, few_rows

    tiles, warps = FEW_TILES[0]
    made = compiled(few_rows, bits, group, grid, arch, tiles, warps)
    assert "cubin" in made.asm
    assert made.metadata.shared < SMALL


@needs_triton
@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize(("bits", "group", "grid", "arch"), CASES[1::2])
def test_the_product_with_many_rows_compiles_for_cuda(bits: int, group: int, grid: int, arch: int) -> None:
    """The compiled code uses tensor cores."""
    from core.inference.backends.triton_layer import MANY_TILES, many_rows

    tiles, warps = MANY_TILES[16][0]
    made = compiled(many_rows, bits, group, grid, arch, tiles, warps)
    assert "mma" in made.asm["ptx"]
    assert made.metadata.shared < SMALL


@needs_triton
@pytest.mark.usefixtures("_own_cache")
@pytest.mark.parametrize(("bits", "group", "grid", "arch"), CASES[::3])
def test_the_weight_kernel_compiles_for_cuda(bits: int, group: int, grid: int, arch: int) -> None:
    from core.inference.backends import triton_layer

    made = compiled(triton_layer.whole_weight, bits, group, grid, arch, triton_layer._WEIGHT_TILES, 4)
    assert "cubin" in made.asm


@needs_triton
@pytest.mark.usefixtures("_own_cache")
def test_words_are_read_sixteen_bytes_at_a_time() -> None:
    """Wide loads let one row run at memory speed; a mask that the compiler cannot analyse would prevent them."""
    from core.inference.backends.triton_layer import FEW_TILES, few_rows

    tiles, warps = FEW_TILES[0]
    assert "ld.global.v4.b32" in compiled(few_rows, 4, 128, 0, 80, tiles, warps).asm["ptx"]


@needs_triton
@pytest.mark.usefixtures("_own_cache")
def test_kernels_compile_for_sizes_of_one() -> None:
    """Triton makes an integer argument of 1 a constant."""
    from core.inference.backends import triton_layer as made

    ones = dict.fromkeys(("outputs", "blocks", "groups"), 1)
    cases = ((made.few_rows, made.FEW_TILES[0][0]), (made.many_rows, made.MANY_TILES[16][0][0]))
    for kernel, tiles in (*cases, (made.whole_weight, made._WEIGHT_TILES)):
        assert "cubin" in compiled(kernel, 4, 32, 1, 80, {**tiles, **ones}, 4).asm


@needs_triton
def test_tile_sizes_are_tuned_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The launch is replaced by a recorder, and the measured time by one that favours the last tile sizes."""
    from core.inference.backends import triton_layer

    launched: list[dict[str, Any]] = []
    tuned = triton_layer._tuned(True, triton_layer.FEW)
    monkeypatch.setattr(tuned, "cache_results", False)  # the file's name has the device in it
    monkeypatch.setattr(tuned.fn, "run", lambda *args, **kwargs: launched.append(kwargs))
    monkeypatch.setattr(tuned, "_bench", lambda *args, config, **kwargs: -config.kwargs["BLOCK_W"])
    monkeypatch.setattr(triton_layer, "_best", {})
    layer = triton_layer.TritonLinear(random_layer(LayerScheme(4, 32, True), 64, 64), None, "cpu", torch.float16)
    for _ in range(2):
        layer(torch.zeros(1, 64, dtype=torch.float16))
    wanted = {"BITS", "GROUP", "GRID", "BIAS", "BLOCK_N", "BLOCK_W", "num_warps", "num_stages", "enable_fp_fusion"}
    assert [call["BLOCK_W"] for call in launched] == [triton_layer.FEW_TILES[-1][0]["BLOCK_W"]] * 2
    assert all(wanted <= set(call) for call in launched)
    assert len(triton_layer._best) == 1


@needs_triton
def test_every_configuration_has_the_tile_sizes_of_its_kernel() -> None:
    from core.inference.backends import triton_layer

    for few, top in ((True, triton_layer.FEW), *((False, top) for top in triton_layer.MANY_TILES)):
        tuned = triton_layer._tuned(few, top)
        wanted = {name for name in tuned.fn.arg_names if name.startswith("BLOCK_")}
        assert all(set(config.kwargs) == wanted for config in tuned.configs)


# --- Results ------------------------------------------------------------------------------------------------


@needs_triton
@pytest.mark.parametrize("marker", ["not matrix", pytest.param("matrix", marks=pytest.mark.matrix)])
def test_the_kernels_are_exact_in_the_interpreter(marker: str) -> None:
    tests = str(HERE / "triton_interpreted.py")
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-n0", "-p", "no:cacheprovider", "-m", marker, tests]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
