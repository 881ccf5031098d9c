"""All there is to say about each layer of a model under one bits map: figures, texts, and what a selection adds up to.

Values from core, in the order of the tree; knows no widget and no colour.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TypeVar

from core import sizes
from core.model.plans import Case, LayerPlan, Plans, grouped
from core.model.tree import Linear, ModelTree
from core.wording import figure, human

COLOURINGS = ("bits", "size", "loss")
"""What the cells of the map can show: bits, bytes in the output, loss of the layer's block after a run."""

T = TypeVar("T")

_UNITS = ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"))


@dataclass(frozen=True)
class LayerSheet:
    """The layers of one model under one bits map.

    Attributes:
        tree, plans: the model, and what each of its linears gets.
        format_name: of the output.
        sizes: bytes in the output of a weight of each of the plans' cases.
        losses: what each block ended with in a run of this model, by block; empty without one.
    """

    tree: ModelTree
    plans: Plans
    format_name: str
    sizes: tuple[int, ...]
    losses: Mapping[int, float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.plans)

    def linear(self, layer: int) -> Linear:
        return self.tree.linears[layer]

    def case(self, layer: int) -> Case:
        """What happens to a layer."""
        return self.plans.cases[self.plans.kinds[layer]]

    def size(self, layer: int) -> int:
        """Bytes of a layer's weight in the output."""
        return self.sizes[self.plans.kinds[layer]]

    def of_cases(self, values: Sequence[T]) -> list[T]:
        """For each layer the one of `values` that belongs to its case."""
        return [values[kind] for kind in self.plans.kinds]

    @cached_property
    def bits(self) -> list[int]:
        return self.of_cases([case.scheme.bits for case in self.plans.cases])

    @cached_property
    def unit(self) -> tuple[float, str]:
        """The unit that fits the largest layer, so that all sizes can stand without one."""
        largest = max(self.sizes, default=0)
        return next((unit for unit in _UNITS if largest >= unit[0]), (1.0, "bytes"))

    def values(self, colouring: str) -> list[float]:
        """One number a layer; NaN where there is none."""
        if colouring == "size":
            return self.of_cases([float(size) for size in self.sizes])
        if colouring == "loss":
            return [self.losses.get(linear.block, math.nan) for linear in self.tree.linears]
        return self.of_cases([float(case.scheme.bits) for case in self.plans.cases])

    def text(self, layer: int, colouring: str) -> str:
        """What a cell says when there is room."""
        if colouring == "size":
            return figure(self.size(layer) / self.unit[0])
        if colouring == "loss":
            return figure(self.losses.get(self.linear(layer).block, math.nan))
        return str(self.case(layer).scheme.bits)

    def shape(self, layer: int) -> str:
        """Outputs times inputs."""
        linear = self.linear(layer)
        return f"{linear.out_features} \N{MULTIPLICATION SIGN} {linear.in_features}"

    def describe(self, layer: int) -> str:
        """Everything about a layer, in lines; for tooltips."""
        plan = self.plans[layer]
        lines = [
            plan.linear.name,
            f"{self.shape(layer)}, {plan.linear.dtype}",
            f"{plan.scheme.label()} ({plan.why})",
            plan.fallback,
            f"{human(self.case(layer).stored)} \N{RIGHTWARDS ARROW} {human(self.size(layer))}",
        ]
        loss = self.losses.get(plan.linear.block)
        if loss is not None:
            lines.append(f"Loss of block {plan.linear.block} after its last run: {figure(loss)}")
        return "\n".join(line for line in lines if line)

    def spoken(self, layer: int) -> str:
        """A layer in one sentence; for screen readers."""
        plan = self.plans[layer]
        place = f"block {plan.linear.block}, {plan.linear.kind}" if plan.linear.block >= 0 else plan.linear.name
        words = [place, f"{plan.scheme.bits} bits"]
        if plan.scheme.quantized:
            group = plan.scheme.group_size
            words.append("one group a row" if group == -1 else f"group {group}")
            words.append("symmetric" if plan.scheme.sym else "asymmetric")
        return ", ".join(word for word in (*words, plan.why, plan.fallback) if word)


@dataclass(frozen=True)
class Summary:
    """What several layers have, each value with the number of layers that have it.

    Attributes:
        count: of the layers.
        bits, groups, syms: of their schemes; group size and symmetry of the quantized ones only.
        whys, fallbacks: the reasons.
        before, after: bytes of all of them in the source and in the output.
    """

    count: int
    bits: Mapping[int, int]
    groups: Mapping[int, int]
    syms: Mapping[bool, int]
    whys: Mapping[str, int]
    fallbacks: Mapping[str, int]
    before: int
    after: int


def make_sheet(
    tree: ModelTree, plans: Sequence[LayerPlan], format_name: str, losses: Mapping[int, float]
) -> LayerSheet:
    """The sheet of `tree` under `plans`."""
    known = grouped(tree, plans)
    of_cases = [
        sizes.layer_bytes(case.in_features, case.out_features, case.scheme, format_name, case.stored)
        for case in known.cases
    ]
    return LayerSheet(tree, known, format_name, tuple(of_cases), dict(losses))


def summarize(sheet: LayerSheet, layers: Collection[int]) -> Summary:
    """What `layers` have in common and what not."""
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
    return Summary(
        count=len(layers),
        bits=bits,
        groups=groups,
        syms=syms,
        whys=whys,
        fallbacks=fallbacks,
        before=before,
        after=after,
    )
