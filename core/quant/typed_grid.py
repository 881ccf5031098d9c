"""Scales of a GGUF block type during tuning with SignRound.

They are found by a search for the smallest weighted squared error and then fixed: only offsets are tuned. Tuning the
scales with SignSGD too, as the ranges of plain schemes, increased the error of a block of a model with 135 M weights
on unseen text by 10 to 21 % with 4 and 6 bits (q4_1, q4_k, q6_k; 100 iterations), and changed it by -0.1 to +0.9 %
with 2 and 3 bits; tuning the minimums as well gave no improvement.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.formats.gguf.blocks import BlockScales
from core.formats.gguf.rounding import search_scales

_SMALLEST = 2.0**-24
"""Smallest positive float16."""


@torch.no_grad()
def nonzero_scales(weight: Tensor, type_name: str, importance: Tensor | None) -> BlockScales:
    """Return the scales found by a search, with zero scales replaced so that every level has another value.

    Args:
        weight: [out, in]; `in` a multiple of the block.
        importance: mean square of each input, float32 [in]; None for equal weights.
    """
    found = search_scales(weight, type_name, importance)
    d = torch.where(found.d == 0, _SMALLEST, found.d)
    scales = None if found.scales is None else torch.where(found.scales == 0, 1.0, found.scales)
    return BlockScales(d, found.m, scales, found.mins)
