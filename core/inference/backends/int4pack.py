"""torch's own product of bfloat16 rows and packed 4-bit weights on a CPU, and other widths put into it.

`aten::_weight_int4pack_mm_for_cpu` computes a weight as (q - 8) * scale + offset with scale and offset in bfloat16 and
groups of 32, 64, 128 or 256 (aten/src/ATen/native/LinearAlgebra.cpp, cpu/int4mm_kernel.cpp). 2 and 3 bits fit into
its 4; 5, 6 and 8 bits are two of its products, of the upper and the lower half of each integer. Needs no compiler and
no other library.

Measured with one thread on 2048x5632 weights in groups of 128: a row of bfloat16 takes 0.6 ms where a dense product
takes 2.1 ms, or 2.7 ms in float32. With float32 or float16 rows the same kernel takes 21 ms: it has no fast path.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.inference.backends.backend import LayerFacts, Missing
from core.inference.backends.regroup import group_for, in_order, spread

if TYPE_CHECKING:
    from core.formats.stored import Stored
    from core.inference.machine import Device

_GROUPS = (256, 128, 64, 32)
_OUTPUTS = 16
"""The kernel's outputs are a multiple of this."""
_MIDDLE = 8
"""The level that stands for the offset alone."""
_CAPABILITIES = ("AVX2", "AVX512")
"""torch's names of the instruction sets for which the kernel is written; elsewhere floats are many times faster."""


class Int4PackBackend:
    """Packed 4-bit products of torch."""

    name = "int4pack"
    title = "PyTorch, packed 4-bit product"
    takes = "2, 3, 4, 5, 6 and 8 bits, groups of any multiple of 32"

    def missing(self, device: Device) -> Missing | None:
        if device.kind != "cpu":
            return Missing("It computes on a CPU only.")
        if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
            return Missing(f"PyTorch {torch.__version__} does not have it; 2.6 and later do.")
        found = torch.backends.cpu.get_cpu_capability()
        if found not in _CAPABILITIES:
            return Missing(f"It is written for AVX2 and AVX-512; PyTorch finds {found} here.")
        return None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        if facts.inputs % 32:
            return "inputs are no multiple of 32"
        if facts.scheme.group_of(facts.inputs) % 32:
            return f"groups of {facts.scheme.group_size} are too small"
        return ""

    def build(self, layer: Stored, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        return Int4PackLinear(layer, bias, dtype)


class Int4PackLinear(nn.Module):
    """y = x W^T + b by one packed 4-bit product, or two.

    Args:
        layer: a `QuantizedLinear` or `BlockLinear` with groups of a multiple of 32 inputs.
        bias: [out] or None.
        dtype: of inputs and outputs; the products are of bfloat16, with sums in float32.
    """

    order: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: Stored, bias: Tensor | None, dtype: torch.dtype) -> None:
        super().__init__()
        self.out_features, self.in_features = layer.ints.shape
        self.dtype = dtype
        self.register_buffer("bias", None if bias is None else bias.to(dtype))
        ints, order = in_order(layer)
        ints, scale, offset = _affine(layer, ints)
        self.register_buffer("order", order)
        size = layer.scheme.group_of(self.in_features)
        self.group = group_for(size, self.in_features, _GROUPS)
        scale, offset = (spread(values, size, self.group, self.in_features) for values in (scale, offset))
        self.halves = 1 if layer.scheme.bits <= 4 else 2
        if self.halves == 1:
            self._keep("low", ints, scale, offset)
        else:
            # q = 16 h + l, so (q - 8) s + o = (h - c) 16 s + (l - 8) s + (o + 16 c s), with c in the middle of all h:
            # else two large products would nearly cancel.
            middle = layer.scheme.levels // 32
            self._keep("low", ints & 15, scale, offset + 16 * middle * scale)
            self._keep("high", (ints >> 4) + (_MIDDLE - middle), 16 * scale, torch.zeros_like(offset))

    def _keep(self, half: str, ints: Tensor, scale: Tensor, offset: Tensor) -> None:
        """One packed product: weights are (ints - 8) * scale + offset; scale and offset float32 [out, groups]."""
        ints, scale, offset = (_padded(part) for part in (ints, scale, offset))
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(ints.to(torch.int32), 1)
        grid = torch.stack([scale.t(), offset.t()], -1).to(torch.bfloat16).contiguous()
        self.register_buffer(half, packed)
        self.register_buffer(f"{half}_grid", grid)

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] -> [..., out]."""
        rows = x.reshape(-1, self.in_features)
        if self.order is not None:
            rows = rows[:, self.order]
        rows = rows.to(torch.bfloat16).contiguous()
        y = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.low, self.group, self.low_grid)
        if self.halves == 2:
            high = torch.ops.aten._weight_int4pack_mm_for_cpu(rows, self.high, self.group, self.high_grid)
            y = y.to(torch.float32).add_(high)
        y = y[:, : self.out_features].to(self.dtype)
        if self.bias is not None:
            y = y + self.bias
        return y.view(*x.shape[:-1], self.out_features)


def _affine(layer: Stored, ints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Integers uint8 [out, in], scale and offset float32 [out, groups] with weight = (integer - 8) * scale + offset.

    Scales have the values that they will have in bfloat16, so that what is derived from them cancels as it should.
    The offset is 0 wherever that can be: rounding it to bfloat16 moves a whole group of weights the same way.

    Args:
        ints: of the layer, with groups that follow each other.
    """
    middle = layer.scheme.levels // 2
    if isinstance(layer, BlockLinear):
        step, low = layer.steps()
        scale = step.to(torch.bfloat16).to(torch.float32)
        if low is not None:
            return ints, scale, low + _MIDDLE * scale
    elif isinstance(layer, QuantizedLinear):
        scale = layer.scales.to(torch.bfloat16).to(torch.float32)
    else:
        raise TypeError(f"{type(layer).__name__} is no stored layer")
    if layer.scheme.sym:
        if layer.scheme.bits <= 4:
            return ints + (_MIDDLE - middle), scale, torch.zeros_like(scale)
        return ints, scale, (_MIDDLE - middle) * scale
    assert isinstance(layer, QuantizedLinear)  # blocks that are not symmetric have minimums
    if layer.scheme.bits < 4:
        # every difference q - z lies in -7 to 7: as a level of 1 to 15 it needs no offset
        zeros = spread(layer.zeros, layer.scheme.group_of(ints.shape[1]), 1, ints.shape[1])
        return ints + _MIDDLE - zeros, scale, torch.zeros_like(scale)
    return ints, scale, (_MIDDLE - layer.zeros.to(torch.float32)) * scale


def _padded(rows: Tensor) -> Tensor:
    """With rows of zeros up to a multiple of `_OUTPUTS`."""
    more = -rows.shape[0] % _OUTPUTS
    return torch.nn.functional.pad(rows, (0, 0, 0, more)) if more else rows
