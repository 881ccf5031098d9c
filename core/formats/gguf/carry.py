"""Integers of a plain scheme as GGUF blocks, and back, without changing a number. Knows one layer at a time."""

from __future__ import annotations

import torch

from core.block_types import TYPES, carrier
from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.schemes import LayerScheme

_BLOCK = 32
"""Weights of a block of every type that carries."""


def carry(layer: QuantizedLinear) -> BlockLinear:
    """The same weights, to the bit, as blocks of the smallest type that holds them.

    A weight is d (q - 2^(b-1)) there: levels less their zero points are moved, and every block of a group gets the
    group's scale.

    Raises:
        ValueError: no type holds the layer.
    """
    scheme = layer.scheme
    name = carrier(scheme.bits, scheme.group_size, scheme.sym)
    if not name:
        raise ValueError(f"{layer.name}: no block type of GGUF holds {scheme.label()} exactly.")
    if layer.g_idx is not None:
        raise ValueError(f"{layer.name}: inputs out of order (desc_act) cannot be carried by blocks of GGUF.")
    if layer.in_features % _BLOCK:
        raise ValueError(f"{layer.name}: {layer.in_features} inputs are no whole blocks of {_BLOCK}.")
    blocks = layer.in_features // _BLOCK
    repeats = scheme.group_of(layer.in_features) // _BLOCK
    # The last group may be cut short.
    zeros = layer.zeros.repeat_interleave(repeats, 1)[:, :blocks].to(torch.int16)
    scales = layer.scales.repeat_interleave(repeats, 1)[:, :blocks].contiguous()
    levels = TYPES[name].bits
    shift = zeros.neg_().add_(1 << (levels - 1))
    # uint8 wraps around as the type does, so the range is checked by the ends of every block.
    grouped = layer.ints.reshape(layer.out_features, blocks, _BLOCK)
    low, high = (grouped.amin(-1).to(torch.int16) + shift), (grouped.amax(-1).to(torch.int16) + shift)
    if layer.ints.numel() and (int(low.min()) < 0 or int(high.max()) >> levels):
        raise ValueError(f"{layer.name}: a level less its zero point does not fit into {name.upper()}.")
    ints = grouped + shift.to(torch.uint8).unsqueeze(-1)
    return BlockLinear(layer.name, LayerScheme.of_type(name), ints.flatten(1), scales)


def as_integers(layer: BlockLinear) -> QuantizedLinear:
    """The same weights, to the bit, as symmetric integers in groups of 32; the inverse of `carry` for these.

    Raises:
        ValueError: the layer is neither q4_0 nor q8_0.
    """
    if layer.scheme.type not in ("q4_0", "q8_0"):
        raise ValueError(f"{layer.name}: {layer.scheme.label()} is no grid of integers with float16 scales.")
    zeros = torch.full(layer.d.shape, layer.scheme.levels // 2, dtype=torch.uint8, device=layer.d.device)
    return QuantizedLinear(layer.name, LayerScheme(layer.scheme.bits, _BLOCK, True), layer.ints, layer.d, zeros)
