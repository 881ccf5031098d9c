"""Tests of PyTorch's int4 products for accelerators without one: refused layers and the packed layout.

Shapes are checked by torch's meta functions, which apply the checks of the kernels, and numbers by the formulas of the
kernels' sources. The products themselves are tested on a device, where there is one.
"""

from __future__ import annotations

from dataclasses import replace

import numpy
import pytest
import torch

from core.formats.quantized import QuantizedLinear
from core.inference.backends import tinygemm
from core.inference.backends.tinygemm import CudaInt4Linear, TinygemmBackend, XpuInt4Linear
from core.inference.machine import Device
from core.schemes import LayerScheme
from tests.core.inference.backends.stored_layers import CARD, CPU, apart, facts, layer

XPU = Device("xpu:0", "xpu", "an Arc", 0, 0)
UP_TO_FOUR = [LayerScheme(bits, group, sym) for bits in (2, 3, 4) for group in (32, 128) for sym in (True, False)]
CUDA_BLOCKS = [LayerScheme.of_type(name) for name in ("q4_0", "q4_1", "q4_k")]


def test_on_a_cpu_int4pack_is_named() -> None:
    missing = TinygemmBackend().missing(CPU)
    assert missing is not None
    assert "int4pack" in missing.reason


@pytest.mark.parametrize("device", [CARD, XPU], ids=str)
def test_a_missing_device_is_reported_as_a_reason(device: Device) -> None:
    if torch.cuda.is_available() or torch.xpu.is_available():
        pytest.skip("there is a device")
    missing = TinygemmBackend().missing(device)
    assert missing is not None
    assert device.name in missing.reason


@pytest.mark.parametrize("scheme", [*UP_TO_FOUR, *CUDA_BLOCKS], ids=LayerScheme.label)
def test_cuda_supports_up_to_four_bits(scheme: LayerScheme) -> None:
    assert TinygemmBackend().refusal(facts(layer(scheme)), CARD, torch.bfloat16) == ""


@pytest.mark.parametrize("scheme", [*UP_TO_FOUR, LayerScheme(4, 96, True), LayerScheme(4, -1, False)], ids=str)
def test_xpu_supports_any_multiple_of_32_as_group_size_and_any_dtype(scheme: LayerScheme) -> None:
    stored = layer(scheme, inputs=192 if scheme.group_size == 96 else 256)
    assert TinygemmBackend().refusal(facts(stored), XPU, torch.float16) == ""


@pytest.mark.parametrize(
    ("scheme", "inputs", "dtype", "word"),
    [
        (LayerScheme(8, 32, True), 256, torch.bfloat16, "up to 4 bits"),
        (LayerScheme(4, 96, True), 192, torch.bfloat16, "groups of"),
        (LayerScheme(4, 128, True), 192, torch.bfloat16, "groups of"),
        (LayerScheme(4, 64, True), 256, torch.float16, "bfloat16 only"),
        (LayerScheme.of_type("q5_1"), 256, torch.bfloat16, "Q5_1"),
        (LayerScheme.of_type("q2_k"), 256, torch.bfloat16, "Q2_K"),
    ],
    ids=str,
)
def test_unsupported_layers_are_refused_on_cuda_with_the_reason(
    scheme: LayerScheme, inputs: int, dtype: torch.dtype, word: str
) -> None:
    given = replace(facts(layer(scheme)), inputs=inputs)
    assert word in TinygemmBackend().refusal(given, CARD, dtype)


def test_outputs_that_are_not_a_multiple_of_8_are_refused() -> None:
    assert "divisible by 8" in TinygemmBackend().refusal(
        facts(layer(LayerScheme(4, 32, True), outputs=20)), CARD, torch.bfloat16
    )


@pytest.mark.parametrize("scheme", [*UP_TO_FOUR, *CUDA_BLOCKS], ids=LayerScheme.label)
def test_scales_and_shifts_give_the_dequantized_weight(scheme: LayerScheme) -> None:
    """The formula of BLayout_TC_int4 is scale * (q - 8) + shift; the error is the rounding of both to bfloat16."""
    stored = layer(scheme)
    grid = tinygemm.scales_and_shifts(stored).float().transpose(0, 1)
    size = scheme.group_of(256)
    step, shift = (grid[..., index].repeat_interleave(size, 1) for index in (0, 1))
    weight = step * (stored.ints.float() - 8) + shift
    exact = stored.dequantize()
    assert float((weight - exact).norm() / exact.norm()) < 2e-2


@pytest.mark.parametrize("scheme", [*UP_TO_FOUR, LayerScheme.of_type("q4_0")], ids=LayerScheme.label)
def test_scales_and_zeros_give_the_dequantized_weight(scheme: LayerScheme) -> None:
    stored = layer(scheme)
    size = scheme.group_of(256)
    step, zero = (part.float().repeat_interleave(size, 1) for part in tinygemm.scales_and_zeros(stored))
    assert torch.equal(step * (stored.ints.float() - zero), stored.dequantize())


def test_the_first_of_two_is_in_the_high_bits() -> None:
    """matrix_to_m16n8k16_Bint4_layout reads v[0] from the high half of a byte."""
    assert tinygemm.pairs(torch.tensor([[1, 2, 3, 4]], dtype=torch.uint8)).tolist() == [[0x12, 0x34]]


def test_the_first_of_eight_is_in_the_lowest_bits() -> None:
    ints = torch.arange(1, 9, dtype=torch.uint8).unsqueeze(0)
    assert [word & 0xFFFFFFFF for word in tinygemm.eights(ints)[0].tolist()] == [0x87654321]


@pytest.mark.parametrize(("inputs", "tiles"), [(256, 8), (192, 4), (96, 2)])
def test_cuda_packs_as_many_tiles_together_as_divide_the_inputs(inputs: int, tiles: int) -> None:
    """The device `meta` applies torch's checks of the packing without computing."""
    stored = layer(LayerScheme(4, 32, False), 48, inputs, act_order=True)
    built = CudaInt4Linear(stored, torch.zeros(48), "meta", torch.bfloat16)
    assert built.words.shape == (6, inputs // (16 * tiles), 32, tiles // 2)
    assert built.grid.shape == (inputs // 32, 48, 2)


def packed_as_the_kernel_does(ints: torch.Tensor, tiles: int) -> torch.Tensor:
    """Pack bytes of `pairs` thread by thread, as matrix_to_m16n8k16_Bint4_layout of int4mm.cu does."""
    data = tinygemm.pairs(ints)
    outputs, inputs = ints.shape
    words = torch.zeros(outputs // 8, inputs // (16 * tiles), 32, tiles // 2, dtype=torch.int64)
    for word in range(words.numel()):
        tile, stretch, thread, half = (int(index) for index in numpy.unravel_index(word, tuple(words.shape)))
        base = (stretch * tiles + 2 * half) * 8 + thread % 4
        bytes_of = [int(data[tile * 8 + thread // 4, base + 4 * step]) for step in range(4)]
        low = sum((value >> 4) << 4 * step for step, value in enumerate(bytes_of))
        high = sum((value & 15) << 16 + 4 * step for step, value in enumerate(bytes_of))
        words[tile, stretch, thread, half] = low | high
    return words.to(torch.int32)


@pytest.mark.parametrize(("inputs", "tiles"), [(256, 8), (192, 4), (96, 2)])
def test_unpacking_inverts_the_packing_of_the_kernel(inputs: int, tiles: int) -> None:
    ints = layer(LayerScheme(4, 32, True), 16, inputs).ints
    assert torch.equal(tinygemm.unpacked(packed_as_the_kernel_does(ints, tiles)), ints)


def test_many_rows_on_cuda_are_multiplied_by_the_unpacked_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tinygemm, "_SLICE", 8 * 256)
    stored = layer(LayerScheme(4, 32, False), 48, 256, act_order=True)
    built = CudaInt4Linear(stored, torch.ones(48), "meta", torch.bfloat16).to_empty(device="cpu")
    assert isinstance(stored, QuantizedLinear)
    assert stored.g_idx is not None
    order = torch.argsort(stored.g_idx, stable=True)
    built.order, built.bias, built.grid = order, torch.ones(48).bfloat16(), tinygemm.scales_and_shifts(stored)
    built.words = packed_as_the_kernel_does(stored.ints[:, order], 8)
    x = torch.randn(tinygemm.MANY + 1, 256, generator=torch.Generator().manual_seed(0)).bfloat16()
    exact = x.float() @ stored.dequantize().T + 1
    assert apart(built(x), exact) < 2e-2


def test_xpu_shapes_pass_torchs_checks() -> None:
    stored = layer(LayerScheme(3, 64, False), act_order=True)
    built = XpuInt4Linear(stored, None, "meta", torch.float16)
    assert built(torch.empty(5, 256, dtype=torch.float16, device="meta")).shape == (5, 48)
    assert (built.words.shape, built.scales.shape, built.zeros.dtype) == ((48, 32), (4, 48), torch.int8)


def test_the_unpacked_integers_are_not_kept() -> None:
    built = XpuInt4Linear(layer(LayerScheme(4, 128, True)), None, "cpu", torch.bfloat16)
    assert sum(part.nbytes for part in built.buffers()) == 48 * 128 + 48 * 2 * (2 + 1)
    assert not hasattr(built, "_ints")
