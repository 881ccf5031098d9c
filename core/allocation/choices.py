"""The allocation problem: the choices of each layer with their bytes and loss increases, as input of the knapsack.

Fused layers are one unit. A layer that the table does not contain, or whose shape no scheme supports, is not quantized
unless a pin names it; neither are the layers that are fused with it. Reads names and shapes, no tensors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from core.allocation.knapsack import ChoiceTable
from core.allocation.request import AllocationRequest
from core.allocation.schemes_to_map import short_map
from core.bitsmap import BitsMap, Rule, RuleKeys
from core.errors import BadInput
from core.estimation.sizes import layer_bytes, output_size, quantized_bytes
from core.formats import engines
from core.model.fused import group_positions
from core.model.tree import ModelTree, resolve_schemes
from core.schemes import UNTOUCHED, LayerScheme

if TYPE_CHECKING:
    from core.sensitivity.table import SensitivityTable

Ints = NDArray[np.int64]

_UNCHANGED = Rule("stays", UNTOUCHED).keys


@dataclass(frozen=True)
class _Case:
    """A class of layers with the same shape, pins and minimum. Every attribute has one value per choice.

    Attributes:
        assigned: Scheme before it is fitted to the shape.
        stored: Bytes in the output.
        counted: Bytes that count for the average of bits.
        forbidden: Reason why the choice is not allowed, "" if it is.
        columns: Column of the sensitivity table; -1 means no loss increase.
    """

    assigned: tuple[LayerScheme, ...]
    stored: tuple[int, ...]
    counted: tuple[int, ...]
    forbidden: tuple[str, ...]
    columns: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Problem:
    """The units of an allocation with their choices.

    Attributes:
        cases: The classes of layers.
        case_of, unit_of: Index of the case and of the unit of each linear layer of the tree.
        in_file, counted: [unit, choice] bytes in the output, and bytes that count for the average of bits.
        loss_increase: [unit, choice]; infinite for a choice that is not allowed.
        fixed: Bytes of the output outside of the linear layers.
        weights: Number of weights that count for the average of bits.
        free: Linear layers that stay in 16 bits whatever they are assigned: no scheme supports their shape, or rules do
            not apply to them.
        apart: Schemes of pinned layers that are not linear layers of the tree, for example a tied output layer.
        kept, pinned, raised: Units that are not quantized, that a pin applies to, and that a minimum applies to.
        notes: Notes for the user, each a sentence.
    """

    tree: ModelTree
    request: AllocationRequest
    cases: tuple[_Case, ...]
    case_of: Ints
    unit_of: Ints
    in_file: Ints
    counted: Ints
    loss_increase: NDArray[np.float64]
    fixed: int
    weights: int
    free: NDArray[np.bool_]
    apart: Mapping[str, LayerScheme]
    kept: NDArray[np.bool_]
    pinned: NDArray[np.bool_]
    raised: NDArray[np.bool_]
    notes: tuple[str, ...]

    def units(self, cost: Ints) -> ChoiceTable:
        """Return the input of the knapsack, with the bytes that count for the budget as costs."""
        return ChoiceTable(cost, self.loss_increase)

    def bits(self, picks: Ints) -> float:
        """Return the average bits per weight of the picks; 0 if no layer can be quantized."""
        spent = int(self.counted[np.arange(len(picks)), picks].sum())
        return 8 * spent / self.weights if self.weights else 0.0

    def bits_map(self, picks: Ints) -> BitsMap:
        """Return the bits map of the picks."""
        numbers: dict[LayerScheme, int] = {}
        width = self.loss_increase.shape[1]
        table = np.array(
            [[numbers.setdefault(scheme, len(numbers)) for scheme in case.assigned] for case in self.cases], np.int64
        ).reshape(len(self.cases), width)
        wanted = table[self.case_of, picks[self.unit_of]]
        inside = len(self.tree.block_linears)
        schemes = list(numbers)
        by_name = dict(self.apart)
        for place in range(inside, len(self.tree.linears)):
            scheme = schemes[wanted[place]]
            if scheme.quantized:
                by_name[self.tree.linears[place].name] = scheme
        return short_map(self.tree, schemes, wanted[:inside], self.free[:inside], by_name)


@dataclass(frozen=True)
class _Constraints:
    """The constraints of each linear layer of the tree, in the order of the tree.

    Attributes:
        rows: Row of the sensitivity table; -1 if the table does not contain the layer.
        pins: Keys of the layer's own pin.
        keys: Keys of the pin of its unit.
        minimum: Minimum bits; 0 for none.
        free: It stays at 16 bits whatever it is assigned: its shape is not supported by any scheme, or rules do not
            apply to it and no pin names it.
        kept: It is not quantized, because of its shape, because it was not measured, or because of a fused layer.
        unit_of: Index of its unit.
    """

    rows: Ints
    pins: Sequence[RuleKeys | None]
    keys: Sequence[RuleKeys | None]
    minimum: Sequence[int]
    free: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    unit_of: Ints


def build(tree: ModelTree, table: SensitivityTable, request: AllocationRequest) -> Problem:
    """Build the problem of a request.

    Raises:
        BadInput: A pattern matches no layer; pins contradict a fused group, a minimum or the engine; or the table does
            not contain the bits.
    """
    pins, apart = _pins(tree, request)
    layers = _constraints(tree, table, request, pins)
    cases, case_of = _cases(tree, table, request, layers)
    width, count = len(request.schemes()), int(layers.unit_of.max(initial=-1)) + 1

    def by_layer(values: Sequence[Sequence[int]]) -> Ints:
        return np.array(values, np.int64).reshape(-1, width)[case_of]

    def by_unit(values: NDArray[Any]) -> NDArray[Any]:
        sums = np.zeros((count, width), values.dtype)
        np.add.at(sums, layers.unit_of, values)
        return sums

    # an additional row and column of zeros for layers and choices without a loss increase (index -1)
    loss_increase = np.zeros((len(table.layers) + 1, len(table.schemes) + 1))
    if table.layers:
        loss_increase[:-1, :-1] = table.loss_increase
    of_layers = loss_increase[layers.rows[:, None], by_layer([case.columns for case in cases])]
    of_layers[by_layer([[bool(reason) for reason in case.forbidden] for case in cases]) > 0] = np.inf
    pinned = np.array([pin is not None for pin in pins], np.bool_)
    averaged = ~layers.kept | (pinned & ~layers.free)
    raised = np.array(layers.minimum, np.int64) > 0
    total = by_unit(of_layers)
    _require_choices(tree, cases, case_of, layers.unit_of, total)
    weights = np.array([inputs * outputs for inputs, outputs, _ in tree.weights], np.int64)
    return Problem(
        tree=tree,
        request=request,
        cases=tuple(cases),
        case_of=case_of,
        unit_of=layers.unit_of,
        in_file=by_unit(by_layer([case.stored for case in cases])),
        counted=by_unit(by_layer([case.counted for case in cases]) * averaged[:, None]),
        loss_increase=total,
        fixed=_other_bytes(tree, request, apart),
        weights=int(weights[averaged].sum()),
        free=layers.free,
        apart=apart,
        kept=_unit_flags(layers.unit_of, layers.kept, count),
        pinned=_unit_flags(layers.unit_of, pinned, count),
        raised=_unit_flags(layers.unit_of, raised, count),
        notes=_notes(tree, request, layers),
    )


def _constraints(
    tree: ModelTree, table: SensitivityTable, request: AllocationRequest, pins: Sequence[RuleKeys | None]
) -> _Constraints:
    """Return the constraints of each layer from fused groups, pins, minimums, shapes and the table."""
    known = {name: row for row, name in enumerate(table.layers)}
    rows = np.array([known.get(linear.name, -1) for linear in tree.linears], np.int64)
    minimum = _minimum(tree, request)
    fits = {shape: LayerScheme(4, 32).fit(*shape[:2])[0].quantized for shape in set(tree.weights)}
    by_rule = np.zeros(len(tree.linears), np.bool_)
    by_rule[[place for place in tree.kept if pins[place] is None]] = True
    free = by_rule | np.array([not fits[shape] for shape in tree.weights], np.bool_)
    kept = free | ((rows < 0) & np.array([pin is None for pin in pins], np.bool_))
    unit_of = _units(tree, request)
    count = int(unit_of.max(initial=-1)) + 1
    pinned = np.array([pin is not None for pin in pins], np.bool_)
    stays = _unit_flags(unit_of, free, count) | (
        _unit_flags(unit_of, kept, count) & ~_unit_flags(unit_of, pinned, count)
    )
    kept = stays[unit_of] | (kept & ~pinned)
    keys: list[RuleKeys | None] = list(pins)
    if request.pins or request.min_bits:
        _merge_units(tree, unit_of, count, keys, minimum)
    keys = [_UNCHANGED if stays else key for key, stays in zip(keys, kept.tolist(), strict=True)]
    return _Constraints(rows, pins, keys, minimum, free, kept, unit_of)


def _merge_units(tree: ModelTree, unit_of: Ints, count: int, keys: list[RuleKeys | None], minimum: list[int]) -> None:
    """Apply the pin and the highest minimum of a unit to all its layers, in place."""
    members: list[list[int]] = [[] for _ in range(count)]
    for place, number in enumerate(unit_of.tolist()):
        members[number].append(place)
    for unit in (unit for unit in members if len(unit) > 1):
        given = {keys[place] for place in unit} - {None}
        if len(given) > 1:
            names = [tree.linears[place].name for place in unit if keys[place] is not None]
            raise BadInput(
                f"{names[0]} and {names[-1]} are fused and pinned to different schemes.",
                "Pin both to the same scheme, or turn off this fusion, for example with `--no-fuse-qkv`.",
            )
        only, top = next(iter(given), None), max(minimum[place] for place in unit)
        for place in unit:
            keys[place], minimum[place] = only, top


def _notes(tree: ModelTree, request: AllocationRequest, layers: _Constraints) -> tuple[str, ...]:
    inside = np.array([linear.block >= 0 for linear in tree.linears], np.bool_)
    ruled_out = np.array([bool(linear.kept) for linear in tree.linears], np.bool_)
    pinned = np.array([pin is not None and pin.bits != UNTOUCHED for pin in layers.pins], np.bool_)
    counts = (
        (
            int((inside & layers.kept & ~layers.free & (layers.rows < 0)).sum()),
            "that were not measured and stay in 16 bits",
        ),
        (int((inside & layers.free & ~ruled_out).sum()), "whose shape is not supported and that stay in 16 bits"),
        (
            int((pinned & ~layers.kept & (layers.rows < 0)).sum()),
            "that are pinned but were not measured, so their loss increase is not included",
        ),
    )
    return tuple(f"Layers {what}: {number}." for number, what in counts if number)


def _require_choices(
    tree: ModelTree, cases: Sequence[_Case], case_of: Ints, unit_of: Ints, loss_increase: NDArray[np.float64]
) -> None:
    closed = np.flatnonzero(np.isinf(loss_increase).all(axis=1))
    if not len(closed):
        return
    for place in np.flatnonzero(unit_of == closed[0]).tolist():
        for reason in filter(None, cases[case_of[place]].forbidden):
            raise BadInput(
                f"No choice is left for {tree.linears[place].name}: {reason}.",
                "Add more bits to choose from, or change its pin or minimum.",
            )


def _unit_flags(unit_of: Ints, flags: NDArray[np.bool_], count: int) -> NDArray[np.bool_]:
    """Return a flag for each unit: true if any of its layers has the flag."""
    return np.bincount(unit_of, flags, count) > 0


def _other_bytes(tree: ModelTree, request: AllocationRequest, apart: Mapping[str, LayerScheme]) -> int:
    """Return the bytes of the output outside of the linear layers of the tree."""
    held = sum(kept for _, _, kept in tree.weights)
    if not apart:
        return tree.nbytes - held
    pinned = tuple(Rule(name, scheme.bits, scheme.group_size, scheme.sym) for name, scheme in apart.items())
    plans = resolve_schemes(tree, BitsMap(LayerScheme(UNTOUCHED), layers=pinned))
    return output_size(tree, plans, request.format_name).total - held


def _pins(tree: ModelTree, request: AllocationRequest) -> tuple[list[RuleKeys | None], dict[str, LayerScheme]]:
    """Return the keys that are pinned for each linear layer, and the schemes of pinned layers outside of the tree.

    The last pin that matches wins.
    """
    heads = {linear.name for linear in tree.linears if linear.block < 0 or linear.kept}
    last: dict[str, RuleKeys] = {rule.match: rule.keys for rule in request.pins}
    outside = heads | {name for name in (tree.embedding, tree.lm_head, "lm_head") if name}
    base = LayerScheme(group_size=request.group_size, sym=request.sym)
    apart = {name: keys.apply(base) for name, keys in last.items() if name in outside - heads}
    rules = tuple(rule for rule in request.pins if rule.match not in outside)
    if not rules:
        return [last.get(linear.name) if linear.name in heads else None for linear in tree.linears], apart
    chosen = BitsMap(rules=rules)
    _require_matches(tree, chosen.unmatched(tree.ruled_linears), "pin")
    found: list[RuleKeys | None] = []
    for linear in tree.linears:
        if linear.name in heads:
            found.append(last.get(linear.name))
            continue
        number = chosen.winner(linear.name)
        found.append(rules[number - 1].keys if number else None)
    return found, apart


def _minimum(tree: ModelTree, request: AllocationRequest) -> list[int]:
    """Return the minimum bits of each linear layer; 0 for none."""
    if not request.min_bits:
        return [0] * len(tree.linears)
    names = [linear.name for linear in tree.linears]
    missing = [rule.match for rule in request.min_bits if not any(map(rule.pattern.search, names))]
    _require_matches(tree, missing, "minimum")
    return [
        max((rule.bits or 0 for rule in request.min_bits if rule.pattern.search(name)), default=0) for name in names
    ]


def _require_matches(tree: ModelTree, missing: Iterable[str], what: str) -> None:
    for pattern in missing:
        kept = next((name for name in sorted(tree.only_by_name) if Rule(pattern).pattern.search(name)), "")
        if kept:
            raise BadInput(
                f"The {what} {pattern} matches only layers that stay in 16 bits unless they are named.",
                f"Use the exact name of each of them, such as {kept}.",
            )
        example = next(iter(tree.ruled_linears), "model.layers.0.mlp.down_proj")
        raise BadInput(f"The {what} {pattern} matches no layer.", f"An example of a name is {example}.")


def _units(tree: ModelTree, request: AllocationRequest) -> Ints:
    """Return the index of the unit of each linear layer."""
    parent = list(range(len(tree.linears)))
    for group in group_positions(tree, engines.fused_modules(request.engine, request.format_name, request.fused)):
        for place in group[1:]:
            parent[place] = group[0]
    numbers = {place: number for number, place in enumerate(dict.fromkeys(parent))}
    return np.array([numbers[place] for place in parent], np.int64)


def _cases(
    tree: ModelTree,
    table: SensitivityTable,
    request: AllocationRequest,
    layers: _Constraints,
) -> tuple[list[_Case], Ints]:
    """Return the classes of layers, and the index of the class of each linear layer."""
    numbers: dict[tuple[tuple[int, int, int], RuleKeys | None, int], int] = {}
    case_of = [
        numbers.setdefault(key, len(numbers)) for key in zip(tree.weights, layers.keys, layers.minimum, strict=True)
    ]
    allowed = engines.allowed(request.engine, request.format_name)
    exact = {scheme: column for column, scheme in reversed(list(enumerate(table.schemes)))}
    by_bits = {scheme.bits: column for column, scheme in reversed(list(enumerate(table.schemes)))}
    missing: set[int] = set()
    made = []
    for (inputs, outputs, stored), key, least in numbers:
        assigned = tuple(key.apply(scheme) if key else scheme for scheme in request.schemes())
        columns, reasons, file, counted = [], [], [], []
        for scheme in assigned:
            fitted, _ = scheme.fit(inputs, outputs)
            column = exact.get(scheme, by_bits.get(scheme.bits, -1)) if fitted.quantized else -1
            if fitted.quantized and column < 0 and not (key and key.bits):
                missing.add(scheme.bits)
            columns.append(column)
            file.append(layer_bytes(inputs, outputs, fitted, request.format_name, stored))
            counted.append(
                quantized_bytes(inputs, outputs, fitted, request.format_name)
                if fitted.quantized
                else 2 * inputs * outputs
            )
            if fitted.quantized and scheme.bits < least:
                reasons.append(f"its minimum is {least} bits")
            elif fitted.quantized and not allowed(fitted, inputs, outputs):
                reasons.append(f"{engines.title(request.engine)} does not run {fitted.label()} in this format")
            else:
                reasons.append("")
        made.append(_Case(assigned, tuple(file), tuple(counted), tuple(reasons), tuple(columns)))
    for bits in sorted(missing):
        raise BadInput(f"The sensitivity to {bits} bits was not measured.", "Measure it, or remove it as a choice.")
    return made, np.array(case_of, np.int64)
