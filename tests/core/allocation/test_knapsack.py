"""The knapsack, compared with all combinations of small problems and with the relaxation of large ones."""

from __future__ import annotations

import itertools
import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.allocation.knapsack import Choice, ChoiceTable, curve, solve
from core.errors import BadInput

CHOICES = st.builds(Choice, st.integers(0, 60), st.floats(0, 10))
UNITS = st.lists(st.lists(CHOICES, min_size=1, max_size=4), min_size=1, max_size=6)


def combinations(units: list[list[Choice]]) -> list[tuple[int, float]]:
    return [
        (sum(choice.cost for choice in picks), math.fsum(choice.loss_increase for choice in picks))
        for picks in itertools.product(*units)
    ]


def many(count: int, seed: int, step: int = 1) -> list[list[Choice]]:
    """Return units like layers of a few shapes: with more bits, loss increases fall and bytes rise."""
    numbers = random.Random(seed)
    units = []
    for _ in range(count):
        size, scale = numbers.choice((3, 9, 8, 24, 97)) * step, numbers.lognormvariate(0, 1.5)
        units.append([Choice(size * bits, scale * 4.0**-bits * numbers.uniform(0.8, 1.2)) for bits in (2, 3, 4, 8)])
    return units


@given(UNITS, st.integers(0, 400))
def test_no_combination_within_the_budget_has_a_smaller_loss_increase(units: list[list[Choice]], budget: int) -> None:
    possible = [loss_increase for cost, loss_increase in combinations(units) if cost <= budget]
    if not possible:
        with pytest.raises(BadInput):
            solve(units, budget)
        return
    solution = solve(units, budget)
    assert solution.exact
    assert solution.loss_increase == pytest.approx(min(possible), rel=1e-9, abs=1e-9)


@given(UNITS, st.integers(0, 400))
def test_cost_and_loss_increase_are_the_sums_of_the_picks(units: list[list[Choice]], budget: int) -> None:
    try:
        solution = solve(units, budget)
    except BadInput:
        return
    picked = [choices[pick] for choices, pick in zip(units, solution.picks, strict=True)]
    assert solution.cost == sum(choice.cost for choice in picked) <= budget
    assert solution.loss_increase == math.fsum(choice.loss_increase for choice in picked)


@given(UNITS, st.integers(0, 300), st.integers(0, 100))
def test_more_budget_never_raises_the_loss_increase(units: list[list[Choice]], budget: int, more: int) -> None:
    try:
        less = solve(units, budget)
    except BadInput:
        return
    assert solve(units, budget + more).loss_increase <= less.loss_increase + 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [0.26, 0.4, 0.55, 0.9])
def test_many_units_come_within_one_upgrade_of_the_relaxation(seed: int, share: float) -> None:
    units = many(3000, seed)
    budget = int(share * sum(choices[-1].cost for choices in units))
    solution, hull = solve(units, budget), curve(units)
    point = hull.within(budget)
    relaxed = hull.loss_increases[point] - hull.prices[point] * (budget - hull.costs[point])
    assert solution.cost <= budget
    assert solution.exact
    assert relaxed - 1e-9 <= solution.loss_increase <= hull.loss_increases[point] + 1e-9


def test_bytes_without_a_common_divisor_are_solved_exactly() -> None:
    numbers = random.Random(3)
    units = [[Choice(numbers.randrange(10**6, 10**9), numbers.random()) for _ in range(4)] for _ in range(300)]
    budget = sum(min(choice.cost for choice in choices) for choices in units) * 3 // 2
    solution = solve(units, budget)
    assert solution.exact
    assert solution.cost <= budget


def test_a_unit_as_large_as_all_others_is_solved_for_each_of_its_choices() -> None:
    units = many(2000, 5)
    whole = [Choice(sum(choices[i].cost for choices in units), 5 * 4.0**-i) for i in range(4)]
    budget = int(1.1 * whole[1].cost + sum(choices[0].cost for choices in units))
    solution = solve([whole, *units], budget)
    rest = {
        pick: solve(units, budget - whole[pick].cost).loss_increase + whole[pick].loss_increase
        for pick in range(4)
        if whole[pick].cost + sum(choices[0].cost for choices in units) <= budget
    }
    assert solution.loss_increase == pytest.approx(min(rest.values()), rel=1e-9)
    assert solution.exact


def test_a_limited_search_is_not_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.allocation.knapsack._MAX_WORK", 3)
    numbers = random.Random(2)
    units = [[Choice(numbers.randrange(1, 10**9), numbers.random()) for _ in range(4)] for _ in range(40)]
    budget = sum(min(choice.cost for choice in choices) for choices in units) * 2
    solution = solve(units, budget)
    assert not solution.exact
    assert solution.bound < solution.loss_increase
    assert solution.cost <= budget


def test_the_error_for_a_small_budget_has_the_minimum() -> None:
    with pytest.raises(BadInput, match="At least 7 kB are needed, and 6 kB are allowed"):
        solve([[Choice(3000, 1), Choice(5000, 0)], [Choice(4000, 1)]], 6000)


def test_a_dominated_choice_is_never_picked() -> None:
    assert solve([[Choice(5, 1.0), Choice(9, 2.0), Choice(5, 3.0)]], 100).picks == (0,)


def test_without_units_the_solution_is_empty() -> None:
    solution = solve([], 0)
    assert (solution.picks, solution.cost, solution.loss_increase, solution.exact) == ((), 0, 0.0, True)


@given(UNITS)
def test_the_curve_is_the_lower_hull_of_all_combinations(units: list[list[Choice]]) -> None:
    hull = curve(units)
    every = combinations(units)
    costs, loss_increases = hull.costs.tolist(), hull.loss_increases.tolist()
    assert costs[0] == min(cost for cost, _ in every)
    assert loss_increases[-1] == pytest.approx(min(loss_increase for _, loss_increase in every), abs=1e-9)
    for cost, loss_increase in every:
        assert loss_increase >= np.interp(cost, costs, loss_increases) - 1e-9


@given(UNITS)
def test_the_picks_of_a_point_have_its_cost_and_loss_increase(units: list[list[Choice]]) -> None:
    hull = curve(units)
    table = ChoiceTable.of(units)
    rows = np.arange(len(units))
    for point in hull:
        picks = hull.picks(point.index)
        assert table.cost[rows, picks].sum() == point.cost
        assert table.loss_increase[rows, picks].sum() == pytest.approx(point.loss_increase, abs=1e-9)


def test_points_rise_in_bytes_and_fall_in_loss_increase() -> None:
    hull = curve(many(500, 1))
    assert (np.diff(hull.costs) > 0).all()
    assert (np.diff(hull.loss_increases) <= 0).all()
    assert (np.diff(hull.prices) <= 0).all()
    assert [hull[-1].index, len(hull[2:4])] == [len(hull) - 1, 2]
    assert (hull.within(int(hull.costs[5])), hull.within(int(hull.costs[0]) - 1)) == (5, -1)
