"""PyTorch's own int4 products on devices as a backend: tinygemm on CUDA, oneDNN's on XPU.

Both take integers of up to 4 bits, so layers of 2 and 3 bits fit them at the cost of 4. Written from PyTorch's sources
(aten/src/ATen/native/cuda/int4mm.cu, aten/src/ATen/native/mkldnn/xpu/Blas.cpp); a trial layer on the device decides
whether it is used. `core.inference.backends.int4pack` has the same product of the CPU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.inference.backends import trial
from core.inference.backends.backend import LayerFacts, Missing
from core.inference.backends.triton import too_old
from core.schemes import LayerScheme

if TYPE_CHECKING:
    from core.formats.stored import Stored
    from core.inference.machine import Device

_CUDA_GROUPS = (32, 64, 128, 256)
_CUDA_BLOCKS, _XPU_BLOCKS = ("q4_0", "q4_1", "q4_k"), ("q4_0",)
"""GGUF's types with groups of 32; a minimum that is no multiple of the scale fits the CUDA product only."""
MANY = 128
"""Rows from which CUDA's product is slower than unpacking the weight and torch's own: it reads the weights anew for
every 16 rows. On an A6000 with 4096x4096 and 256 rows 0.52 ms against 0.27 (torchao/prototype/hqq/README.md)."""
_SLICE = 1 << 24
"""Weights that are unpacked at a time."""
_TRIAL = (LayerScheme(4, 128, True), LayerScheme(4, 64, False))


class TinygemmBackend:
    """torch.ops.aten._weight_int4pack_mm and its like."""

    name = "tinygemm"
    title = "PyTorch int4 products (tinygemm, oneDNN)"
    takes = "2, 3, 4 bits; CUDA: bfloat16, groups of 32, 64, 128, 256; XPU: groups of any multiple of 32"

    def missing(self, device: Device) -> Missing | None:
        """What keeps it from this device, or None where it works."""
        if device.kind not in ("cuda", "xpu"):
            return Missing("It computes on CUDA and XPU devices; on the CPU, int4pack is its like.")
        if device.kind == "xpu" and not hasattr(torch.ops.aten, "_weight_int4pack_mm_with_scales_and_zeros"):
            return Missing("This PyTorch has no int4 product for XPU devices; 2.8 brought it.", "pip install -U torch")
        if (old := too_old(device, (8, 0))) is not None:
            return old

        def build(layer: Stored, bias: Tensor | None) -> nn.Module:
            return self.build(layer, bias, device, torch.bfloat16)

        problem = trial.failure(self.name, device, torch.bfloat16, build, _TRIAL)
        return Missing(problem) if problem else None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        """Why it cannot compute this layer, as one sentence; "" where it can."""
        scheme, cuda = facts.scheme, device.kind == "cuda"
        blocks = _CUDA_BLOCKS if cuda else _XPU_BLOCKS
        group = scheme.group_of(facts.inputs)
        if scheme.type and scheme.type not in blocks:
            return f"{scheme.label()} does not fit its grid; of GGUF's types {', '.join(blocks).upper()} do."
        if scheme.bits > 4:
            return f"It takes integers of up to 4 bits, and this layer has {scheme.bits}."
        if cuda and dtype != torch.bfloat16:
            return f"On CUDA it computes in bfloat16 only, not in {str(dtype).removeprefix('torch.')}."
        if facts.inputs % group or group % 32 or (cuda and group not in _CUDA_GROUPS):
            return f"It takes groups of {'32, 64, 128 or 256' if cuda else 'a multiple of 32'}, not of {group}."
        if facts.inputs % 32 or facts.outputs % 8:
            return f"{facts.outputs}x{facts.inputs} is not divisible by 8 and 32."
        return ""

    def build(self, layer: Stored, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        """The layer ready to run; `refusal` must have had nothing against it."""
        made = CudaInt4Linear if device.kind == "cuda" else XpuInt4Linear
        return made(layer, bias, device.id, dtype)


class _Int4Linear(nn.Module):
    """What both have in common: inputs in the order of their groups, rows, bias."""

    order: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: Stored, bias: Tensor | None, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = (int(size) for size in layer.ints.shape)
        self.group, self.dtype = layer.scheme.group_of(self.in_features), dtype
        g_idx = layer.g_idx if isinstance(layer, QuantizedLinear) else None
        order = None if g_idx is None else torch.argsort(g_idx, stable=True)
        self.register_buffer("order", None if order is None else order.to(device))
        self.register_buffer("bias", None if bias is None else bias.to(device, dtype))
        self._ints = layer.ints.to(device) if self.order is None else layer.ints.to(device)[:, self.order]

    def forward(self, x: Tensor) -> Tensor:
        """y = x W^T + bias, in the dtype that the layer was built for."""
        rows = x.reshape(-1, self.in_features).to(self.dtype)
        if self.order is not None:
            rows = rows.index_select(1, self.order)
        if rows.shape[0] == 0:
            return x.new_empty(*x.shape[:-1], self.out_features)
        y = self._product(rows.contiguous())
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], self.out_features).to(x.dtype)

    def _product(self, x: Tensor) -> Tensor:
        raise NotImplementedError


class CudaInt4Linear(_Int4Linear):
    """tinygemm: a weight is scale * (q - 8) + shift, both bfloat16."""

    words: Tensor
    grid: Tensor

    def __init__(self, layer: Stored, bias: Tensor | None, device: str, dtype: torch.dtype) -> None:
        super().__init__(layer, bias, device, dtype)
        # As many tiles of 16 inputs side by side as divide them: 16, 8 or 4 bytes a read.
        tiles = next(tiles for tiles in (8, 4, 2) if self.in_features % (16 * tiles) == 0)
        self.register_buffer("words", torch.ops.aten._convert_weight_to_int4pack(pairs(self._ints), tiles))
        self.register_buffer("grid", scales_and_shifts(layer).to(device))
        del self._ints

    def _product(self, x: Tensor) -> Tensor:
        if x.shape[0] > MANY:
            return nn.functional.linear(x, self.weight())
        product: Tensor = torch.ops.aten._weight_int4pack_mm(x, self.words, self.group, self.grid)
        return product

    def weight(self) -> Tensor:
        """The weight as the product has it, bfloat16 [outputs, inputs], inputs in the order of their groups."""
        weight = torch.empty(self.out_features, self.in_features, dtype=self.dtype, device=self.words.device)
        step, shift = self.grid.to(torch.float32).transpose(0, 1).unbind(-1)
        tiles = max(1, _SLICE // (8 * self.in_features))
        for start in range(0, self.words.shape[0], tiles):
            rows = slice(8 * start, 8 * (start + tiles))
            levels = unpacked(self.words[start : start + tiles]).to(torch.float32).sub_(8)
            levels = levels.view(levels.shape[0], -1, self.group)
            levels.mul_(step[rows].unsqueeze(-1)).add_(shift[rows].unsqueeze(-1))
            weight[rows] = levels.flatten(1)
        return weight


class XpuInt4Linear(_Int4Linear):
    """oneDNN: a weight is scale * (q - zero point), with scales in the dtype of the inputs."""

    words: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, layer: Stored, bias: Tensor | None, device: str, dtype: torch.dtype) -> None:
        super().__init__(layer, bias, device, dtype)
        scales, zeros = scales_and_zeros(layer)
        self.register_buffer("words", eights(self._ints))
        self.register_buffer("scales", scales.to(device, dtype).T.contiguous())
        self.register_buffer("zeros", zeros.to(device, torch.int8).T.contiguous())
        del self._ints

    def _product(self, x: Tensor) -> Tensor:
        multiply = torch.ops.aten._weight_int4pack_mm_with_scales_and_zeros
        product: Tensor = multiply(x, self.words, self.group, self.scales, self.zeros)
        return product


def pairs(ints: Tensor) -> Tensor:
    """uint8 [out, in] below 16 -> uint8 [out, in / 2], the first of two in the high bits: what tinygemm packs."""
    return (ints[:, ::2] << 4 | ints[:, 1::2]).contiguous()


def unpacked(words: Tensor) -> Tensor:
    """The integers that CUDA's packing put into words: int32 [out / 8, in / 16 t, 32, t / 2] -> uint8 [out, in].

    A thread of 32 has an output (its number / 4) and four pairs of inputs out of 32 (pair number % 4 of each eight).
    The first of each pair is in the low half of its word, the second in the high half.
    """
    tiles, stretches, _, halves = words.shape
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=words.device)
    nibbles = ((words.unsqueeze(-1) >> shifts) & 15).to(torch.uint8)
    # [tile, stretch, output, pair, 32 inputs, place in the pair, 16 inputs, eight inputs]
    nibbles = nibbles.view(tiles, stretches, 8, 4, halves, 2, 2, 2)
    return nibbles.permute(0, 2, 1, 4, 6, 7, 3, 5).reshape(tiles * 8, -1)


def eights(ints: Tensor) -> Tensor:
    """uint8 [out, in] below 16 -> int32 [out, in / 8], the first of eight in the lowest bits."""
    words = torch.zeros(ints.shape[0], ints.shape[1] // 8, dtype=torch.int32, device=ints.device)
    for place in range(8):
        words |= ints[:, place::8].to(torch.int32) << (4 * place)
    return words


def scales_and_shifts(layer: Stored) -> Tensor:
    """bfloat16 [groups, out, 2]: the value of one level, and of level 8."""
    if isinstance(layer, QuantizedLinear):
        step = layer.scales.to(torch.float32)
        shift = step * (8 - layer.zeros.to(torch.float32))
    else:
        assert isinstance(layer, BlockLinear)
        step, low = layer.steps()
        shift = torch.zeros_like(step) if low is None else low + 8 * step
    return torch.stack([step, shift], -1).transpose(0, 1).to(torch.bfloat16).contiguous()


def scales_and_zeros(layer: Stored) -> tuple[Tensor, Tensor]:
    """The value of one level, and the level that means 0: [out, groups] each."""
    if isinstance(layer, QuantizedLinear):
        return layer.scales, layer.zeros
    assert isinstance(layer, BlockLinear)
    return layer.d, torch.full_like(layer.d, 8, dtype=torch.uint8)
