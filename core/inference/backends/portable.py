"""Linear layers by plain torch, for every scheme on every device: as floats (`dense`) or kept packed (`portable`).

Both give exactly the weights that `dequantize` gives, rounded to the compute dtype; they differ in memory alone. Knows
torch and nothing of other libraries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from core.formats.gguf.blocks import BlockLinear, grid_steps
from core.formats.quantized import QuantizedLinear
from core.inference.backends.backend import LayerFacts, Missing
from core.model.linear import TunedLinear

if TYPE_CHECKING:
    from core.formats.stored import Stored
    from core.inference.machine import Device

_PLANES = {2: (2,), 3: (2, 1), 4: (4,), 5: (4, 1), 6: (4, 2), 8: (8,)}
"""Into which widths the bits of an integer are split, the lowest bits first: each divides a byte."""
_SLICE = {"cpu": 1 << 20}
"""Weights that are unpacked at a time by kind of device. A CPU's fit its cache: of 2048x5632 weights in 4 bits a thread
made 4.6 ms for 2^20, 5.6 ms for 2^19, 10 ms for 2^22 and 34 ms for all at once."""
_LARGE_SLICE = 1 << 24
"""Elsewhere, where each operation costs a launch."""


class DenseBackend:
    """Each weight is worked out once and kept as floats."""

    name = "dense"
    title = "PyTorch, weights unpacked once"
    takes = "every layer; needs the memory of the original"

    def missing(self, device: Device) -> Missing | None:
        return None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        return ""

    def build(self, layer: Stored, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        return dense_linear(layer.dequantize().to(device.id, dtype), bias)


class PortableBackend:
    """Each weight stays packed and is worked out anew for every product: the least memory, not the least time."""

    name = "portable"
    title = "PyTorch, weights kept packed"
    takes = "every layer; the least memory"

    def missing(self, device: Device) -> Missing | None:
        return None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        return ""

    def build(self, layer: Stored, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        return PackedLinear(layer, bias, dtype).to(device.id)


def dense_linear(weight: Tensor, bias: Tensor | None) -> TunedLinear:
    """A linear of a float weight [out, in] and a bias [out] or None, brought to the weight's place and dtype."""
    return TunedLinear(weight, None if bias is None else bias.to(weight.device, weight.dtype))


class PackedLinear(nn.Module):
    """y = x W^T + b with W worked out from packed integers in slices of rows, for each call.

    Args:
        layer: a `QuantizedLinear` or a `BlockLinear`; its tensors are not kept, but the small ones.
        bias: [out] or None.
        dtype: of inputs and outputs; products are computed in it.
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

    def __init__(self, layer: Stored, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.ints.shape
        self.scheme = layer.scheme
        low = 0
        for number, width in enumerate(_PLANES[self.scheme.bits]):
            self.register_buffer(f"plane{number}", pack_plane(layer.ints, low, width))
            low += width
        self._keep(layer)
        # A dtype of a buffer changes with `.to(dtype)`; nobody calls that on a loaded model.
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        self.dtype = dtype

    def _keep(self, layer: Stored) -> None:
        g_idx = None
        if isinstance(layer, QuantizedLinear):
            names = {"scales": layer.scales, "zeros": None if self.scheme.sym else layer.zeros}
            g_idx = None if layer.g_idx is None else layer.g_idx.to(torch.int64)
        elif isinstance(layer, BlockLinear):
            names = {"d": layer.d, "m": layer.m, "scales": layer.scales, "mins": layer.mins}
        else:
            raise TypeError(f"{type(layer).__name__} is no stored layer")
        self.blocks = isinstance(layer, BlockLinear)
        for name in ("d", "m", "scales", "mins", "zeros"):
            self.register_buffer(name, names.get(name))
        self.register_buffer("g_idx", g_idx)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
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
        """Rows `start` to `end` of the weight, [end - start, in] in the compute dtype."""
        size = self.scheme.group_of(self.in_features)
        ints = self._integers(start, end)
        step, low = self._grid(start, end)
        if self.g_idx is not None or self.in_features % size:
            index = self.g_idx if self.g_idx is not None else torch.arange(self.in_features, device=ints.device) // size
            step, low = step[:, index], low[:, index] if isinstance(low, Tensor) else low
        else:
            ints = ints.view(end - start, -1, size)
            step, low = step.unsqueeze(-1), low.unsqueeze(-1) if isinstance(low, Tensor) else low
        weight = ints.to(torch.float32)
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
        """What a level is worth, float32 [rows, groups], and the zero point, or of blocks the value of level 0."""
        rows = slice(start, end)
        if not self.blocks:
            assert self.scales is not None
            zeros = self.scheme.levels // 2 if self.zeros is None else self.zeros[rows].to(torch.float32)
            return self.scales[rows].to(torch.float32), zeros
        m, scales, mins = (None if part is None else part[rows] for part in (self.m, self.scales, self.mins))
        step, low = grid_steps(self.d[rows], m, scales, mins)
        return step, self.scheme.levels // 2 if low is None else low


def pack_plane(ints: Tensor, low: int, bits: int) -> Tensor:
    """Bits `low` to `low + bits` of each integer, several to a byte: uint8 [out, in] -> [out, in * bits / 8].

    Byte i of a row of n bytes holds inputs i, i + n, i + 2 n and so on, the first in its lowest bits: unpacking is a
    shift and a mask of whole rows. `in` must be a multiple of 8 / bits.
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
    """The other way round: uint8 [out, bytes] -> [out, in], each below 2^bits."""
    if bits == 8:
        return packed
    return torch.cat([(packed >> lane * bits) & ((1 << bits) - 1) for lane in range(8 // bits)], 1)
