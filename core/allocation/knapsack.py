"""The multiple-choice knapsack: one choice per unit that minimizes the total loss increase within a budget of bytes.

The linear relaxation is solved by a sort. Dominated choices are removed, the lower convex hull of each unit is a
sequence of upgrades, and upgrades are taken in decreasing order of the loss that they save per byte until one does not
fit. The saving per byte of that upgrade is the price of a byte. In an optimal solution only few units differ from their
best choice at that price: units are added to the search in increasing order of the penalty of their second-best choice,
only sums that are not dominated are kept, and the search ends when no remaining unit can improve the solution (D.
Pisinger, "A minimal algorithm for the multiple-choice knapsack problem", European Journal of Operational Research 83,
1995). Sums with equal bytes are merged, so the bytes need not be divided by a common divisor.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import overload

import numpy as np
from numpy.typing import NDArray

from core.errors import BadInput
from core.wording import human

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_FORBIDDEN = 1 << 60
"""Bytes of a choice that a unit does not have; its loss increase is infinite."""
_MAX_SUMS = 60_000
"""Maximum number of sums kept from one unit to the next. Beyond it, the solution is not proved to be optimal."""
_MAX_WORK = 5_000_000
"""Maximum number of sums examined in a search, which takes about a second."""
_NOISE = 1e-12
"""Relative difference of loss increases below which they are considered equal."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A choice of a unit: its cost in bytes and its loss increase, which is finite and not negative."""

    cost: int
    loss_increase: float


@dataclass(frozen=True, eq=False)
class ChoiceTable:
    """The choices of all units as arrays [unit, choice]. A choice that a unit does not have has infinite loss increase.

    Attributes:
        cost: Bytes.
        loss_increase: Loss increases.
    """

    cost: Ints
    loss_increase: Floats

    @staticmethod
    def of(units: Sequence[Sequence[Choice]]) -> ChoiceTable:
        """Build the table from the choices of each unit."""
        width = max((len(choices) for choices in units), default=1)
        cost = np.full((len(units), width), _FORBIDDEN, np.int64)
        loss_increase = np.full((len(units), width), np.inf)
        for row, choices in enumerate(units):
            cost[row, : len(choices)] = [choice.cost for choice in choices]
            loss_increase[row, : len(choices)] = [choice.loss_increase for choice in choices]
        return ChoiceTable(cost, loss_increase)


@dataclass(frozen=True)
class Solution:
    """A solution of the knapsack.

    Attributes:
        picks: Index of the choice of each unit.
        cost: Total bytes, at most the budget.
        loss_increase: Total loss increase.
        bound: Lower bound of the loss increase of any picks within the budget.
        exact: The picks are optimal, up to rounding.
    """

    picks: tuple[int, ...]
    cost: int
    loss_increase: float
    bound: float
    exact: bool


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """A point of a `Curve`: a solution that is optimal for its cost. `Curve.picks(index)` returns its picks."""

    index: int
    cost: int
    loss_increase: float


class Curve(Sequence[CurvePoint]):
    """The lower convex hull of the (bytes, loss increase) of all possible picks, in increasing order of bytes.

    Attributes:
        units, choices: Unit and new choice of the upgrade that leads to each point but the first.
        costs, loss_increases: Bytes and loss increase of each point. Bytes increase and loss increases decrease.
        prices: Loss increase that each upgrade saves per byte, in decreasing order.
    """

    def __init__(self, table: ChoiceTable) -> None:
        self._start, self.units, self.choices, spent, saved, self.prices = _upgrades(table)
        rows = np.arange(len(table.cost))
        first_cost = int(table.cost[rows, self._start].sum())
        first_loss_increase = math.fsum(table.loss_increase[rows, self._start].tolist())
        self.costs: Ints = np.concatenate(([first_cost], first_cost + np.cumsum(spent)))
        # summed from the last point, where loss increases are small and rounding errors would matter
        last = first_loss_increase - math.fsum(saved.tolist())
        self.loss_increases: Floats = max(last, 0.0) + np.concatenate((np.cumsum(saved[::-1])[::-1], [0.0]))

    def __len__(self) -> int:
        return len(self.costs)

    @overload
    def __getitem__(self, index: int) -> CurvePoint: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[CurvePoint]: ...
    def __getitem__(self, index: int | slice) -> CurvePoint | Sequence[CurvePoint]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        number = range(len(self))[index]
        return CurvePoint(number, int(self.costs[number]), float(self.loss_increases[number]))

    def picks(self, index: int) -> Ints:
        """Return the choice of each unit at a point."""
        picks = self._start.copy()
        # numpy assigns in order, so the last upgrade of a unit takes effect
        picks[self.units[:index]] = self.choices[:index]
        return picks

    def within(self, budget: int) -> int:
        """Return the index of the last point that costs no more than `budget`, or -1."""
        return int(np.searchsorted(self.costs, budget, side="right")) - 1


def curve(units: ChoiceTable | Sequence[Sequence[Choice]]) -> Curve:
    """Return the solutions of the linear relaxation for all budgets. Takes one sort."""
    return Curve(units if isinstance(units, ChoiceTable) else ChoiceTable.of(units))


def solve(units: ChoiceTable | Sequence[Sequence[Choice]], budget: int) -> Solution:
    """Return the picks with the smallest loss increase that cost at most `budget` bytes.

    Raises:
        BadInput: The cheapest picks cost more than the budget; the message has their cost.
    """
    table = units if isinstance(units, ChoiceTable) else ChoiceTable.of(units)
    hull = Curve(table)
    point = hull.within(budget)
    if point < 0:
        raise BadInput(
            f"At least {human(int(hull.costs[0]))} are needed, and {human(budget)} are allowed.",
            "Increase the budget.",
        )
    found = _solve_near(table, hull, point, budget)
    return found if found.exact else _solve_by_choice(table, int(hull.units[point]), budget, found)


def _solve_near(table: ChoiceTable, hull: Curve, point: int, budget: int) -> Solution:
    """Search for the best picks near the last point of the hull within the budget."""
    picks, price, exact = hull.picks(point), 0.0, True
    slack = budget - int(hull.costs[point])
    if point < len(hull.prices):
        price = float(hull.prices[point])
        picks, exact = _search(table, picks, price, slack, noise=_NOISE * float(hull.loss_increases[0]))
    rows = np.arange(len(picks))
    cost, loss_increase = int(table.cost[rows, picks].sum()), math.fsum(table.loss_increase[rows, picks].tolist())
    relaxed = max(float(hull.loss_increases[point]) - price * slack, 0.0)
    return Solution(
        tuple(picks.tolist()), cost, loss_increase, loss_increase if exact else min(relaxed, loss_increase), exact
    )


def _solve_by_choice(table: ChoiceTable, unit: int, budget: int, known: Solution) -> Solution:
    """Solve the problem once for each choice of one unit, and return the best solution.

    A unit that is much larger than the others, for example a group of fused experts, makes the search hard. With its
    choice fixed, the rest of the problem is easier.
    """
    found = []
    for choice in np.flatnonzero(np.isfinite(table.loss_increase[unit])).tolist():
        loss_increase = table.loss_increase.copy()
        loss_increase[unit, np.arange(loss_increase.shape[1]) != choice] = np.inf
        part = ChoiceTable(table.cost, loss_increase)
        hull = Curve(part)
        point = hull.within(budget)
        if point >= 0:
            found.append(_solve_near(part, hull, point, budget))
    best = min([known, *found], key=lambda solution: solution.loss_increase)
    bound = max(known.bound, min(part.bound for part in found))
    exact = all(part.exact for part in found)
    return replace(best, bound=best.loss_increase if exact else min(bound, best.loss_increase), exact=exact)


def _upgrades(table: ChoiceTable) -> tuple[Ints, Ints, Ints, Ints, Floats, Floats]:
    """Return the cheapest picks, and all upgrades in decreasing order of their price.

    The hull of a unit starts at its cheapest choice and continues with the choice that saves the most per byte; among
    equal ones, with the most expensive.

    Returns:
        The cheapest picks [unit]; then for each upgrade its unit, choice, additional bytes, saved loss and price.
    """
    cost, loss_increase = table.cost, table.loss_increase
    count, width = cost.shape
    rows = np.arange(count)
    allowed = np.where(np.isfinite(loss_increase), cost, _FORBIDDEN)
    least = allowed.min(axis=1, initial=_FORBIDDEN)
    start = np.where(allowed == least[:, None], loss_increase, np.inf).argmin(axis=1) if width else rows
    here, price = start, np.full(count, np.inf)
    steps = []
    for _ in range(width - 1):
        spent = cost - cost[rows, here][:, None]
        saved = loss_increase[rows, here][:, None] - loss_increase
        with np.errstate(divide="ignore", invalid="ignore"):
            value = np.where((spent > 0) & (saved > 0), saved / spent, -1.0)
        farthest = np.where(value == value.max(axis=1)[:, None], spent, -1).argmax(axis=1)
        best = value[rows, farthest]
        going = np.flatnonzero(best >= 0)
        if not len(going):
            break
        to = farthest[going]
        price[going] = np.minimum(price[going], best[going])  # rounding must not change the order of upgrades
        steps.append((going, to, spent[going, to], saved[going, to], price[going].copy()))
        here = here.copy()
        here[going] = to
    if not steps:
        none = np.zeros(0, np.int64)
        return start, none, none, none, np.zeros(0), np.zeros(0)
    unit, choice, spent, saved, value = (np.concatenate(part) for part in zip(*steps, strict=True))
    order = np.argsort(-value, kind="stable")  # a stable sort preserves the order of upgrades of one unit
    return start, unit[order], choice[order], spent[order], saved[order], value[order]


def _search(table: ChoiceTable, base: Ints, price: float, slack: int, noise: float) -> tuple[Ints, bool]:
    """Search for the best picks near `base`; return them, and whether they are proved to be optimal.

    A sum is the change in bytes and loss increase when some units take other choices than in `base`. Since `base` is
    optimal at the price, no other choice decreases loss_increase + price * bytes (`reduced`). A sum whose increase
    exceeds the gap between the best picks so far and the relaxation cannot lead to a better solution.

    Args:
        base: Optimal picks at `price` [unit].
        price: Loss increase per byte.
        slack: Bytes of the budget that `base` leaves.
        noise: Gap below which the search ends.
    """
    rows = np.arange(len(base))
    spent = table.cost - table.cost[rows, base][:, None]
    change = table.loss_increase - table.loss_increase[rows, base][:, None]
    reduced = np.maximum(change + price * spent, 0.0)
    reduced[rows, base] = np.inf
    nearest = reduced.min(axis=1)
    reduced[rows, base] = 0.0
    gap = price * slack
    opened = np.flatnonzero(nearest < gap)
    opened = opened[np.argsort(nearest[opened], kind="stable")]
    possible = np.where(reduced[opened] < gap, spent[opened], 0)
    # the bytes that the remaining units can still save and add
    down = np.append(np.cumsum(possible.min(axis=1, initial=0)[::-1])[::-1], 0)
    up = np.append(np.cumsum(possible.max(axis=1, initial=0)[::-1])[::-1], 0)

    costs, loss_increases = np.zeros(1, np.int64), np.zeros(1)
    trail: list[tuple[NDArray[np.intp], NDArray[np.intp]]] = []
    found, best, exact, work = (-1, 0), 0.0, True, 0
    for stage, unit in enumerate(opened.tolist()):
        if nearest[unit] >= gap or gap <= noise:
            break
        options = np.flatnonzero(reduced[unit] < gap)
        work += len(costs) * len(options)
        if work > _MAX_WORK:
            exact = False
            break
        new_costs = (costs[:, None] + spent[unit, options]).ravel()
        new_loss_increases = (loss_increases[:, None] + change[unit, options]).ravel()
        worth = new_loss_increases + price * new_costs
        room = np.maximum(slack - new_costs - up[stage + 1], 0)
        kept = np.flatnonzero((worth + price * room < gap) & (new_costs + down[stage + 1] <= slack))
        if len(kept) > _MAX_SUMS:
            exact = False
            kept = kept[np.argpartition(worth[kept], _MAX_SUMS)[:_MAX_SUMS]]
        kept = kept[np.lexsort((new_loss_increases[kept], new_costs[kept]))]
        kept = kept[_falling(new_loss_increases[kept])]
        if not len(kept):
            break
        trail.append((kept // len(options), options[kept % len(options)]))
        costs, loss_increases = new_costs[kept], new_loss_increases[kept]
        last = int(np.searchsorted(costs, slack, side="right")) - 1
        if last >= 0 and loss_increases[last] < best:
            found, best = (stage, last), float(loss_increases[last])
            gap = best + price * slack
    return _trace_picks(base, opened, trail, *found), exact


def _falling(values: Floats) -> NDArray[np.bool_]:
    """Return a flag for each value: true if it is less than all values before it."""
    if not len(values):
        return np.zeros(0, np.bool_)
    lowest = np.minimum.accumulate(values)
    return np.concatenate(([True], values[1:] < lowest[:-1]))


def _trace_picks(
    base: Ints, opened: Ints, trail: list[tuple[NDArray[np.intp], NDArray[np.intp]]], stage: int, place: int
) -> Ints:
    """Return the picks that lead to the sum at index `place` after stage `stage` of the search."""
    picks = base.copy()
    while stage >= 0:
        parents, options = trail[stage]
        picks[opened[stage]] = options[place]
        place = int(parents[place])
        stage -= 1
    return picks
