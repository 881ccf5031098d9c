"""Every budget at once: the smallest loss increase at each output size, quick enough to click on.

The points are the lower convex hull, where each is the best there is for its size; between two of them `allocate` may
find a little better. A sort, so 20,000 layers take a fraction of a second.
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
    """One point: bytes of the whole output, bits per weight as a budget counts them, predicted loss increase."""

    bytes: int
    bits: float
    loss_increase: float


class Pareto:
    """The points from the smallest output to the smallest loss increase, and the map of each.

    Attributes:
        bytes, bits, loss increase: of all points.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._curve: Curve = curve(problem.units(problem.in_file))
        start = self._curve.picks(0)
        rows = np.arange(len(start))
        before = start.copy()
        # What each upgrade leaves behind: of one unit's upgrades, the one before it.
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
        """All points one by one; the arrays are quicker."""
        values = zip(self.bytes.tolist(), self.bits.tolist(), self.loss_increase.tolist(), strict=True)
        return [ParetoPoint(*value) for value in values]

    def within(self, size: int) -> int:
        """The last point whose output has no more than `size` bytes; -1 if none has."""
        return int(np.searchsorted(self.bytes, size, side="right")) - 1

    def map_at(self, index: int) -> BitsMap:
        """The map of one point."""
        return self._problem.bits_map(self._curve.picks(range(len(self))[index]))


def pareto(tree: ModelTree, table: SensitivityTable, request: AllocationRequest) -> Pareto:
    """The curve of a request, whatever its budget.

    Raises:
        BadInput: see `choices.build`.
    """
    return Pareto(build(tree, table, request))
