"""Figures and texts for each layer of a model under one bits map, and their sums over a selection.

Values of `core` in the order of the tree. Does not depend on widgets.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from app.pages.layers.budget.loss_increase import LayerSensitivity
from core.estimation import sizes
from core.formats.engines import EngineIssue
from core.model.fused_experts import EXPERT
from core.model.plans import LayerPlan, PlanCase, Plans, grouped
from core.model.tree import Linear, ModelTree
from core.schemes import UNTOUCHED, LayerScheme
from core.sensitivity.table import SensitivityTable
from core.wording import figure, human

T = TypeVar("T")

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class LayerSheet:
    """The layers of one model under one bits map.

    Attributes:
        tree, plans: the model, and the plan of each of its linears; a tied head that no map names is the last.
        format_name: of the output.
        sizes: bytes in the output of a weight of each of the plans' cases.
        losses: the final loss of each block in a run of this model, by block; empty without a run.
        loss_increase: the measured sensitivity by position; None before the measurement.
        marks: problems of the target inference engine with layers, by their position.
    """

    tree: ModelTree
    plans: Plans
    format_name: str
    sizes: tuple[int, ...]
    losses: Mapping[int, float] = field(default_factory=dict)
    loss_increase: LayerSensitivity | None = None
    marks: Mapping[int, EngineIssue] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.plans)

    @property
    def linears(self) -> tuple[Linear, ...]:
        """All layers by their position: those of the tree, and a tied head, which can have its own bits."""
        return self.tree.nameable

    def linear(self, layer: int) -> Linear:
        return self.linears[layer]

    def case(self, layer: int) -> PlanCase:
        """Return the plan case of a layer."""
        return self.plans.cases[self.plans.kinds[layer]]

    def size(self, layer: int) -> int:
        """Return the bytes of the weight of a layer in the output."""
        return self.sizes[self.plans.kinds[layer]]

    def of_cases(self, values: Sequence[T]) -> list[T]:
        """Return the element of `values` that belongs to the case of each layer."""
        return [values[kind] for kind in self.plans.kinds]

    @cached_property
    def bits(self) -> list[int]:
        return self.of_cases([case.scheme.bits for case in self.plans.cases])

    @cached_property
    def unit(self) -> tuple[float, str]:
        """The unit that fits the largest layer, so that all sizes can be shown without a unit."""
        largest = max(self.sizes, default=0)
        return next((unit for unit in _UNITS if largest >= unit[0]), (1.0, "bytes"))

    def values(self, coloring: str) -> list[float]:
        """Return one number for each layer; NaN if it is unknown."""
        if coloring == "size":
            return self.of_cases([float(size) for size in self.sizes])
        if coloring == "loss":
            return [self.losses.get(linear.block, math.nan) for linear in self.linears]
        if coloring == "sensitivity":
            return [math.nan] * len(self) if self.loss_increase is None else self.loss_increase.sensitivity
        return self.of_cases([float(case.scheme.bits) for case in self.plans.cases])

    def loss_increase_at(self, layer: int) -> list[tuple[LayerScheme, float]]:
        """Return the loss increase of a layer for every candidate scheme, fewest bits first; empty if unknown."""
        return [] if self.loss_increase is None else self.loss_increase.at(layer)

    def loss_increase_now(self, layer: int) -> float | None:
        """Return the loss increase of a layer for its current scheme; None if unknown."""
        return _known(self.loss_increases[layer]) if self.loss_increases else None

    @cached_property
    def loss_increases(self) -> Sequence[float]:
        """The loss increase of each layer for its scheme; NaN if unknown, empty without a table."""
        if self.loss_increase is None:
            return ()
        return self.loss_increase.now(self.plans.kinds, [case.scheme for case in self.plans.cases])

    @cached_property
    def loss_increase_total(self) -> float | None:
        """The predicted loss increase of the whole map; None if that of a layer is unknown."""
        return _known(math.fsum(self.loss_increases)) if self.loss_increases else None

    @property
    def loss_increase_known(self) -> tuple[float | None, int]:
        """The sum of the known predicted loss increases, and the number of layers without one.

        A tied head with its own bits, for example, cannot be measured.
        """
        if self.loss_increase_total is not None or not self.loss_increases:
            return self.loss_increase_total, 0
        known = [value for value in self.loss_increases if value == value]
        return math.fsum(known), len(self.loss_increases) - len(known)

    def shape(self, layer: int) -> str:
        """Return the shape of the weight as text, outputs times inputs."""
        linear = self.linear(layer)
        return f"{linear.out_features} \N{MULTIPLICATION SIGN} {linear.in_features}"

    def module_of(self, layers: Collection[int]) -> str:
        """Return the pattern of the experts that `layers` are, if they are all experts of a module of a block; else "".

        The pattern is of the form `PREFIX.N.mlp.experts.*.down_proj`.
        """
        if len(layers) < 2:
            return ""
        first = self.linear(min(layers))
        stem = EXPERT.sub("experts.*", first.kind)
        if stem not in self.tree.expert_modules or len(layers) != self.tree.expert_modules[stem][first.block]:
            return ""
        places = {(linear.block, EXPERT.sub("experts.*", linear.kind)) for linear in map(self.linear, layers)}
        return f"{self.tree.prefix}.{first.block}.{stem}" if len(places) == 1 else ""

    def stored_in(self, layers: Collection[int]) -> str:
        """Return the tensor of which all of these layers are slices, with the slice of a single one; else ""."""
        parts = (self.linear(layer).part for layer in layers)
        part = next(parts, None)
        if part is None or any(other is None or other.tensor != part.tensor for other in parts):
            return ""
        shape = self.tree.tensors[part.tensor].shape
        if len(layers) > 1 or part.expert is None:
            return part.tensor
        start, stop, step = part.rows
        words = [part.tensor, f"expert {part.expert}"]
        if len(shape) == 3 and part.rows != (0, shape[2 if part.transposed else 1], 1):
            dots = f", {start + step}, \N{HORIZONTAL ELLIPSIS} " if step > 1 else " to "
            words.append(f"outputs {start}{dots}{range(start, stop, step)[-1]}")
        if part.transposed:
            words.append("transposed")
        return ", ".join(words)

    def describe(self, layer: int) -> str:
        """Return the lines of the tooltip of a layer."""
        plan = self.plans[layer]
        lines = [
            plan.linear.name,
            f"{self.shape(layer)}, {plan.linear.dtype}",
            f"Slice of {stored}" if (stored := self.stored_in([layer])) else "",
            f"{plan.scheme.label()} ({plan.why})",
            plan.fallback,
            f"{human(self.case(layer).stored)} \N{RIGHTWARDS ARROW} {human(self.size(layer))}",
            loss_increase_line(self.loss_increase_at(layer), self.loss_increase_now(layer)),
        ]
        loss = self.losses.get(plan.linear.block)
        if loss is not None:
            lines.append(f"Loss of block {plan.linear.block} after the last run: {figure(loss)}")
        if layer in self.marks:
            lines.append(marked(self.marks[layer]))
        return "\n".join(line for line in lines if line)

    def spoken(self, layer: int) -> str:
        """Return the description of a layer for screen readers."""
        plan = self.plans[layer]
        place = f"block {plan.linear.block}, {plan.linear.kind}" if plan.linear.block >= 0 else plan.linear.name
        words = [place, f"{plan.scheme.bits} bits"]
        if plan.scheme.quantized:
            group = plan.scheme.group_size
            words.append("one group per row" if group == -1 else f"group {group}")
            words.append("symmetric" if plan.scheme.sym else "asymmetric")
        mark = marked(self.marks[layer]) if layer in self.marks else ""
        return ", ".join(word for word in (*words, plan.why, plan.fallback, mark) if word)


@dataclass(frozen=True)
class SelectionSummary:
    """The settings of several layers, each value with its number of layers.

    Attributes:
        count: of the layers.
        bits, groups, syms: of their schemes; group size and symmetry of the quantized ones only.
        whys, fallbacks: the reasons.
        before, after: bytes of all the layers in the source and in the output.
        loss_increase_now: sum of the known predicted loss increases; None if none is known.
        loss_increase_before: sum for the same layers at the fewest measured bits, the maximum.
    """

    count: int
    bits: Mapping[int, int]
    groups: Mapping[int, int]
    syms: Mapping[bool, int]
    whys: Mapping[str, int]
    fallbacks: Mapping[str, int]
    before: int
    after: int
    loss_increase_now: float | None = None
    loss_increase_before: float | None = None


def make_sheet(
    tree: ModelTree,
    plans: Sequence[LayerPlan],
    format_name: str,
    losses: Mapping[int, float],
    loss_increase: SensitivityTable | None = None,
    marks: Mapping[int, EngineIssue] | None = None,
    *,
    before: LayerSheet | None = None,
) -> LayerSheet:
    """Return the sheet of `tree` for `plans`.

    Args:
        loss_increase: the measured sensitivity of the model.
        marks: problems of the target inference engine with layers, by position in `tree.nameable`.
        before: an earlier sheet whose parts are reused if they did not change.
    """
    measured = None
    if loss_increase is not None:
        measured = before.loss_increase if before is not None and before.tree is tree else None
        if measured is None or measured.table is not loss_increase:
            measured = LayerSensitivity(loss_increase, [linear.name for linear in tree.nameable])
    known = _whole(tree, grouped(tree, plans))
    of_cases = [
        sizes.layer_bytes(case.in_features, case.out_features, case.scheme, format_name, case.stored)
        for case in known.cases
    ]
    return LayerSheet(tree, known, format_name, tuple(of_cases), dict(losses), measured, dict(marks or {}))


def summarize(sheet: LayerSheet, layers: Collection[int]) -> SelectionSummary:
    """Return the settings of `layers` with their counts."""
    before = after = 0
    bits: Counter[int] = Counter()
    groups: Counter[int] = Counter()
    syms: Counter[bool] = Counter()
    whys: Counter[str] = Counter()
    fallbacks: Counter[str] = Counter()
    for kind, count in Counter(map(sheet.plans.kinds.__getitem__, layers)).items():
        case = sheet.plans.cases[kind]
        before += count * case.stored
        after += count * sheet.sizes[kind]
        bits[case.scheme.bits] += count
        whys[case.why] += count
        if case.scheme.quantized:
            groups[case.scheme.group_size] += count
            syms[case.scheme.sym] += count
        if case.fallback:
            fallbacks[case.fallback] += count
    return SelectionSummary(
        count=len(layers),
        bits=bits,
        groups=groups,
        syms=syms,
        whys=whys,
        fallbacks=fallbacks,
        before=before,
        after=after,
        loss_increase_now=_sum(sheet.loss_increases, layers),
        loss_increase_before=_sum(sheet.loss_increase.sensitivity if sheet.loss_increase is not None else (), layers),
    )


def marked(mark: EngineIssue) -> str:
    """Return the problem of the target inference engine with a layer as one line."""
    return f"Cannot be loaded: {mark.reason}" if mark.cannot else f"Slow: {mark.reason}"


def loss_increase_line(at: Sequence[tuple[LayerScheme, float]], now: float | None) -> str:
    """Return the loss increase for every candidate and for the current scheme as one line; "" if unknown."""
    if not at:
        return ""
    twice = len({scheme.bits for scheme, _ in at}) < len(at)
    parts = [f"{figure(value)} at {scheme.label() if twice else f'{scheme.bits} bits'}" for scheme, value in at]
    if now is not None:
        parts.insert(0, f"{figure(now)} now")
    return f"Predicted loss increase: {', '.join(parts)}"


def _whole(tree: ModelTree, plans: Plans) -> Plans:
    """Return `plans` with a plan for a tied head that the map does not name, which shares the embedding."""
    head = tree.tied_head
    if head is None or len(plans) != len(tree.linears) or not len(plans):
        return plans
    same = PlanCase(LayerScheme(UNTOUCHED), "tied to the embedding", "", head.in_features, head.out_features, 0)
    return Plans(tree.nameable, [*plans.cases, same], [*plans.kinds, len(plans.cases)])


def _sum(values: Sequence[float], layers: Collection[int]) -> float | None:
    """Return the sum of the known values over `layers`; None if none is known."""
    found = [value for value in map(values.__getitem__, layers) if value == value] if values else []
    return math.fsum(found) if found else None


def _known(value: float) -> float | None:
    return None if math.isnan(value) else value
