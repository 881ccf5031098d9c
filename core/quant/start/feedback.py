"""Rounding with error feedback (GPTQ, arXiv 2210.17323), with scales that are known beforehand.

Columns are rounded in the order of decreasing diagonal of the Gram matrix ("act-order"). The error of each is spread
over the columns that are not rounded yet, with the factors of the Cholesky decomposition of the inverse. Groups stay
those of the original order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from core.compiled import in_parts
from core.errors import BitwrightError
from core.formats.gguf.code_books import decoded, nearest_code
from core.quant.kernels import compiled_for
from core.quant.start import kernels
from core.quant.start.inverse_factor import invert_and_factor
from core.quant.start.levels import Levels, book_arrays, damped_diagonal, row_chunks

DAMPING = 0.01
"""Share of the mean diagonal that is added to the diagonal of the Gram matrix."""
_BLOCK = 96
"""Columns that are rounded before their errors are spread over the rest by one matrix product."""
_TRIES = 6


@dataclass(frozen=True)
class ErrorFactors:
    """The factors with which errors are spread; they depend only on the inputs, so rows may be rounded in parts.

    Attributes:
        order: int64 [in], columns in the order of rounding.
        upper: float32 [in, in], upper Cholesky factor of the inverse of the damped Gram matrix, in that order.
    """

    order: Tensor
    upper: Tensor


@torch.no_grad()
def error_factors(gram: Tensor) -> ErrorFactors:
    """Return the factors for a Gram matrix.

    Args:
        gram: float32 [in, in], sum or mean of the products of the inputs.

    Raises:
        BitwrightError: the Gram matrix has values that are not finite.
    """
    order = gram.diagonal().argsort(descending=True, stable=True)
    share, upper = DAMPING, torch.empty_like(gram)
    for _ in range(_TRIES):
        for rows in row_chunks(len(gram), len(gram)):
            upper[rows] = gram[order[rows]][:, order]
        upper.diagonal().copy_(damped_diagonal(gram, share)[order])
        if invert_and_factor(upper):
            return ErrorFactors(order, upper)
        share *= 10
    raise BitwrightError("The inputs of a layer are not finite numbers.", "Check the model with `bitwright eval`.")


@torch.no_grad()
def round_with_feedback(weight: Tensor, start: Levels, factors: ErrorFactors) -> Levels:
    """Return levels on the scales and zero points of `start`, whose levels are not used.

    Args:
        weight: float32 [out, in].
    """
    order, upper = factors.order, factors.upper
    work = start.above_base(weight)[:, order].contiguous()
    levels = torch.empty(weight.shape, dtype=torch.uint8, device=weight.device)
    group_of = order // start.group
    top, width = start.scheme.levels - 1, weight.shape[1]
    for begin in range(0, width, _BLOCK):
        end = min(width, begin + _BLOCK)
        errors = torch.empty(len(weight), end - begin, device=weight.device)
        _round_block(work, levels, start, group_of, upper, errors, top, begin, end)
        if end < width:
            work[:, end:].addmm_(errors, upper[begin:end, end:], alpha=-1)
    found = torch.empty_like(levels)
    found[:, order] = levels
    return start.with_levels(found)


def _round_block(
    work: Tensor,
    levels: Tensor,
    start: Levels,
    group_of: Tensor,
    upper: Tensor,
    errors: Tensor,
    top: int,
    begin: int,
    end: int,
) -> None:
    if compiled_for(work):
        arrays = (
            work.numpy(),
            levels.numpy(),
            start.scale.numpy(),
            start.zero.numpy(),
            group_of.numpy(),
            upper.numpy(),
            errors.numpy(),
            *book_arrays(start.scheme),
        )
        in_parts(work, lambda first, last: kernels.feed_back(*arrays, np.float32(top), begin, end, first, last))
        return
    for c in range(begin, end):
        scale, zero = start.scale[:, group_of[c]], start.zero[:, group_of[c]]
        if start.scheme.code_book:
            levels[:, c] = nearest_code(work[:, c] / scale, start.scheme.type)
            above = decoded(levels[:, c], start.scheme.type)
        else:
            level = (work[:, c] / scale + zero).round_().clamp_(0, top)
            levels[:, c] = level.to(torch.uint8)
            above = level - zero
        error = (work[:, c] - above * scale) / upper[c, c]
        errors[:, c - begin] = error
        work[:, c + 1 : end].addr_(error, upper[c, c + 1 : end], alpha=-1)
