"""Conversion of a quantized layer to the grid of an output, without changing weights if possible.

`core.conversion.conversions` chooses the grid of each layer.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from core.block_types import TYPES
from core.formats.gguf.blocks import BlockLinear
from core.formats.gguf.carry import as_integers
from core.formats.gguf.rounding import round_to
from core.formats.gguf.types import linear_type
from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer
from core.schemes import LayerScheme

_BLOCK = 32
_EVEN = ("q4_0", "q5_0", "q8_0")
"""Block types whose weights are signed integers times one float16 scale per block."""


def regrid(
    layer: StoredLayer, planned: LayerScheme, min_zero: int = 0, *, contiguous_groups: bool = False
) -> StoredLayer:
    """Return the layer on the planned grid: with identical weights if `exact` is true, else rounded.

    Args:
        layer: on any grid, or unquantized.
        planned: a scheme or a block type; a scheme of 16 bits leaves the layer unchanged.
        min_zero: smallest zero point that the output can store, 0 or 1.
        contiguous_groups: whether the groups of the output consist of consecutive inputs, as GGUF blocks do.

    Raises:
        ValueError: the layer would have to be rounded to a scheme without a corresponding block type.
    """
    if not planned.quantized:
        return layer
    unordered = contiguous_groups and isinstance(layer, QuantizedLinear) and layer.g_idx is not None
    if planned.type or isinstance(layer, BlockLinear) or layer.scheme != planned or unordered:
        layer = _onto(layer, planned)
    if isinstance(layer, QuantizedLinear) and not layer.scheme.sym and min_zero:
        return mirrored(layer, min_zero)
    return layer


def exact(scheme: LayerScheme, planned: LayerScheme, *, act_order: bool = False) -> bool:
    """Return whether `regrid` to groups of consecutive inputs keeps every weight of a layer of `scheme`.

    Args:
        scheme: of the layer.
        planned: of the output.
        act_order: whether the layer has act-order.
    """
    if not planned.quantized or (scheme == planned and not act_order):
        return True
    name = linear_type(planned)
    if not name or not scheme.quantized or act_order or (not planned.type and planned != _plain(name)):
        return False
    wanted, bits = TYPES[name], scheme.bits
    if scheme.type == name:
        return True
    if wanted.nested or wanted.code_book or (scheme.type and scheme.type not in _EVEN):
        return False
    # the difference of an asymmetric level and its zero point has one more bit, for the sign
    return bits + (not scheme.sym) <= wanted.bits if wanted.sym else scheme.sym and bits <= wanted.bits


def mirrored(layer: QuantizedLinear, min_zero: int = 1) -> QuantizedLinear:
    """Return a layer with the same weights in which no zero point is below `min_zero`.

    A weight is s (q - z) = -s (q' - z') with the mirrored levels q' = 2^b - 1 - q and z' = 2^b - 1 - z. A zero point of
    0 becomes 2^b - 1, which every format can store. All readers support negative scales.
    """
    low = layer.zeros < min_zero
    if not bool(low.any()):
        return layer
    top = layer.scheme.levels - 1
    scales = layer.scales.where(~low, -layer.scales)
    zeros = layer.zeros.where(~low, top - layer.zeros)
    if layer.g_idx is not None:
        flipped = low[:, layer.g_idx.long()]
    else:
        flipped = low.repeat_interleave(layer.scheme.group_of(layer.in_features), 1)[:, : layer.in_features]
    return replace(layer, ints=layer.ints.where(~flipped, top - layer.ints), scales=scales, zeros=zeros)


def widened(layer: StoredLayer, name: str) -> BlockLinear | None:
    """Return a layer with identical weights in a block type of 32 weights; None if the type cannot represent them.

    A weight s (q - z) is d (q' - 2^(b-1)) with d = s and q' = q - z + 2^(b-1), or d q + m with m = -s z if that is a
    float16 value, as for a power of two z.
    """
    found = _levels(layer)
    if found is None or TYPES[name].nested or TYPES[name].code_book:
        return None
    ints, scales, zeros = found
    kind, top = TYPES[name], 1 << TYPES[name].bits
    grouped = ints.view(len(ints), -1, kind.block)
    if not kind.sym:
        base = zeros.float().neg_().mul_(scales)
        if not torch.equal(base.half().float(), base) or int(ints.max()) >= top:
            return None
        return BlockLinear(layer.name, LayerScheme.of_type(name), ints, scales, base.half())
    shift = (top // 2) - zeros.to(torch.int16)
    low, high = grouped.amin(-1) + shift, grouped.amax(-1) + shift
    if int(low.min()) < 0 or int(high.max()) >= top:
        return None
    # the sums are in range, so the wrap-around of uint8 gives the right values
    moved = (grouped + shift.to(torch.uint8).unsqueeze(-1)).flatten(1)
    return BlockLinear(layer.name, LayerScheme.of_type(name), moved, scales)


def _levels(layer: StoredLayer) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the integers with a float16 scale and a zero point for each 32 of them; None if there are none."""
    if isinstance(layer, BlockLinear):
        if layer.scheme.type not in _EVEN:
            return None
        return layer.ints, layer.d, torch.full_like(layer.d, 1 << (layer.type.bits - 1), dtype=torch.uint8)
    if not isinstance(layer, QuantizedLinear) or layer.g_idx is not None or layer.in_features % _BLOCK:
        return None
    size = layer.scheme.group_of(layer.in_features)
    if size % _BLOCK:
        return None
    blocks = layer.in_features // _BLOCK
    scales, zeros = (
        part.repeat_interleave(size // _BLOCK, 1)[:, :blocks].contiguous() for part in (layer.scales, layer.zeros)
    )
    return layer.ints, scales, zeros


def _onto(layer: StoredLayer, planned: LayerScheme) -> StoredLayer:
    name = linear_type(planned)
    if not name or not (planned.type or planned == _plain(name)):
        raise ValueError(f"{layer.name} is {layer.scheme.label()} and cannot be converted to {planned.label()}")
    if isinstance(layer, BlockLinear) and layer.scheme.type == name:
        blocks = layer
    else:
        blocks = widened(layer, name) or round_to(layer.dequantize(), name, None, layer.name)
    return blocks if planned.type else as_integers(blocks)


def _plain(name: str) -> LayerScheme | None:
    """Return the integer scheme that is equivalent to a block type; None if there is none."""
    return {"q4_0": LayerScheme(4, 32, True), "q8_0": LayerScheme(8, 32, True)}.get(name)
