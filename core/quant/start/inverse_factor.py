"""The upper Cholesky factor of the inverse of a matrix, computed in place.

A Gram matrix of 28,672 inputs takes 3.3 GB, so each copy counts. With A = R R^T, R upper triangular, the factor is
R^-1: the decomposition from the last column to the first and the inversion of R both fit into the storage of A, and
take a third of the operations of inverting A and decomposing the inverse.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

_BLOCK = 512
"""Columns that are processed at once; the temporaries are a few matrices of this width."""


@torch.no_grad()
def invert_and_factor(matrix: Tensor) -> bool:
    """Replace a symmetric matrix A, float32 [n, n], by the upper triangular U with U^T U = A^-1.

    Returns:
        False if A is not positive definite or not finite; its content is then undefined.
    """
    if not _decompose(matrix):
        return False
    _invert(matrix)
    matrix.triu_()
    return bool(matrix.diagonal().isfinite().all())


def _decompose(matrix: Tensor) -> bool:
    """Replace the upper triangle of A by R with A = R R^T; returns False if that is not possible."""
    for begin, end in reversed(list(_blocks(len(matrix)))):
        corner = matrix[begin:end, begin:end]
        lower, failed = torch.linalg.cholesky_ex(corner.flip(0, 1))
        if failed or not bool(lower.isfinite().all()):
            return False
        factor = lower.flip(0, 1)
        corner.copy_(factor)
        if not begin:
            break
        above = matrix[:begin, begin:end]
        above.copy_(torch.linalg.solve_triangular(factor.T, above, upper=False, left=False))
        for first, last in _blocks(begin):
            matrix[:last, first:last].addmm_(above[:last], above[first:last].T, alpha=-1)
    return True


def _invert(matrix: Tensor) -> None:
    """Replace an upper triangular matrix by its inverse; what is below the diagonal is undefined."""
    for begin, end in _blocks(len(matrix)):
        corner = matrix[begin:end, begin:end]
        factor, unit = corner.triu(), torch.eye(end - begin, device=matrix.device)
        corner.copy_(torch.linalg.solve_triangular(factor, unit, upper=True).triu_())
        if not begin:
            continue
        above = matrix[:begin, begin:end]
        for first, last in _blocks(begin):  # the rows below `last` are still those of the factor
            above[first:last] = matrix[first:last, first:begin] @ above[first:]
        above.copy_(torch.linalg.solve_triangular(factor, above, upper=True, left=False).neg_())


def _blocks(width: int) -> Iterator[tuple[int, int]]:
    return ((begin, min(width, begin + _BLOCK)) for begin in range(0, width, _BLOCK))
