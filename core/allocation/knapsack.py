"""One choice for each of many units, so that the loss increase is smallest and bytes stay within a budget. Knows no
layers.

This is the multiple-choice knapsack. Its linear relaxation is solved by a sort: dominated choices go, the rest of each
unit's lower convex hull is a row of upgrades, and all upgrades are taken by the loss increase that a byte saves until
one does not fit. What that last upgrade saves for a byte is the price of a byte. No unit can be far from its best
choice at that
price: units are opened in the order of how little another choice costs them there, the sums that are not dominated are
kept, and the search is over when no closed unit could still pay (D. Pisinger, A minimal algorithm for the
multiple-choice knapsack problem, European Journal of Operational Research 83, 1995). Sums of equal bytes are one sum,
so the bytes need no common divisor to be divided by first.
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
"""Sums that are kept from one unit to the next; more, and the answer is no longer certain to be the best."""
_MAX_WORK = 5_000_000
"""Sums that are looked at in all: about a second."""
_NOISE = 1e-12
"""Share of the loss increase below which a difference is rounding."""


@dataclass(frozen=True, slots=True)
class Choice:
    """What a unit may get: `cost` in bytes, and its loss increase, finite and not negative."""

    cost: int
    loss_increase: float


@dataclass(frozen=True, eq=False)
class ChoiceTable:
    """Many units as arrays [unit, choice]; a choice that a unit does not have has infinite loss increase."""

    cost: Ints
    loss_increase: Floats

    @staticmethod
    def of(units: Sequence[Sequence[Choice]]) -> ChoiceTable:
        """From choices one by one."""
        width = max((len(choices) for choices in units), default=1)
        cost = np.full((len(units), width), _FORBIDDEN, np.int64)
        loss_increase = np.full((len(units), width), np.inf)
        for row, choices in enumerate(units):
            cost[row, : len(choices)] = [choice.cost for choice in choices]
            loss_increase[row, : len(choices)] = [choice.loss_increase for choice in choices]
        return ChoiceTable(cost, loss_increase)


@dataclass(frozen=True)
class Solution:
    """Which choice each unit gets.

    Attributes:
        picks: index of the choice, by unit.
        cost: bytes of all picks, at most the budget.
        loss_increase: of all picks.
        bound: no picks within the budget have a smaller loss increase than this.
        exact: these picks are the best (but for rounding), not only good ones.
    """

    picks: tuple[int, ...]
    cost: int
    loss_increase: float
    bound: float
    exact: bool


@dataclass(frozen=True, slots=True)
class CurvePoint:
    """One budget that is spent to the last byte as well as any; `Curve.picks` of its index says how."""

    index: int
    cost: int
    loss_increase: float


class Curve(Sequence[CurvePoint]):
    """The lower convex hull of all (bytes, loss increase) that picks can reach, from the cheapest to the smallest loss
    increase.

    Attributes:
        units, choices: the upgrade that leads to each point but the first: this unit gets this choice now.
        costs, loss_increases: of each point; bytes rise and loss increase falls from one to the next.
        prices: loss increase that a byte of each upgrade saves, falling.
    """

    def __init__(self, table: ChoiceTable) -> None:
        self._start, self.units, self.choices, spent, saved, self.prices = _upgrades(table)
        rows = np.arange(len(table.cost))
        first_cost = int(table.cost[rows, self._start].sum())
        first_loss_increase = math.fsum(table.loss_increase[rows, self._start].tolist())
        self.costs: Ints = np.concatenate(([first_cost], first_cost + np.cumsum(spent)))
        # Summed from the far end, where loss increase is small and rounding would show.
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
        """The choice of each unit at a point."""
        picks = self._start.copy()
        # Of a unit's several upgrades the last one stands: numpy assigns in order.
        picks[self.units[:index]] = self.choices[:index]
        return picks

    def within(self, budget: int) -> int:
        """The last point that costs no more than `budget`; -1 if none does."""
        return int(np.searchsorted(self.costs, budget, side="right")) - 1


def curve(units: ChoiceTable | Sequence[Sequence[Choice]]) -> Curve:
    """The curve of all budgets; a sort, whatever their number."""
    return Curve(units if isinstance(units, ChoiceTable) else ChoiceTable.of(units))


def solve(units: ChoiceTable | Sequence[Sequence[Choice]], budget: int) -> Solution:
    """The picks with the smallest loss increase that cost at most `budget` bytes.

    Raises:
        BadInput: even the cheapest picks cost more; the message says how much.
    """
    table = units if isinstance(units, ChoiceTable) else ChoiceTable.of(units)
    hull = Curve(table)
    point = hull.within(budget)
    if point < 0:
        raise BadInput(
            f"At least {human(int(hull.costs[0]))} are needed, and {human(budget)} are allowed.", "Allow more."
        )
    found = _solve_near(table, hull, point, budget)
    return found if found.exact else _solve_by_choice(table, int(hull.units[point]), budget, found)


def _solve_near(table: ChoiceTable, hull: Curve, point: int, budget: int) -> Solution:
    """The best picks near the last point of the hull that the budget allows."""
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
    """The best over the choices of one unit, after each of which the rest is easier: one of many fused groups, say."""
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
    """The cheapest picks, and of all upgrades in the order of their price: unit, choice, bytes, saving, price.

    The hull of a unit is walked from its cheapest choice, each time to the choice that saves most for a byte; the
    farther one where two save the same.
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
        price[going] = np.minimum(price[going], best[going])  # rounding must not turn a row of upgrades around
        steps.append((going, to, spent[going, to], saved[going, to], price[going].copy()))
        here = here.copy()
        here[going] = to
    if not steps:
        none = np.zeros(0, np.int64)
        return start, none, none, none, np.zeros(0), np.zeros(0)
    unit, choice, spent, saved, value = (np.concatenate(part) for part in zip(*steps, strict=True))
    order = np.argsort(-value, kind="stable")  # stable: a unit's own upgrades stay in their order
    return start, unit[order], choice[order], spent[order], saved[order], value[order]


def _search(table: ChoiceTable, base: Ints, price: float, slack: int, noise: float) -> tuple[Ints, bool]:
    """The best picks near `base`, which are best at `price` and leave `slack` bytes; and whether surely the best.

    A sum is what some units' other choices add to bytes and loss increase. At the price, loss_increase + price * bytes
    never falls by another choice (`reduced`), so a sum whose own is more than the gap between the best picks so far and
    the relaxation leads nowhere.
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
    # What the units behind each can still take off and add.
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
    """Which values are less than all before them."""
    if not len(values):
        return np.zeros(0, np.bool_)
    lowest = np.minimum.accumulate(values)
    return np.concatenate(([True], values[1:] < lowest[:-1]))


def _trace_picks(
    base: Ints, opened: Ints, trail: list[tuple[NDArray[np.intp], NDArray[np.intp]]], stage: int, place: int
) -> Ints:
    """The picks that lead to the sum at `place` after the unit number `stage` was opened."""
    picks = base.copy()
    while stage >= 0:
        parents, options = trail[stage]
        picks[opened[stage]] = options[place]
        place = int(parents[place])
        stage -= 1
    return picks
