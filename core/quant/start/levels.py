"""The integers and scales of a layer during the start, and the values that they represent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from core.schemes import LayerScheme


@dataclass
class Levels:
    """A weight matrix as levels: (level - zero) * scale.

    Attributes:
        scheme: bits, group size and symmetry.
        levels: uint8 [out, in], from 0 to 2^bits - 1.
        scale: float32 [out, groups]; may be negative with a symmetric scheme.
        zero: float32 [out, groups], integers: the level of the value 0; 2^(bits - 1) with a symmetric scheme.
    """

    scheme: LayerScheme
    levels: Tensor
    scale: Tensor
    zero: Tensor

    @property
    def group(self) -> int:
        """Weights per group."""
        return self.scheme.group_of(self.levels.shape[1])

    def centered(self, rows: slice = slice(None)) -> Tensor:
        """Return the levels minus their zero points, float32 [rows, in]."""
        levels = self.levels[rows]
        return (levels.view(len(levels), -1, self.group) - self.zero[rows].unsqueeze(-1)).view(levels.shape)

    def values(self, rows: slice = slice(None)) -> Tensor:
        """Return the represented weights, float32 [rows, in]."""
        centered = self.centered(rows)
        return (centered.view(len(centered), -1, self.group) * self.scale[rows].unsqueeze(-1)).view(centered.shape)


def joined_levels(parts: list[Levels]) -> Levels:
    """Return the rows of several matrices with the same scheme as one."""
    if len(parts) == 1:
        return parts[0]
    return Levels(
        parts[0].scheme,
        torch.cat([part.levels for part in parts]),
        torch.cat([part.scale for part in parts]),
        torch.cat([part.zero for part in parts]),
    )


@contextlib.contextmanager
def damping(gram: Tensor, share: float) -> Iterator[None]:
    """Add a share of the mean diagonal to the diagonal of a Gram matrix [in, in] for the duration of the context.

    Inputs that were always zero get 1, so that the matrix is positive definite; their weights do not matter. The matrix
    is changed in place, since a copy can take gigabytes.
    """
    diagonal = gram.diagonal()
    before = diagonal.clone()
    diagonal.copy_(damped_diagonal(gram, share))
    try:
        yield
    finally:
        diagonal.copy_(before)


def damped_diagonal(gram: Tensor, share: float) -> Tensor:
    """Return the diagonal [in] of a Gram matrix to which a share of its mean is added; see `damping`."""
    diagonal = gram.diagonal().clone()
    diagonal.masked_fill_(diagonal == 0, 1.0)
    return diagonal.add_(share * diagonal.mean())


def row_chunks(rows: int, floats_per_row: int, budget: int = 1 << 24) -> Iterator[slice]:
    """Return slices of rows whose temporaries have at most `budget` numbers."""
    step = max(1, budget // max(1, floats_per_row))
    return (slice(first, min(rows, first + step)) for first in range(0, rows, step))


def squared_error(weight: Tensor, found: Levels, gram: Tensor) -> float:
    """Return the squared error of the outputs, tr((W - Q) G (W - Q)^T).

    Args:
        weight: float32 [out, in].
        gram: float32 [in, in], sum or mean of the products of the inputs.
    """
    return float(row_errors(weight, found.values, gram).sum())


def row_errors(weight: Tensor, values: Callable[[slice], Tensor], gram: Tensor) -> Tensor:
    """Return the squared error of each output, the diagonal of (W - Q) G (W - Q)^T, float64 [out].

    Args:
        weight: float32 [out, in].
        values: returns some rows of Q, float32 [rows, in].
        gram: float32 [in, in], sum or mean of the products of the inputs.
    """
    parts = []
    for rows in row_chunks(len(weight), 3 * weight.shape[1]):
        error = weight[rows] - values(rows)
        parts.append(((error @ gram) * error).sum(-1, dtype=torch.float64))
    return torch.cat(parts)
