"""Backends in plain torch for every scheme and device: dequantized weights (`dense`) or packed ones (`portable`).

Both compute with the weights of `dequantize`, rounded to the compute dtype; they differ in memory and speed only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.formats.gguf.blocks import BlockLinear, grid_steps
from core.formats.gguf.code_books import decoded
from core.formats.quantized import QuantizedLinear
from core.inference.backends.backend import LayerFacts, MissingRequirement

if TYPE_CHECKING:
    from core.formats.stored import StoredLayer
    from core.inference.machine import Device

_PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
"""Bits of an integer -> bits of its planes, the lowest first; each divides 8."""
_SLICE = {"cpu": 1 << 20}
"""Number of weights unpacked at once, by kind of device. On a CPU they fit into the cache: for 2048x5632 weights in
4 bits, one thread took 4.6 ms with 2^20, 5.6 ms with 2^19, 10 ms with 2^22 and 34 ms with all at once."""
_LARGE_SLICE = 1 << 24
"""The number on other devices, where each operation costs a kernel launch."""


class DenseBackend:
    """Dense linear layers: weights are dequantized once and kept as floats."""

    name = "dense"
    title = "PyTorch, weights unpacked once"
    takes = "every layer; needs the memory of the original"

    def missing(self, device: Device) -> MissingRequirement | None:
        return None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        return ""

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        return dense_linear(layer.dequantize().to(device.id, dtype), bias)


class PortableBackend:
    """Packed linear layers: weights are dequantized for every product, which needs the least memory."""

    name = "portable"
    title = "PyTorch, weights kept packed"
    takes = "every layer; the least memory"

    def missing(self, device: Device) -> MissingRequirement | None:
        return None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        return ""

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        return PackedLinear(layer, bias, dtype).to(device.id)


class DenseLinear(nn.Module):
    """A linear layer y = x W^T + b with an unquantized weight W [out, in]."""

    def __init__(self, weight: Tensor, bias: Tensor | None) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias, requires_grad=False)
        self.in_features, self.out_features = weight.shape[1], weight.shape[0]

    def forward(self, x: Tensor) -> Tensor:
        return functional.linear(x, self.weight, self.bias)


def dense_linear(weight: Tensor, bias: Tensor | None) -> DenseLinear:
    """Return a linear layer with a float weight [out, in] and a bias [out] or None, cast like the weight."""
    return DenseLinear(weight, None if bias is None else bias.to(weight.device, weight.dtype))


class PackedLinear(nn.Module):
    """y = x W^T + b with W dequantized from packed integers in slices of rows at every call.

    Args:
        layer: a `QuantizedLinear` or a `BlockLinear`; its scales and zero points are kept, its integers are packed.
        bias: [out] or None.
        dtype: dtype of inputs, outputs and products.
    """

    bias: Tensor | None
    scales: Tensor | None
    zeros: Tensor | None
    d: Tensor
    m: Tensor | None
    mins: Tensor | None
    g_idx: Tensor | None
    plane0: Tensor
    plane1: Tensor

    def __init__(self, layer: StoredLayer, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.ints.shape
        self.scheme = layer.scheme
        low = 0
        for number, width in enumerate(_PLANES[self.scheme.bits]):
            self.register_buffer(f"plane{number}", pack_plane(layer.ints, low, width))
            low += width
        self._register_grid(layer)
        # `.to(dtype)` would change the buffers' dtypes, but is not called on a loaded model.
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        self.dtype = dtype

    def _register_grid(self, layer: StoredLayer) -> None:
        g_idx = None
        if isinstance(layer, QuantizedLinear):
            names = {"scales": layer.scales, "zeros": None if self.scheme.sym else layer.zeros}
            g_idx = None if layer.g_idx is None else layer.g_idx.to(torch.int64)
        elif isinstance(layer, BlockLinear):
            names = {"d": layer.d, "m": layer.m, "scales": layer.scales, "mins": layer.mins}
        else:
            raise TypeError(f"{type(layer).__name__} is not a stored layer")
        self.blocks = isinstance(layer, BlockLinear)
        for name in ("d", "m", "scales", "mins", "zeros"):
            self.register_buffer(name, names.get(name))
        self.register_buffer("g_idx", g_idx)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out] of an input [..., in]."""
        step = max(1, _SLICE.get(x.device.type, _LARGE_SLICE) // self.in_features)
        if step >= self.out_features:
            return functional.linear(x, self.rows(0, self.out_features), self.bias)
        y = x.new_empty(*x.shape[:-1], self.out_features)
        for start in range(0, self.out_features, step):
            end = min(self.out_features, start + step)
            bias = None if self.bias is None else self.bias[start:end]
            y[..., start:end] = functional.linear(x, self.rows(start, end), bias)
        return y

    def rows(self, start: int, end: int) -> Tensor:
        """Dequantize the rows `start` to `end` of the weight, [end - start, in] in the compute dtype."""
        size = self.scheme.group_of(self.in_features)
        ints = self._integers(start, end)
        step, low = self._grid(start, end)
        if self.g_idx is not None or self.in_features % size:
            index = self.g_idx if self.g_idx is not None else torch.arange(self.in_features, device=ints.device) // size
            step, low = step[:, index], low[:, index] if isinstance(low, Tensor) else low
        else:
            ints = ints.view(end - start, -1, size)
            step, low = step.unsqueeze(-1), low.unsqueeze(-1) if isinstance(low, Tensor) else low
        weight = decoded(ints, self.scheme.type) if self.scheme.code_book else ints.to(torch.float32)
        if self.blocks and isinstance(low, Tensor):
            weight.mul_(step).add_(low)
        else:
            weight.sub_(low).mul_(step)
        return weight.view(end - start, self.in_features).to(self.dtype)

    def _integers(self, start: int, end: int) -> Tensor:
        planes = _PLANES[self.scheme.bits]
        ints, low = unpack_plane(self.plane0[start:end], planes[0]), planes[0]
        if len(planes) > 1:
            ints |= unpack_plane(self.plane1[start:end], planes[1]) << low
        return ints

    def _grid(self, start: int, end: int) -> tuple[Tensor, Tensor | int]:
        """Return the scales, float32 [rows, groups], and the zero points, or for blocks the values of level 0."""
        rows = slice(start, end)
        if not self.blocks:
            assert self.scales is not None
            zeros = self.scheme.levels // 2 if self.zeros is None else self.zeros[rows].to(torch.float32)
            return self.scales[rows].to(torch.float32), zeros
        m, scales, mins = (None if part is None else part[rows] for part in (self.m, self.scales, self.mins))
        step, low = grid_steps(self.d[rows], m, scales, mins)
        if low is None:
            return step, 0 if self.scheme.code_book else self.scheme.levels // 2
        return step, low


def pack_plane(ints: Tensor, low: int, bits: int) -> Tensor:
    """Pack the bits `low` to `low + bits` of each integer: uint8 [out, in] -> [out, in * bits / 8].

    Byte i of a row of n bytes holds the inputs i, i + n, i + 2 n, ..., the first in the lowest bits, so that unpacking
    is a shift and a mask of whole rows. `in` must be a multiple of 8 / bits.
    """
    if bits == 8:
        return ints.contiguous()
    lanes = 8 // bits
    parts = ints.view(ints.shape[0], lanes, -1)
    packed = torch.zeros_like(parts[:, 0])
    for lane in range(lanes):
        packed |= ((parts[:, lane] >> low) & ((1 << bits) - 1)) << lane * bits
    return packed


def unpack_plane(packed: Tensor, bits: int) -> Tensor:
    """Unpack a plane of `pack_plane`: uint8 [out, bytes] -> [out, in], each value below 2^bits."""
    if bits == 8:
        return packed
    return torch.cat([(packed >> lane * bits) & ((1 << bits) - 1) for lane in range(8 // bits)], 1)
