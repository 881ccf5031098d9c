"""A quantized layer brought onto the grid that an output has for it: without changing a weight where that is possible.

Knows one layer at a time, and grids; not which format wants which (`core.conversion.conversions` does).
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
"""Block types whose weights are integers around zero times one float16."""


def regrid(
    layer: StoredLayer, planned: LayerScheme, min_zero: int = 0, *, contiguous_groups: bool = False
) -> StoredLayer:
    """The layer on the planned grid; the same weights to the bit if `exact` says so, else the nearest that were found.

    Args:
        layer: of any grid, or of none.
        planned: a scheme or a block type; of 16 bits, the layer stays what it is.
        min_zero: the smallest zero point that the output can store, 0 or 1.
        contiguous_groups: the output has no act-order; its groups are contiguous inputs.

    Raises:
        ValueError: integers that are not on a grid of block types were asked for of other weights.
    """
    if not planned.quantized:
        return layer
    astray = contiguous_groups and isinstance(layer, QuantizedLinear) and layer.g_idx is not None
    if planned.type or isinstance(layer, BlockLinear) or layer.scheme != planned or astray:
        layer = _onto(layer, planned)
    if isinstance(layer, QuantizedLinear) and not layer.scheme.sym and min_zero:
        return mirrored(layer, min_zero)
    return layer


def exact(scheme: LayerScheme, planned: LayerScheme, *, act_order: bool = False) -> bool:
    """Whether `regrid` keeps every weight of a layer of `scheme` in groups of neighbours.

    Args:
        act_order: the layer has act-order (`desc_act`).
    """
    if not planned.quantized or (scheme == planned and not act_order):
        return True
    name = linear_type(planned)
    if not name or not scheme.quantized or act_order or (not planned.type and planned != _plain(name)):
        return False
    wanted, bits = TYPES[name], scheme.bits
    if scheme.type == name:
        return True
    if wanted.nested or (scheme.type and scheme.type not in _EVEN):
        return False
    # an asymmetric level less its zero point has one bit more, with its sign
    return bits + (not scheme.sym) <= wanted.bits if wanted.sym else scheme.sym and bits <= wanted.bits


def mirrored(layer: QuantizedLinear, min_zero: int = 1) -> QuantizedLinear:
    """The same weights with other integers where a zero point is below `min_zero`.

    A weight is s (q - z). With q and z counted from the other end, and s negated, it is the same number: a zero point
    of 0 becomes 2^b - 1, which every format stores. All readers multiply by the scale, whatever its sign.
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
    """The same weights, to the bit, in a type of blocks of 32; None where its levels are too few or of another kind.

    A weight s (q - z) is d (q' - 2^(b-1)) with d = s and q' = q - z + 2^(b-1), or d q + m with m = -s z, which is a
    float16 too where z is a power of two.
    """
    found = _levels(layer)
    if found is None or TYPES[name].nested:
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
    # within the range, uint8 wraps around to the right number
    moved = (grouped + shift.to(torch.uint8).unsqueeze(-1)).flatten(1)
    return BlockLinear(layer.name, LayerScheme.of_type(name), moved, scales)


def _levels(layer: StoredLayer) -> tuple[Tensor, Tensor, Tensor] | None:
    """Integers, and a float16 scale and a zero point for every 32 of them; None where a layer has no such thing."""
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
        raise ValueError(f"{layer.name} is {layer.scheme.label()} and cannot become {planned.label()} by itself")
    if isinstance(layer, BlockLinear) and layer.scheme.type == name:
        blocks = layer
    else:
        blocks = widened(layer, name) or round_to(layer.dequantize(), name, None, layer.name)
    return blocks if planned.type else as_integers(blocks)


def _plain(name: str) -> LayerScheme | None:
    """The scheme of integers that a block type is the same as."""
    return {"q4_0": LayerScheme(4, 32, True), "q8_0": LayerScheme(8, 32, True)}.get(name)
