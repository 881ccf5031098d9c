"""Conversion of quantized layers to consecutive groups of a size that a kernel supports."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from core.formats.quantized import QuantizedLinear
from core.formats.stored import StoredLayer


def in_order(layer: StoredLayer) -> tuple[Tensor, Tensor | None]:
    """Sort the inputs of a layer by group.

    Returns:
        Integers, uint8 [out, in], and the index of each input in x, int64 [in], or None if the groups are already
        consecutive.
    """
    if not isinstance(layer, QuantizedLinear) or layer.g_idx is None:
        return layer.ints, None
    order = torch.argsort(layer.g_idx, stable=True)
    return layer.ints[:, order], order


def group_for(size: int, inputs: int, known: Sequence[int]) -> int:
    """Return the largest of the `known` group sizes that divides both `size` and `inputs`, or 0."""
    return max((group for group in known if size % group == 0 and inputs % group == 0), default=0)


def spread(values: Tensor, size: int, group: int, inputs: int) -> Tensor:
    """Repeat values of groups of `size` inputs for groups of `group` inputs: [out, groups] -> [out, inputs / group].

    `group` must divide `size`. The last group of `size` may be incomplete.
    """
    if group == size:
        return values
    return values[:, torch.arange(inputs // group, device=values.device) * group // size]
