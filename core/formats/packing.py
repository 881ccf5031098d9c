"""Layouts of quantized layers in safetensors: names, tensor shapes, and bits derived from shapes.

Four layouts cover GPTQ, AWQ and AutoRound checkpoints; they differ in the direction of packing and in whether zero
points are stored minus 1. With N outputs, K inputs, G groups and b bits:

    bitstream   qweight I32 [K*b/32, N]   qzeros I32 [G, N*b/32]   scales F16 [G, N]
    AWQ         qweight I32 [K, N*b/32]   qzeros I32 [G, N*b/32]   scales F16 [G, N]

Does not import torch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

PLAIN_ORDER = (0,)
"""Values in the order of their columns."""

AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)
"""Slot p of eight, from the low bits up, contains column AWQ_ORDER[p] of the eight."""

_WORD = 32

PARTS = ("qweight", "qzeros", "scales", "g_idx")
"""Last part of the names of the tensors of a quantized layer."""


@dataclass(frozen=True)
class Packing:
    """A layout of quantized layers.

    Attributes:
        name: `packing_format` in AutoRound's config.
        awq: whether weights are packed along the outputs in AWQ's order, instead of along the inputs in plain order.
        zero_bias: added to a stored zero point when reading: 1 in GPTQ version 1, else 0.
        g_idx: whether there is a tensor with the group of each input.
    """

    name: str
    awq: bool = False
    zero_bias: int = 0
    g_idx: bool = False

    @property
    def order(self) -> tuple[int, ...]:
        """Order of values along the outputs."""
        return AWQ_ORDER if self.awq else PLAIN_ORDER


AUTO_ROUND = Packing("auto_round")
AUTO_ROUND_GPTQ = Packing("auto_round:auto_gptq", zero_bias=1)
AUTO_ROUND_AWQ = Packing("auto_round:auto_awq", awq=True)
GPTQ = Packing("auto_gptq", zero_bias=1, g_idx=True)
GPTQ_V2 = Packing("auto_round:gptqmodel", g_idx=True)


def block_values(bits: int) -> int:
    """Return the smallest number of values that fill whole words, of which a packed dimension is a multiple."""
    return _WORD // math.gcd(_WORD, bits)


@dataclass(frozen=True)
class PackedShape:
    """Bits and sizes of a packed layer, derived from the shapes of its tensors."""

    bits: int
    in_features: int
    out_features: int
    groups: int


def measure(packing: Packing, shapes: Mapping[str, tuple[int, ...]]) -> PackedShape | None:
    """Derive bits and sizes of a layer from the shapes of its parts; None if the shapes are inconsistent."""
    weight, zeros, scales = (shapes[part] for part in PARTS[:3])
    if any(len(shape) != 2 or 0 in shape for shape in (weight, zeros, scales)):
        return None
    groups, out_features = scales
    bits, rest = divmod(zeros[1] * 32, out_features)
    if rest or not 1 <= bits <= 8 or zeros[0] != groups or out_features % block_values(bits):
        return None
    if packing.awq:
        in_features, fits = weight[0], weight[1] == zeros[1]
    else:
        in_features, rest = divmod(weight[0] * 32, bits)
        fits = not rest and weight[1] == out_features and not in_features % block_values(bits)
    return PackedShape(bits, in_features, out_features, groups) if fits else None
