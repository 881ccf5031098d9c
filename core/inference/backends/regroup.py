"""Bringing a quantized layer into the form that kernels want: groups that follow each other, of a size they know.

Pure functions on tensors; knows no kernel.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.formats.quantized import QuantizedLinear
from core.formats.stored import Stored


def in_order(layer: Stored) -> tuple[Tensor, Tensor | None]:
    """The integers with the inputs sorted by group, uint8 [out, in], and where each lies in x, int64 [in].

    The order is None where the groups follow each other anyway. Groups have the same sizes either way.
    """
    if not isinstance(layer, QuantizedLinear) or layer.g_idx is None:
        return layer.ints, None
    order = torch.argsort(layer.g_idx, stable=True)
    return layer.ints[:, order], order


def group_for(size: int, inputs: int, known: Sequence[int]) -> int:
    """The largest of the `known` group sizes that cuts groups of `size` and the row without a rest; 0 if none does."""
    return max((group for group in known if size % group == 0 and inputs % group == 0), default=0)


def spread(values: Tensor, size: int, group: int, inputs: int) -> Tensor:
    """One value for each group of `group` inputs, from one for each of `size`: [out, groups] -> [out, inputs / group].

    `group` divides `size`; the last group of `size` may be cut short.
    """
    if group == size:
        return values
    return values[:, torch.arange(inputs // group, device=values.device) * group // size]
