"""Allocation of bits: the bits map with the smallest predicted loss increase within a budget.

The budget is never exceeded, fused groups, pins and minimums are respected, and the map resolves to exactly the chosen
schemes. The loss increases of the table are assumed to add up over the layers.
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
    """The result of an allocation.

    Attributes:
        bits_map: The bits map of the chosen schemes.
        loss_increase: Predicted loss increase, in the unit of the measure.
        bound: Lower bound of the loss increase of any map within the budget.
        exact: The map is optimal.
        cost: Bytes of the output.
        size: The parts of the output size.
        bits: Bits per weight, as a budget of kind `bpw` counts them.
        notes: Notes for the user, each a sentence.
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
    """Return the bits map with the smallest predicted loss increase within the budget.

    Raises:
        BadInput: The budget is too small (the message has the minimum and its parts), or see `choices.build`.
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
                f"{engines.title(request.engine)} cannot run this map: {refusals[0].sentence()}",
                "Choose another engine or format, or symmetric quantization.",
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
    """Return the bytes of memory that inference needs in addition to the tensors of the output."""
    return Footprint(0, conversation_bytes(tree)).total


def _available_bytes(problem: Problem) -> int:
    """Return the bytes that the budget leaves for the units; may be negative."""
    budget = problem.request.budget
    if budget.kind == "bpw":
        return math.floor(Fraction(repr(float(budget.value))) * problem.weights / 8)  # exact decimal arithmetic
    spent = problem.fixed + (overhead(problem.tree) if budget.kind == "ram" else 0)
    return math.floor(budget.value) - spent


def _budget_error(problem: Problem, cost: Ints, least: Ints, room: int) -> BadInput:
    """Return the error for a budget that is too small, with the minimum and the parts that it consists of."""
    budget = problem.request.budget
    total = int(least.sum())
    needed = budget.value + total - room if budget.kind != "bpw" else 8 * total / problem.weights
    lowest = _lowest_bytes(problem)
    parts = []
    if budget.kind == "ram":
        parts.append(f"{human(overhead(problem.tree))} are for one conversation and the program")
    if budget.kind != "bpw":
        kept = problem.fixed + int(least[lowest == 0].sum())
        parts.append(f"{human(kept)} are not quantized")
    pinned = problem.pinned
    extra = np.where(lowest > 0, least - lowest, 0)
    for flags, words in ((pinned, "pins"), (problem.raised & ~pinned, "minimum bits")):
        added = int(extra[flags].sum())
        if added > 0:
            parts.append(f"{words} add {budget.label(8 * added / problem.weights if budget.kind == 'bpw' else added)}")
    reason = f" ({', '.join(parts)})" if parts else ""
    return BadInput(
        f"At least {_minimum_label(budget, needed)} are needed{reason}, and {budget.label()} are allowed.",
        "Increase the budget, relax pins and minimum bits, or add fewer bits to the choices.",
    )


def _minimum_label(budget: Budget, needed: float) -> str:
    """Format the minimum, rounded up if the rounded value would not be sufficient."""
    if budget.kind == "bpw":
        return f"{math.ceil(needed * 1000) / 1000:.4g} bits per weight"
    return human(needed) if human(needed) != budget.label() else f"{math.ceil(needed):,} bytes"


def _lowest_bytes(problem: Problem) -> Ints:
    """Return the bytes of each unit at the fewest bits, without pins and minimums; 0 for unquantized units."""
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
