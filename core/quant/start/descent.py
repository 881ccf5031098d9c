"""Coordinate descent over the levels: each is set to its best value given all others."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from core.compiled import in_parts
from core.formats.gguf.code_books import decoded, nearest_code
from core.quant.kernels import compiled_for
from core.quant.start import kernels
from core.quant.start.least_squares import DAMPING
from core.quant.start.levels import Levels, book_arrays, damping, row_chunks

_BLOCK = 96
"""Columns whose slopes are computed by one matrix product."""


@torch.no_grad()
def descend(weight: Tensor, found: Levels, gram: Tensor) -> Levels:
    """Return the levels after one sweep over all columns; the squared error of the outputs does not increase.

    Args:
        weight: float32 [out, in].
        gram: float32 [in, in], sum or mean of the products of the inputs.
    """
    levels = found.levels.clone()
    residual = torch.empty_like(weight)
    for rows in row_chunks(len(weight), weight.shape[1]):
        torch.sub(weight[rows], found.values(rows), out=residual[rows])
    top, width = found.scheme.levels - 1, weight.shape[1]
    with damping(gram, DAMPING):
        for begin in range(0, width, _BLOCK):
            end = min(width, begin + _BLOCK)
            slopes = residual @ gram[:, begin:end]
            _sweep(levels, slopes, residual, found, gram, top, begin, end)
    return found.with_levels(levels)


def _sweep(
    levels: Tensor, slopes: Tensor, residual: Tensor, found: Levels, gram: Tensor, top: int, begin: int, end: int
) -> None:
    if compiled_for(levels):
        arrays = (
            levels.numpy(),
            slopes.numpy(),
            residual.numpy(),
            found.scale.numpy(),
            gram.numpy(),
            *book_arrays(found.scheme),
        )
        in_parts(
            levels, lambda first, last: kernels.descend(*arrays, found.group, np.float32(top), begin, end, first, last)
        )
        return
    for c in range(begin, end):
        scale = found.scale[:, c // found.group]
        move = slopes[:, c - begin] / (gram[c, c] * scale)
        if found.scheme.code_book:
            before = decoded(levels[:, c], found.scheme.type)
            levels[:, c] = nearest_code(before + move, found.scheme.type)
            after = decoded(levels[:, c], found.scheme.type)
        else:
            before = levels[:, c].float()
            after = (before + move).round_().clamp_(0, top)
            levels[:, c] = after.to(torch.uint8)
        change = (after - before) * scale
        residual[:, c] -= change
        slopes[:, c + 1 - begin : end - begin].addr_(change, gram[c, c + 1 : end], alpha=-1)
