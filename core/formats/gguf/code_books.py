"""Code books of the GGUF types whose levels are not evenly spaced: values of integers, and nearest integers.

The values are integers, so the midpoints between them are multiples of 1/2. The nearest integer therefore depends only
on the interval of length 1/2 ("cell") that a value is in, which is found without comparisons.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from core.block_types import TYPES


@cache
def code_values(type_name: str) -> Tensor:
    """Return the values of the integers of a type with a code book, float32 [2^bits], ascending."""
    return torch.tensor(TYPES[type_name].code_book, dtype=torch.float32)


@cache
def nearest_in_cell(type_name: str) -> Tensor:
    """Return the integer with the nearest value in each cell from the smallest to the largest value, uint8 [cells].

    At a midpoint it is the larger one.
    """
    codes = code_values(type_name)
    middles = (codes[1:] + codes[:-1]) / 2
    starts = torch.arange(codes[0].item(), codes[-1].item() + 0.5, 0.5)
    return torch.bucketize(starts, middles, right=True).to(torch.uint8)


def nearest_code(ratio: Tensor, type_name: str) -> Tensor:
    """Return the integers whose values are nearest to `ratio`, uint8 in the same shape.

    Args:
        ratio: float32 of any shape, finite.
    """
    codes = TYPES[type_name].code_book
    cell = ratio.clamp(codes[0], codes[-1]).sub_(codes[0]).mul_(2).to(torch.int32)
    return nearest_in_cell(type_name).to(ratio.device).index_select(0, cell.flatten()).view(ratio.shape)


def decoded(integers: Tensor, type_name: str) -> Tensor:
    """Return the values of integers of any integer dtype, float32 in the same shape."""
    codes = code_values(type_name).to(integers.device)
    return codes.index_select(0, integers.flatten().to(torch.int32)).view(integers.shape)


def positions(ratio: Tensor, type_name: str) -> Tensor:
    """Return where values are between the integers, float32: linear from each integer to the next, and beyond the ends.

    Rounding a position gives the integer with the nearest value.
    """
    codes = code_values(type_name).to(ratio.device)
    left = torch.bucketize(ratio, codes[1:-1])
    return (ratio - codes[left]).div_(codes[left + 1] - codes[left]).add_(left)
