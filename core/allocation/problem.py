"""The bits map that has the smallest predicted loss increase within a budget.

The budget is never exceeded, fused groups and pins hold, and the map that comes out resolves to exactly what was
chosen. How
good the choice is depends on the table: loss increases are assumed to add up over layers. Knows no tensor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from core.allocation.choices import Ints, Problem, build
from core.allocation.knapsack import solve
from core.allocation.request import AllocationRequest, Budget, parse_size
from core.bitsmap import BitsMap
from core.errors import BadInput
from core.estimation.goals import Footprint, conversation_bytes
from core.estimation.sizes import OutputSize, layer_bytes, output_size, quantized_bytes
from core.formats import engines
from core.model.tree import ModelTree, resolve_schemes
from core.wording import human

if TYPE_CHECKING:
    from core.sensitivity.table import SensitivityTable

__all__ = ["Allocation", "AllocationRequest", "Budget", "allocate", "parse_size"]


@dataclass(frozen=True)
class Allocation:
    """What was chosen.

    Attributes:
        bits_map: resolves to the choice.
        loss_increase: predicted, nats a token.
        bound: no choice within the budget does less.
        exact: this is the best choice, not only a good one.
        cost: bytes of the output.
        size: the same, in parts.
        bits: per weight, as a budget of `bpw` counts them.
        notes: what somebody should know of it, each a sentence.
    """

    bits_map: BitsMap
    loss_increase: float
    bound: float
    exact: bool
    cost: int
    size: OutputSize
    bits: float
    notes: tuple[str, ...]


def allocate(tree: ModelTree, table: SensitivityTable, request: AllocationRequest) -> Allocation:
    """The best map within the budget.

    Raises:
        BadInput: the budget cannot be met (with what it would take at least, and why), or see `choices.build`.
    """
    problem = build(tree, table, request)
    cost = problem.counted if request.budget.kind == "bpw" else problem.in_file
    room = _available_bytes(problem)
    allowed = np.where(np.isfinite(problem.loss_increase), cost, np.iinfo(np.int64).max).min(axis=1, initial=1 << 62)
    least = int(allowed.sum()) if len(allowed) else 0
    if least > room:
        raise _budget_error(problem, cost, allowed, room)
    solution = solve(problem.units(cost), room)
    picks = np.array(solution.picks, np.int64)
    bits_map = problem.bits_map(picks)
    plans = resolve_schemes(tree, bits_map)
    if request.engine:
        refusals = [mark for mark in engines.check(request.engine, tree, plans, request.format_name) if mark.cannot]
        if refusals:
            raise BadInput(
                f"{engines.title(request.engine)} would not run this: {refusals[0].sentence()}",
                "Choose another engine, another format or symmetric layers.",
            )
    return Allocation(
        bits_map,
        solution.loss_increase,
        solution.bound,
        solution.exact,
        problem.fixed + int(problem.in_file[np.arange(len(picks)), picks].sum()),
        output_size(tree, plans, request.format_name),
        problem.bits(picks),
        problem.notes,
    )


def overhead(tree: ModelTree) -> int:
    """Bytes of memory that running takes beside the output's tensors."""
    return Footprint(0, conversation_bytes(tree)).total


def _available_bytes(problem: Problem) -> int:
    """Bytes that the budget leaves for the units; perhaps less than none."""
    budget = problem.request.budget
    if budget.kind == "bpw":
        return math.floor(Fraction(repr(float(budget.value))) * problem.weights / 8)  # as the decimals say
    spent = problem.fixed + (overhead(problem.tree) if budget.kind == "ram" else 0)
    return math.floor(budget.value) - spent


def _budget_error(problem: Problem, cost: Ints, least: Ints, room: int) -> BadInput:
    """Why not: what stays, and what pins and minimum add to the fewest bits that could be chosen."""
    budget = problem.request.budget
    total = int(least.sum())
    needed = budget.value + total - room if budget.kind != "bpw" else 8 * total / problem.weights
    lowest = _lowest_bytes(problem)
    parts = []
    if budget.kind == "ram":
        parts.append(f"{human(overhead(problem.tree))} are for a conversation and the program")
    if budget.kind != "bpw":
        kept = problem.fixed + int(least[lowest == 0].sum())
        parts.append(f"{human(kept)} stay as they are")
    pinned = problem.pinned
    extra = np.where(lowest > 0, least - lowest, 0)
    for flags, words in ((pinned, "pins"), (problem.raised & ~pinned, "minimum bits")):
        added = int(extra[flags].sum())
        if added > 0:
            parts.append(f"{words} add {budget.label(8 * added / problem.weights if budget.kind == 'bpw' else added)}")
    reason = f" ({', '.join(parts)})" if parts else ""
    return BadInput(
        f"At least {_minimum_label(budget, needed)} are needed{reason}, and {budget.label()} are allowed.",
        "Allow more, or fewer bits: loosen pins and minimum, or add smaller choices.",
    )


def _minimum_label(budget: Budget, needed: float) -> str:
    """The least as people read it, rounded up where rounding down would name what is not enough."""
    if budget.kind == "bpw":
        return f"{math.ceil(needed * 1000) / 1000:.4g} bits a weight"
    return human(needed) if human(needed) != budget.label() else f"{math.ceil(needed):,} bytes"


def _lowest_bytes(problem: Problem) -> Ints:
    """Bytes of each unit at the fewest bits of the choices, whatever pins and minimum say; 0 where it stays."""
    request, tree = problem.request, problem.tree
    scheme = request.schemes()[0]
    known: dict[tuple[int, int, int], int] = {}
    for shape in set(tree.weights):
        fitted, _ = scheme.fit(shape[0], shape[1])
        known[shape] = layer_bytes(*shape[:2], fitted, request.format_name, 0) if fitted.quantized else 0
        if fitted.quantized and request.budget.kind == "bpw":
            known[shape] = quantized_bytes(*shape[:2], fitted, request.format_name)
    values = np.array([known[shape] for shape in tree.weights], np.int64)
    least = np.bincount(problem.unit_of, values, len(problem.loss_increase)).astype(np.int64)
    return np.where(problem.kept, 0, least)
