"""Backend for torch's product of bfloat16 rows and packed 4-bit weights on a CPU, also used for other bit widths.

`aten::_weight_int4pack_mm_for_cpu` computes a weight as (q - 8) * scale + offset with scale and offset in bfloat16 and
groups of 32, 64, 128 or 256 (aten/src/ATen/native/LinearAlgebra.cpp, cpu/int4mm_kernel.cpp). Integers of 2 and 3 bits
are stored in 4; 5, 6 and 8 bits are computed as two products, of the upper and the lower half of each integer. Needs
neither a compiler nor another library.

Measured with one thread on 2048x5632 weights in groups of 128: a row of bfloat16 takes 0.6 ms, a dense product 2.1 ms,
or 2.7 ms in float32. With float32 or float16 rows the same kernel takes 21 ms because it has no fast path for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.inference.backends.backend import NO_CODE_BOOK, LayerFacts, MissingRequirement
from core.inference.backends.regroup import group_for, in_order, spread

if TYPE_CHECKING:
    from core.formats.stored import StoredLayer
    from core.inference.machine import Device

_GROUPS = (256, 128, 64, 32)
_OUTPUTS = 16
"""The kernel requires a multiple of this number of outputs."""
_MIDDLE = 8
"""The level whose weight is the offset."""
_CAPABILITIES = ("AVX2", "AVX512")
"""torch's names of the instruction sets with a fast kernel; elsewhere a dense product is many times faster."""


class Int4PackBackend:
    """torch's packed 4-bit product on a CPU."""

    name = "int4pack"
    title = "PyTorch, packed 4-bit product"
    takes = "2, 3, 4, 5, 6 and 8 bits, groups of any multiple of 32"

    def missing(self, device: Device) -> MissingRequirement | None:
        if device.kind != "cpu":
            return MissingRequirement("It runs on a CPU only.")
        if not hasattr(torch.ops.aten, "_weight_int4pack_mm_for_cpu"):
            return MissingRequirement(f"PyTorch {torch.__version__} does not provide it; 2.6 and later do.")
        found = torch.backends.cpu.get_cpu_capability()
        if found not in _CAPABILITIES:
            return MissingRequirement(f"It needs AVX2 or AVX-512, but PyTorch detects {found}.")
        return None

    def refusal(self, facts: LayerFacts, device: Device, dtype: torch.dtype) -> str:
        if facts.scheme.code_book:
            return NO_CODE_BOOK
        if facts.inputs % 32:
            return "the inputs are not a multiple of 32"
        if facts.scheme.group_of(facts.inputs) % 32:
            return f"groups of {facts.scheme.group_size} are not a multiple of 32"
        return ""

    def build(self, layer: StoredLayer, bias: Tensor | None, device: Device, dtype: torch.dtype) -> nn.Module:
        return Int4PackLinear(layer, bias, dtype)


class Int4PackLinear(nn.Module):
    """y = x W^T + b, computed with one or two packed 4-bit products.

    Args:
        layer: a `QuantizedLinear` or `BlockLinear` whose group size is a multiple of 32.
        bias: [out] or None.
        dtype: dtype of inputs and outputs; products are computed in bfloat16 and summed in float32.
    """

    order: Tensor | None
    bias: Tensor | None

    def __init__(self, layer: StoredLayer, bias: Tensor | None, dtype: torch.dtype) -> None:
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
            self._register("low", ints, scale, offset)
        else:
            # q = 16 h + l, so (q - 8) s + o = (h - c) 16 s + (l - 8) s + (o + 16 c s). With c in the middle of the
            # range of h, the two products do not cancel.
            middle = layer.scheme.levels // 32
            self._register("low", ints & 15, scale, offset + 16 * middle * scale)
            self._register("high", (ints >> 4) + (_MIDDLE - middle), 16 * scale, torch.zeros_like(offset))

    def _register(self, half: str, ints: Tensor, scale: Tensor, offset: Tensor) -> None:
        """Register the buffers of one product with the weight (ints - 8) * scale + offset.

        Args:
            half: name of the buffer.
            ints: uint8 [out, in].
            scale, offset: float32 [out, groups].
        """
        ints, scale, offset = (_padded(part) for part in (ints, scale, offset))
        packed = torch.ops.aten._convert_weight_to_int4pack_for_cpu(ints.to(torch.int32), 1)
        grid = torch.stack([scale.t(), offset.t()], -1).to(torch.bfloat16).contiguous()
        self.register_buffer(half, packed)
        self.register_buffer(f"{half}_grid", grid)

    def forward(self, x: Tensor) -> Tensor:
        """Return the output [..., out] of an input [..., in]."""
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


def _affine(layer: StoredLayer, ints: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return integers, scales and offsets with weight = (integer - 8) * scale + offset.

    Scales are rounded to bfloat16 first, so that the offsets derived from them fit exactly. The offset is 0 whenever
    possible, because its rounding to bfloat16 shifts all weights of a group in the same direction.

    Args:
        ints: integers of the layer with consecutive groups, uint8 [out, in].

    Returns:
        Integers, uint8 [out, in]; scales and offsets, float32 [out, groups].
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
        raise TypeError(f"{type(layer).__name__} is not a stored layer")
    if layer.scheme.sym:
        if layer.scheme.bits <= 4:
            return ints + (_MIDDLE - middle), scale, torch.zeros_like(scale)
        return ints, scale, (_MIDDLE - middle) * scale
    assert isinstance(layer, QuantizedLinear)  # asymmetric blocks have minimums and returned above
    if layer.scheme.bits < 4:
        # every difference q - z is in [-7, 7], which the levels 1 to 15 represent without an offset
        zeros = spread(layer.zeros, layer.scheme.group_of(ints.shape[1]), 1, ints.shape[1])
        return ints + _MIDDLE - zeros, scale, torch.zeros_like(scale)
    return ints, scale, (_MIDDLE - layer.zeros.to(torch.float32)) * scale


def _padded(rows: Tensor) -> Tensor:
    """Return `rows` padded with rows of zeros to a multiple of _OUTPUTS."""
    more = -rows.shape[0] % _OUTPUTS
    return torch.nn.functional.pad(rows, (0, 0, 0, more)) if more else rows
