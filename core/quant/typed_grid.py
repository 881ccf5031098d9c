"""The scales of a GGUF block type while a layer is tuned on its grid.

They come from the search for the least weighted squared error and stay as they are: only offsets are tuned. Letting the
steps follow the signs of their gradients too, as the ranges of plain schemes do, left a block of a model with 135 M
weights with 10 to 21 percent more error on unseen text at 4 and 6 bits (q4_1, q4_k, q6_k; 100 iterations), and with 0.1
percent less to 0.9 more at 2 and 3 bits; with minimums moving as well it was no better. Knows the scales of one layer,
not its weights or integers.
"""

from __future__ import annotations

import torch
from torch import Tensor

from core.formats.gguf.blocks import BlockLinear, grid_steps
from core.formats.gguf.rounding import Start, start
from core.schemes import LayerScheme

_SMALLEST = 2.0**-24
"""The smallest float16 above 0."""


@torch.no_grad()
def begin(weight: Tensor, type_name: str, importance: Tensor | None) -> Start:
    """What a search finds, but for steps of 0: every weight then has a level, and every offset an effect.

    Args:
        weight: [out, in]; `in` a multiple of the block.
        importance: mean square of every input, float32 [in]; None weighs all alike.
    """
    found = start(weight, type_name, importance)
    d = torch.where(found.d == 0, _SMALLEST, found.d)
    scales = None if found.scales is None else torch.where(found.scales == 0, 1.0, found.scales)
    return Start(d, found.m, scales, found.mins)


def steps(numbers: Start) -> tuple[Tensor, Tensor | None]:
    """The worth of one level and, of types with minimums, that of level 0; float32 [out, groups]."""
    return grid_steps(numbers.d, numbers.m, numbers.scales, numbers.mins)


def layer(name: str, scheme: LayerScheme, integers: Tensor, numbers: Start) -> BlockLinear:
    """A layer of these scales.

    Args:
        integers: uint8 [out, in] on the CPU.
    """

    def stored(part: Tensor | None, dtype: torch.dtype) -> Tensor | None:
        return None if part is None else part.to(dtype).cpu()

    return BlockLinear(
        name,
        scheme,
        integers,
        numbers.d.half().cpu(),
        stored(numbers.m, torch.float16),
        stored(numbers.scales, torch.int8),
        stored(numbers.mins, torch.int8),
    )
