"""The Triton backend without a device: what it says, that its kernels compile for CARD, and what they compute.

What they compute is in triton_interpreted.py, run here in a process of its own. Speed needs a device.
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
"""Bytes of shared memory that a program may have on a consumer's card (compute capability 8.6, 8.9, 12.0)."""

needs_triton = pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="triton is not installed")


@pytest.fixture(autouse=True)
def _no_remembered_trials() -> Iterator[None]:
    trial._found.clear()
    yield
    trial._found.clear()


# --- What it says -------------------------------------------------------------------------------------------


def test_a_cpu_is_no_device_for_it() -> None:
    missing = TritonBackend().missing(CPU)
    assert missing is not None
    assert "CUDA and XPU" in missing.reason


@pytest.mark.parametrize(("device", "command"), [(CARD, "pip install triton"), (XPU, "whl/xpu")])
def test_without_the_package_it_names_the_command(
    device: Device, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    missing = TritonBackend().missing(device)
    assert missing is not None
    assert command in missing.install


@needs_triton
def test_an_old_card_is_named_with_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    missing = TritonBackend().missing(CARD)
    assert missing is not None
    assert "7.5" in missing.reason


@needs_triton
def test_a_device_that_is_not_there_is_a_sentence_and_no_crash() -> None:
    if torch.xpu.is_available():
        pytest.skip("there is one")
    missing = TritonBackend().missing(XPU)
    assert missing is not None
    assert missing.reason.startswith("A trial layer failed on an Arc")


def test_any_scheme_of_whole_blocks_is_taken() -> None:
    backend = TritonBackend()
    schemes = [
        LayerScheme(bits, group, sym) for bits in (2, 3, 4, 8) for group in (32, 96, -1) for sym in (True, False)
    ]
    schemes += [LayerScheme.of_type("q5_k"), LayerScheme.of_type("q2_k")]
    refusals = {backend.refusal(LayerFacts("a", 5, 256, scheme), CARD, torch.bfloat16) for scheme in schemes}
    assert refusals == {""}


def test_inputs_of_no_whole_block_are_refused() -> None:
    facts = LayerFacts("a", 64, 40, LayerScheme(4, -1, True))
    assert "multiple of 32" in TritonBackend().refusal(facts, CARD, torch.bfloat16)


def test_double_precision_is_refused() -> None:
    facts = LayerFacts("a", 64, 64, LayerScheme(4, 32, True))
    assert "float64" in TritonBackend().refusal(facts, CARD, torch.float64)


# --- What it compiles to ------------------------------------------------------------------------------------

CASES = [
    # (bits, group, grid, compute capability): what differs in the code that comes out.
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
    """A kernel for a CUDA device that need not be here."""
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
    # What a launch finds out for itself: pointers are aligned, and these widths are multiples of 16.
    round_ones = {*types, "outputs", "blocks"} - set(constants)
    attrs = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name in round_ones}
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
    """And by tensor cores, not one multiplication at a time."""
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
    """What makes the product with one row as fast as memory; a mask that the compiler cannot see through undoes it."""
    from core.inference.backends.triton_layer import FEW_TILES, few_rows

    tiles, warps = FEW_TILES[0]
    assert "ld.global.v4.b32" in compiled(few_rows, 4, 128, 0, 80, tiles, warps).asm["ptx"]


@needs_triton
@pytest.mark.usefixtures("_own_cache")
def test_counts_of_one_compile_too() -> None:
    """A launch makes a constant of an integer that is 1."""
    from core.inference.backends import triton_layer as made

    ones = dict.fromkeys(("outputs", "blocks", "groups"), 1)
    cases = ((made.few_rows, made.FEW_TILES[0][0]), (made.many_rows, made.MANY_TILES[16][0][0]))
    for kernel, tiles in (*cases, (made.whole_weight, made._WEIGHT_TILES)):
        assert "cubin" in compiled(kernel, 4, 32, 1, 80, {**tiles, **ones}, 4).asm


@needs_triton
def test_tile_sizes_are_tried_once_and_then_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a launch that only takes notes, and a clock that likes the last tile sizes best."""
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
def test_every_tile_size_names_what_its_kernel_needs() -> None:
    from core.inference.backends import triton_layer

    for few, top in ((True, triton_layer.FEW), *((False, top) for top in triton_layer.MANY_TILES)):
        tuned = triton_layer._tuned(few, top)
        wanted = {name for name in tuned.fn.arg_names if name.startswith("BLOCK_")}
        assert all(set(config.kwargs) == wanted for config in tuned.configs)


# --- What it computes ---------------------------------------------------------------------------------------


@needs_triton
def test_what_the_kernels_compute_in_the_interpreter() -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        str(HERE / "triton_interpreted.py"),
    ]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]
