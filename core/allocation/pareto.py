"""The Pareto curve of an allocation: the smallest loss increase for every output size.

The points are the lower convex hull, each optimal for its size. Between two points, `allocate` may find a slightly
better solution. The computation is a sort, which takes a fraction of a second for 20,000 layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from core.allocation.choices import Problem, build
from core.allocation.knapsack import Curve, curve
from core.allocation.request import AllocationRequest
from core.bitsmap import BitsMap
from core.model.tree import ModelTree

if TYPE_CHECKING:
    from core.sensitivity.table import SensitivityTable


@dataclass(frozen=True, slots=True)
class ParetoPoint:
    """A point of the curve.

    Attributes:
        bytes: Bytes of the whole output.
        bits: Bits per weight, as a budget counts them.
        loss_increase: Predicted loss increase.
    """

    bytes: int
    bits: float
    loss_increase: float


class Pareto:
    """The points from the smallest output to the smallest loss increase, with the bits map of each.

    Attributes:
        bytes, bits, loss_increase: Arrays [point]; see `ParetoPoint`.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._curve: Curve = curve(problem.units(problem.in_file))
        start = self._curve.picks(0)
        rows = np.arange(len(start))
        before = start.copy()
        # the choice that each upgrade replaces: that of the unit's previous upgrade, or its first choice
        left = np.empty(len(self._curve.units), np.int64)
        order = np.argsort(self._curve.units, kind="stable")
        units, choices = self._curve.units[order], self._curve.choices[order]
        if len(units):
            same = np.concatenate(([False], units[1:] == units[:-1]))
            left[order] = np.where(same, np.roll(choices, 1), before[units])
        counted = problem.counted
        steps = counted[self._curve.units, self._curve.choices] - counted[self._curve.units, left]
        spent = int(counted[rows, start].sum()) + np.concatenate(([0], np.cumsum(steps)))
        self.bytes: NDArray[np.int64] = problem.fixed + self._curve.costs
        self.bits: NDArray[np.float64] = 8 * spent / max(problem.weights, 1)
        self.loss_increase: NDArray[np.float64] = self._curve.loss_increases

    def __len__(self) -> int:
        return len(self.bytes)

    @property
    def points(self) -> Sequence[ParetoPoint]:
        """All points. The arrays are faster."""
        values = zip(self.bytes.tolist(), self.bits.tolist(), self.loss_increase.tolist(), strict=True)
        return [ParetoPoint(*value) for value in values]

    def within(self, size: int) -> int:
        """Return the index of the last point whose output has at most `size` bytes, or -1."""
        return int(np.searchsorted(self.bytes, size, side="right")) - 1

    def map_at(self, index: int) -> BitsMap:
        """Return the bits map of a point."""
        return self._problem.bits_map(self._curve.picks(range(len(self))[index]))


def pareto(tree: ModelTree, table: SensitivityTable, request: AllocationRequest) -> Pareto:
    """Return the curve of a request; its budget is ignored.

    Raises:
        BadInput: See `choices.build`.
    """
    return Pareto(build(tree, table, request))
