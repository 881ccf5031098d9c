"""Backend for PyTorch's int4 matrix products on accelerators: tinygemm on CUDA, oneDNN on XPU.

Both support integers of up to 4 bits, so that layers of 2 and 3 bits cost as much as layers of 4. Written after
PyTorch's sources (aten/src/ATen/native/cuda/int4mm.cu, aten/src/ATen/native/mkldnn/xpu/Blas.cpp). A trial layer on the
device decides whether the backend is used. `core.inference.backends.int4pack` is the corresponding backend for CPUs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.inference.backends import trial
from core.inference.backends.backend import LayerFacts, MissingRequirement
from core.inference.backends.triton import too_old
from core.schemes import LayerScheme

if TYPE_CHECKING:
    from core.formats.stored import StoredLayer
    from core.inference.machine import Device

_CUDA_GROUPS = (32, 64, 128, 256)
_CUDA_BLOCKS, _XPU_BLOCKS = ("q4_0", "q4_1", "q4_k"), ("q4_0",)
"""Supported GGUF types, with groups of 32. Only the CUDA product supports minimums that are not multiples of the
scale."""
MANY = 128
"""Number of rows above which the weight is unpacked for torch's dense product. The CUDA product reads the weights once
for every 16 rows: on an A6000 with 4096x4096 and 256 rows it takes 0.52 ms, the dense one 0.27 ms
(torchao/prototype/hqq/README.md)."""
_SLICE = 1 << 24
"""Number of weights unpacked at once."""
_TRIAL = (LayerScheme(4, 128, True), LayerScheme(4, 64, False))


class TinygemmBackend:
    """`torch.ops.aten._weight_int4pack_mm` on CUDA and its counterpart on XPU."""

    name = "tinygemm"
    title = "PyTorch int4 products (tinygemm, oneDNN)"
    takes = "2, 3, 4 bits; CUDA: bfloat16, groups of 32, 64, 128, 256; XPU: groups of any multiple of 32"

    def missing(self, device: Device) -> MissingRequirement | None:
        """Return the reason why the backend does not run on the device, or None."""
        if device.kind not in ("cuda", "xpu"):
            return MissingRequirement(
                "It runs on CUDA and XPU devices; int4pack is the corresponding backend for CPUs."
            )
        if device.kind == "xpu" and not hasattr(torch.ops.aten, "_weight_int4pack_mm_with_scales_and_zeros"):
            reason = "This PyTorch has no int4 product for XPU devices; 2.8 and later do."
            return MissingRequirement(reason, "pip install -U torch")
        if (old := too_old(device, (8, 0))) is not None:
            return old

        def build(layer: StoredLayer, bias: Tensor | None) -> nn.Module:
            return self.build(layer, bias, device, torch.bfloat16)

        problem = trial.failure(self.name, device, torch.bfloat16, build, _TRIAL)
        return MissingRequirement(problem) if problem else None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        """Return the reason, as one sentence, why the backend does not support the layer, or ""."""
        scheme, cuda = facts.scheme, device.kind == "cuda"
        blocks = _CUDA_BLOCKS if cuda else _XPU_BLOCKS
        group = scheme.group_of(facts.inputs)
        if scheme.type and scheme.type not in blocks:
            return f"It does not support {scheme.label()}; of the GGUF types, it supports {', '.join(blocks).upper()}."
        if scheme.bits > 4:
            return f"It supports up to 4 bits, not {scheme.bits}."
        if cuda and dtype != torch.bfloat16:
            return f"On CUDA it computes in bfloat16 only, not in {str(dtype).removeprefix('torch.')}."
        if facts.inputs % group or group % 32 or (cuda and group not in _CUDA_GROUPS):
            return f"It supports groups of {'32, 64, 128 or 256' if cuda else 'a multiple of 32'}, not of {group}."
        if facts.inputs % 32 or facts.outputs % 8:
            return f"{facts.outputs}x{facts.inputs} is not divisible by 8 and 32."
        return ""

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        """Build the module of a layer that `refusal` accepts."""
        made = CudaInt4Linear if device.kind == "cuda" else XpuInt4Linear
        return made(layer, bias, device.id, dtype)


class _Int4Linear(nn.Module):
    """The base class of both layers: sorts the inputs by group, reshapes the rows and adds the bias."""

    order: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: StoredLayer, bias: Tensor | None, device: str, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = (int(size) for size in layer.ints.shape)
        self.group, self.dtype = layer.scheme.group_of(self.in_features), dtype
        g_idx = layer.g_idx if isinstance(layer, QuantizedLinear) else None
        order = None if g_idx is None else torch.argsort(g_idx, stable=True)
        self.register_buffer("order", None if order is None else order.to(device))
        self.register_buffer("bias", None if bias is None else bias.to(device, dtype))
        self._ints = layer.ints.to(device) if self.order is None else layer.ints.to(device)[:, self.order]

    def forward(self, x: Tensor) -> Tensor:
        """Return x W^T + bias, [..., in] -> [..., out], computed in the layer's dtype."""
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
    """A layer computed by tinygemm, whose weight is scale * (q - 8) + shift with scale and shift in bfloat16."""

    words: Tensor
    grid: Tensor

    def __init__(self, layer: StoredLayer, bias: Tensor | None, device: str, dtype: torch.dtype) -> None:
        super().__init__(layer, bias, device, dtype)
        # The largest number of adjacent tiles of 16 inputs that divides them: reads of 16, 8 or 4 bytes.
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
        """Return the weight that the kernel computes with, bfloat16 [outputs, inputs], inputs sorted by group."""
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
    """A layer computed by oneDNN, whose weight is scale * (q - zero point) with scales in the dtype of the inputs."""

    words: Tensor
    scales: Tensor
    zeros: Tensor

    def __init__(self, layer: StoredLayer, bias: Tensor | None, device: str, dtype: torch.dtype) -> None:
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
    """Pack two integers below 16 per byte, the first in the high bits: uint8 [out, in] -> uint8 [out, in / 2].

    This is the input layout of tinygemm's packing function.
    """
    return (ints[:, ::2] << 4 | ints[:, 1::2]).contiguous()


def unpacked(words: Tensor) -> Tensor:
    """Unpack the words of tinygemm: int32 [out / 8, in / 16 t, 32, t / 2] -> uint8 [out, in].

    Thread i of 32 holds output i / 4 and four pairs of inputs out of 32: pair i % 4 of each eight inputs. The first of
    each pair is in the low half of its word, the second in the high half.
    """
    tiles, stretches, _, halves = words.shape
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=words.device)
    nibbles = ((words.unsqueeze(-1) >> shifts) & 15).to(torch.uint8)
    # [tile, stretch, output, pair, 32 inputs, position in the pair, 16 inputs, eight inputs]
    nibbles = nibbles.view(tiles, stretches, 8, 4, halves, 2, 2, 2)
    return nibbles.permute(0, 2, 1, 4, 6, 7, 3, 5).reshape(tiles * 8, -1)


def eights(ints: Tensor) -> Tensor:
    """Pack eight integers below 16 per word, the first in the lowest bits: uint8 [out, in] -> int32 [out, in / 8]."""
    words = torch.zeros(ints.shape[0], ints.shape[1] // 8, dtype=torch.int32, device=ints.device)
    for position in range(8):
        words |= ints[:, position::8].to(torch.int32) << (4 * position)
    return words


def scales_and_shifts(layer: StoredLayer) -> Tensor:
    """Return the scale and the weight of level 8 of each group, bfloat16 [groups, out, 2]."""
    if isinstance(layer, QuantizedLinear):
        step = layer.scales.to(torch.float32)
        shift = step * (8 - layer.zeros.to(torch.float32))
    else:
        assert isinstance(layer, BlockLinear)
        step, low = layer.steps()
        shift = torch.zeros_like(step) if low is None else low + 8 * step
    return torch.stack([step, shift], -1).transpose(0, 1).to(torch.bfloat16).contiguous()


def scales_and_zeros(layer: StoredLayer) -> tuple[Tensor, Tensor]:
    """Return the scales and the zero points, [out, groups] each."""
    if isinstance(layer, QuantizedLinear):
        return layer.scales, layer.zeros
    assert isinstance(layer, BlockLinear)
    return layer.d, torch.full_like(layer.d, 8, dtype=torch.uint8)
