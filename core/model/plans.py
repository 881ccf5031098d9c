"""The quantization plan of every linear layer of a model, in a form that is fast for tens of thousands of layers.

`core.model.tree` finds the layers and resolves a bits map for them. Does not import torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, overload

from core.bitsmap import Assignment
from core.schemes import LayerScheme
from core.wording import human

if TYPE_CHECKING:
    from core.model.tree import Linear, ModelTree

_STEP = 32
"""Divisor of the input and output features of a quantized layer."""


@dataclass(frozen=True)
class LayerPlan:
    """The quantization plan of one linear layer.

    Attributes:
        linear: the layer.
        scheme: the scheme that is applied.
        why: the rule that assigned it.
        fallback: the reason if it differs from the assigned scheme, else "".
    """

    linear: Linear
    scheme: LayerScheme
    why: str
    fallback: str


@dataclass(frozen=True)
class PlanCase:
    """The quantization plan of all linear layers of the same shape and with the same reason.

    Attributes:
        scheme, why, fallback: as in `LayerPlan`.
        in_features, out_features: of each layer.
        stored: bytes of such a weight in the source, which quantization replaces; 0 for a tied head, whose weight
            remains as the embedding.
    """

    scheme: LayerScheme
    why: str
    fallback: str
    in_features: int
    out_features: int
    stored: int


class Plans(Sequence[LayerPlan]):
    """The plan of every linear layer of a tree, in the order of the tree.

    The window resolves the plans again at every edit of up to 20,000 layers. Therefore equal layers share a `PlanCase`,
    figures are computed once per case, and a `LayerPlan` is created only on access.

    Attributes:
        cases: the distinct cases.
        kinds: for each linear layer the index of its case.
    """

    def __init__(self, linears: Sequence[Linear], cases: Sequence[PlanCase], kinds: Sequence[int]) -> None:
        self._linears = linears
        self.cases = cases
        self.kinds = kinds

    def __len__(self) -> int:
        return len(self.kinds)

    @overload
    def __getitem__(self, index: int) -> LayerPlan: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[LayerPlan]: ...
    def __getitem__(self, index: int | slice) -> LayerPlan | Sequence[LayerPlan]:
        if isinstance(index, slice):
            return [self[number] for number in range(*index.indices(len(self)))]
        case = self.cases[self.kinds[index]]
        return LayerPlan(self._linears[index], case.scheme, case.why, case.fallback)

    def __iter__(self) -> Iterator[LayerPlan]:
        for linear, kind in zip(self._linears, self.kinds, strict=True):
            case = self.cases[kind]
            yield LayerPlan(linear, case.scheme, case.why, case.fallback)

    @cached_property
    def counts(self) -> list[tuple[PlanCase, int]]:
        """The cases that occur, each with the number of its layers."""
        return [(self.cases[kind], count) for kind, count in Counter(self.kinds).items()]


def make_case(assigned: Assignment, in_features: int, out_features: int, stored: int) -> PlanCase:
    """Return the case of a linear layer of this shape with an assigned scheme, adapted to the shape."""
    scheme, fallback = assigned.scheme.fit(in_features, out_features)
    return PlanCase(scheme, assigned.why, fallback, in_features, out_features, stored)


def own_copy(assigned: Assignment, head: Linear, before: int, stored: int) -> Assignment:
    """Return the assignment of a tied head, with its effect on the size and the decoding speed in the reason.

    Args:
        assigned: from the bits map.
        head: the head as a linear layer.
        before: bytes of the embedding, which a tied head reads for each token.
        stored: bytes of a separate copy of the head in the source, usually 0.
    """
    scheme, fallback = assigned.scheme.fit(head.in_features, head.out_features)
    if not scheme.quantized:
        reason = assigned.why if fallback else f"{assigned.why}: shares the weight of the embedding"
        return Assignment(assigned.scheme, reason)
    size = scheme.weight_bytes(head.in_features, head.out_features)
    grows = f"grows by {human(size - stored)}" if size >= stored else f"shrinks by {human(stored - size)}"
    meaning = f"a separate {scheme.bits}-bit copy, the embedding is unchanged; the file {grows}"
    reads = f"the output projection reads {100 * size / max(1, before):.0f} % of the bytes for each token"
    return Assignment(assigned.scheme, f"{assigned.why}: {meaning}, {reads}")


def grouped(tree: ModelTree, plans: Iterable[LayerPlan]) -> Plans:
    """Return `plans`, which are of layers of `tree`, as `Plans`."""
    if isinstance(plans, Plans):
        return plans
    cases: dict[PlanCase, int] = {}
    linears, kinds = [], []
    for plan in plans:
        linear = plan.linear
        stored = tree.stored_bytes(linear)
        case = PlanCase(plan.scheme, plan.why, plan.fallback, linear.in_features, linear.out_features, stored)
        linears.append(linear)
        kinds.append(cases.setdefault(case, len(cases)))
    return Plans(linears, list(cases), kinds)


def nothing_quantized(plans: Plans) -> tuple[str, str] | None:
    """Return a reason and a hint if no layer is quantized, else None."""
    cases = [case for case, _ in plans.counts]
    if any(case.scheme.quantized for case in cases):
        return None
    if cases and all(case.fallback for case in cases):
        odd = sorted({width for case in cases for width in (case.in_features, case.out_features) if width % _STEP})
        listed = f"{', '.join(map(str, odd[:3]))}{' and others' if len(odd) > 3 else ''}"
        reason = f"layer dimensions must be divisible by {_STEP}, and this model has {listed}."
        return f"No layer of this model can be quantized: {reason}", "Use a model with other layer dimensions."
    return "The bits map leaves every layer in 16 bits.", "Set at least one layer to 2, 3, 4 or 8 bits."
