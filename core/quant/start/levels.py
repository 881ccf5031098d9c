"""The integers and scales of a layer during the start, and the values that they represent."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from core.formats.gguf.blocks import BlockScales, joined_scales
from core.formats.gguf.code_books import code_values, decoded, nearest_in_cell
from core.schemes import LayerScheme


@dataclass
class Levels:
    """A weight matrix as levels: (level - zero) * scale + base.

    With a code book, the value of the level in it replaces level - zero.

    Attributes:
        scheme: bits, group size and symmetry, or a block type.
        levels: uint8 [out, in], from 0 to 2^bits - 1.
        scale: float32 [out, groups]; may be negative with a symmetric scheme.
        zero: float32 [out, groups], integers: the level of the value `base`; 2^(bits - 1) with a symmetric scheme,
            0 with a code book.
        base: float32 [out, groups]; None for 0. Only block types with minimums have it, and 0 as `zero`.
        blocks: stored scales of a block type, from which `scale` and `base` are computed; else None.
    """

    scheme: LayerScheme
    levels: Tensor
    scale: Tensor
    zero: Tensor
    base: Tensor | None = None
    blocks: BlockScales | None = None

    @property
    def group(self) -> int:
        """Weights per group."""
        return self.scheme.group_of(self.levels.shape[1])

    @property
    def codes(self) -> Tensor | None:
        """Values of the levels of a code book, float32 [2^bits]; None without one."""
        return code_values(self.scheme.type) if self.scheme.code_book else None

    def centered(self, rows: slice = slice(None)) -> Tensor:
        """Return the levels minus their zero points, or their values in a code book, float32 [rows, in]."""
        levels = self.levels[rows]
        if self.scheme.code_book:
            return decoded(levels, self.scheme.type)
        return (levels.view(len(levels), -1, self.group) - self.zero[rows].unsqueeze(-1)).view(levels.shape)

    def values(self, rows: slice = slice(None)) -> Tensor:
        """Return the represented weights, float32 [rows, in]."""
        values = self.centered(rows)
        by_group = values.view(len(values), -1, self.group).mul_(self.scale[rows].unsqueeze(-1))
        if self.base is not None:
            by_group.add_(self.base[rows].unsqueeze(-1))
        return values

    def above_base(self, weight: Tensor) -> Tensor:
        """Return a weight [out, in] minus the bases of its groups."""
        if self.base is None:
            return weight
        return (weight.view(len(weight), -1, self.group) - self.base.unsqueeze(-1)).view(weight.shape)

    def with_levels(self, levels: Tensor) -> Levels:
        """Return other levels with the same scales."""
        return replace(self, levels=levels)

    def with_blocks(self, blocks: BlockScales) -> Levels:
        """Return the same levels with other scales of the block type."""
        return block_levels(self.scheme, self.levels, blocks)

    def rows(self, index: Tensor | slice) -> Levels:
        """Return the levels of some rows."""
        return Levels(
            self.scheme,
            self.levels[index],
            self.scale[index],
            self.zero[index],
            None if self.base is None else self.base[index],
            None if self.blocks is None else self.blocks.rows(index),
        )


def block_levels(scheme: LayerScheme, levels: Tensor, blocks: BlockScales) -> Levels:
    """Return levels of a block type with these scales."""
    scale, base = blocks.steps()
    zero = torch.full_like(scale, scheme.levels // 2 if scheme.sym and not scheme.code_book else 0)
    return Levels(scheme, levels, scale, zero, base, blocks)


def book_arrays(scheme: LayerScheme) -> tuple[NDArray[np.float32] | None, NDArray[np.uint8] | None]:
    """Return the values and the nearest integers of the code book of a scheme for compiled loops; None without one."""
    if not scheme.code_book:
        return None, None
    return code_values(scheme.type).numpy(), nearest_in_cell(scheme.type).numpy()


def joined_levels(parts: list[Levels]) -> Levels:
    """Return the rows of several matrices with the same scheme as one."""
    if len(parts) == 1:
        return parts[0]
    levels = torch.cat([part.levels for part in parts])
    blocks = [part.blocks for part in parts if part.blocks is not None]
    if blocks:
        return block_levels(parts[0].scheme, levels, joined_scales(blocks))
    scale, zero = torch.cat([part.scale for part in parts]), torch.cat([part.zero for part in parts])
    return Levels(parts[0].scheme, levels, scale, zero)


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
