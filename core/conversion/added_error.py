"""The error that a conversion adds: differences between the weights of a source and of its output.

Sums are computed in float64, a few rows at a time to keep temporaries small.
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
"""Weights that are compared at a time, so that they fit into the processor cache."""


@dataclass(frozen=True)
class Difference:
    """The difference between two tensors of the same shape.

    Attributes:
        largest: largest absolute difference.
        squared: sum of the squared differences.
        of: sum of the squares of the first tensor.
    """

    largest: float = 0.0
    squared: float = 0.0
    of: float = 0.0

    @property
    def relative_rms(self) -> float:
        """RMS of the difference divided by the RMS of the first tensor; inf if only the first tensor is all zeros."""
        if self.squared == 0:
            return 0.0
        return math.sqrt(self.squared / self.of) if self.of else math.inf

    @property
    def exact(self) -> bool:
        """True if all values are equal; a NaN counts as a difference."""
        return self.largest == 0

    def __add__(self, other: Difference) -> Difference:
        # max() would drop a NaN in the second argument
        largest = self.largest if self.largest >= other.largest or math.isnan(self.largest) else other.largest
        return Difference(largest, self.squared + other.squared, self.of + other.of)


@dataclass
class AddedError:
    """The accumulated differences of the tensors of an output.

    Attributes:
        total: sum over all tensors.
        differing: number of tensors that differ.
        worst: name and relative RMS of the tensor with the largest relative RMS.
    """

    total: Difference = Difference()
    differing: int = 0
    worst: tuple[str, float] = field(default=("", 0.0))

    def add(self, name: str, found: Difference) -> None:
        """Add the difference of a tensor."""
        self.total += found
        self.differing += not found.exact
        if not found.exact and (not self.worst[0] or found.relative_rms > self.worst[1]):
            self.worst = (name, found.relative_rms)

    def to_json(self) -> dict[str, Any]:
        """Return the largest absolute difference, the relative RMS of all weights, and the worst tensor."""
        return {
            "largest_difference": self.total.largest,
            "relative_rms": self.total.relative_rms,
            "changed_tensors": self.differing,
            "worst_tensor": {"name": self.worst[0], "relative_rms": self.worst[1]},
        }


def between(before: Tensor, after: Tensor) -> Difference:
    """Return the difference between two tensors of the same shape."""
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
    """Return the sum of squares, accumulated in float64."""
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2


def of_layers(before: StoredLayer, after: StoredLayer) -> Difference:
    """Return the difference between the weights of two layers."""
    found, step = Difference(), max(1, _PIECE // max(1, before.ints.shape[1]))
    for one, other in zip(by_rows(before, step), by_rows(after, step), strict=True):
        found += between(one, other)
    return found


def of_tensors(name: str, before: TensorStore, after: TensorStore) -> Difference:
    """Return the difference between the tensors of the same name in two stores."""
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
