"""Lossless conversion of plain integer schemes to GGUF block types, and back."""

from __future__ import annotations

import torch

from core.block_types import TYPES, carrier
from core.formats.gguf.blocks import BlockLinear
from core.formats.quantized import QuantizedLinear
from core.schemes import LayerScheme

_BLOCK = 32
"""Weights of a block, the same for all types used here."""


def carry(layer: QuantizedLinear) -> BlockLinear:
    """Return bit-identical weights in the smallest block type that can represent them.

    A weight in a block is d (q - 2^(b-1)): integers are shifted by their zero points, and every block gets the scale of
    its group.

    Raises:
        ValueError: no type can represent the layer.
    """
    scheme = layer.scheme
    name = carrier(scheme.bits, scheme.group_size, scheme.sym)
    if not name:
        raise ValueError(f"{layer.name}: no GGUF block type represents {scheme.label()} exactly.")
    if layer.g_idx is not None:
        raise ValueError(f"{layer.name}: GGUF blocks cannot represent act-order (desc_act).")
    if layer.in_features % _BLOCK:
        raise ValueError(f"{layer.name}: {layer.in_features} inputs are not a multiple of the block size {_BLOCK}.")
    blocks = layer.in_features // _BLOCK
    repeats = scheme.group_of(layer.in_features) // _BLOCK
    # The last group may be shorter.
    zeros = layer.zeros.repeat_interleave(repeats, 1)[:, :blocks].to(torch.int16)
    scales = layer.scales.repeat_interleave(repeats, 1)[:, :blocks].contiguous()
    levels = TYPES[name].bits
    shift = zeros.neg_().add_(1 << (levels - 1))
    # uint8 wraps around, so the range is checked with the smallest and largest integer of every block.
    grouped = layer.ints.reshape(layer.out_features, blocks, _BLOCK)
    low, high = (grouped.amin(-1).to(torch.int16) + shift), (grouped.amax(-1).to(torch.int16) + shift)
    if layer.ints.numel() and (int(low.min()) < 0 or int(high.max()) >> levels):
        raise ValueError(f"{layer.name}: an integer minus its zero point does not fit into {name.upper()}.")
    ints = grouped + shift.to(torch.uint8).unsqueeze(-1)
    return BlockLinear(layer.name, LayerScheme.of_type(name), ints.flatten(1), scales)


def as_integers(layer: BlockLinear) -> QuantizedLinear:
    """Return bit-identical weights as symmetric integers with group size 32, the inverse of `carry`.

    Raises:
        ValueError: the layer is neither q4_0 nor q8_0.
    """
    if layer.scheme.type not in ("q4_0", "q8_0"):
        raise ValueError(f"{layer.name}: {layer.scheme.label()} does not consist of integers with float16 scales.")
    zeros = torch.full(layer.d.shape, layer.scheme.levels // 2, dtype=torch.uint8, device=layer.d.device)
    return QuantizedLinear(layer.name, LayerScheme(layer.scheme.bits, _BLOCK, True), layer.ints, layer.d, zeros)
