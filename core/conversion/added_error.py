"""How far the weights of an output are from its source's: the figures that a conversion reports.

Sums are taken in float64, over some rows at a time, so that temporaries stay small. Knows matrices, not formats.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from core.formats.stored import StoredLayer, by_rows
from core.model.weights import TensorStore

_PIECE = 1 << 19
"""Weights that are looked at together: few enough for a processor's cache."""


@dataclass(frozen=True)
class Difference:
    """How far two tensors of the same shape are apart.

    Attributes:
        largest: absolute difference.
        squared: sum of the squared differences.
        of: sum of the squares of the first tensor.
    """

    largest: float = 0.0
    squared: float = 0.0
    of: float = 0.0

    @property
    def relative_rms(self) -> float:
        """Root of the mean squared difference, as a share of the root mean square of the first; inf from all zeros."""
        if self.squared == 0:
            return 0.0
        return math.sqrt(self.squared / self.of) if self.of else math.inf

    @property
    def exact(self) -> bool:
        """Whether all numbers are equal; a NaN on either side is a difference."""
        return self.largest == 0

    def __add__(self, other: Difference) -> Difference:
        # max() would lose a NaN that comes second
        largest = self.largest if self.largest >= other.largest or math.isnan(self.largest) else other.largest
        return Difference(largest, self.squared + other.squared, self.of + other.of)


@dataclass
class AddedError:
    """The differences of all tensors of an output so far; grows with every `add`."""

    total: Difference = Difference()
    differing: int = 0
    worst: tuple[str, float] = field(default=("", 0.0))

    def add(self, name: str, found: Difference) -> None:
        """Count a tensor in."""
        self.total += found
        self.differing += not found.exact
        if not found.exact and (not self.worst[0] or found.relative_rms > self.worst[1]):
            self.worst = (name, found.relative_rms)

    def to_json(self) -> dict[str, Any]:
        """Largest absolute difference, the relative root mean square over all weights, and the worst tensor's."""
        return {
            "largest_difference": self.total.largest,
            "relative_rms": self.total.relative_rms,
            "changed_tensors": self.differing,
            "worst_tensor": {"name": self.worst[0], "relative_rms": self.worst[1]},
        }


def between(before: Tensor, after: Tensor) -> Difference:
    """How far `after` is from `before`, of one shape."""
    first, second = before.detach().reshape(-1), after.detach().reshape(-1)
    if first.shape != second.shape:
        raise ValueError(f"{tuple(before.shape)} and {tuple(after.shape)} cannot be compared")
    found = Difference()
    for start in range(0, len(first), _PIECE):
        one, other = first[start : start + _PIECE].float(), second[start : start + _PIECE].float()
        if torch.equal(one, other):
            found += Difference(0.0, 0.0, _square(one))
        else:
            apart = other - one
            found += Difference(float(apart.abs().max()), _square(apart), _square(one))
    return found


def _square(values: Tensor) -> float:
    """Sum of the squares, added up in float64."""
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def of_layers(before: StoredLayer, after: StoredLayer) -> Difference:
    """How far the weights of `after` are from those of `before`."""
    found, step = Difference(), max(1, _PIECE // max(1, before.ints.shape[1]))
    for one, other in zip(by_rows(before, step), by_rows(after, step), strict=True):
        found += between(one, other)
    return found


def of_tensors(name: str, before: TensorStore, after: TensorStore) -> Difference:
    """How far a tensor of one store is from its namesake in another."""
    shape = before.info(name).shape
    if len(shape) != 2 or not shape[0] or not shape[1]:
        return between(before.get(name), after.get(name)) if 0 not in shape else Difference()
    found = Difference()
    for index in _rows(*shape):
        found += between(before.rows(name, index), after.rows(name, index))
    return found


def _rows(height: int, width: int) -> Iterator[Tensor]:
    step = max(1, _PIECE // max(1, width))
    for start in range(0, height, step):
        yield torch.arange(start, min(height, start + step))
