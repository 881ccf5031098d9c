"""What each linear layer of a model gets, in a form that stays quick for tens of thousands of layers.

Values only: `core.model.tree` finds the layers and resolves a bits map for them. Knows no file and no torch.
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
"""What the inputs and outputs of a quantized layer are a multiple of."""


@dataclass(frozen=True)
class LayerPlan:
    """What happens to one linear: the scheme it really gets, which rule said so, and why it differs ("" if not)."""

    linear: Linear
    scheme: LayerScheme
    why: str
    fallback: str


@dataclass(frozen=True)
class PlanCase:
    """What happens to all linears of one shape and for one reason.

    `stored` is the bytes that such a weight takes now, and that go away where it is quantized; 0 for a tied head, whose
    weight is the embedding's and stays.
    """

    scheme: LayerScheme
    why: str
    fallback: str
    in_features: int
    out_features: int
    stored: int


class Plans(Sequence[LayerPlan]):
    """The plan of every linear of a tree, in its order.

    The window asks anew with every edit of perhaps 20,000 layers. So layers that are alike share a case, whatever can
    be said of a case is said once, and the plan of a single layer is made when it is looked at.

    Attributes:
        cases: what happens to layers.
        kinds: for each linear the number of its case.
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
        """Each case with the number of its layers."""
        return [(self.cases[kind], count) for kind, count in Counter(self.kinds).items()]


def make_case(assigned: Assignment, in_features: int, out_features: int, stored: int) -> PlanCase:
    """What a linear of this shape gets of what it was assigned."""
    scheme, fallback = assigned.scheme.fit(in_features, out_features)
    return PlanCase(scheme, assigned.why, fallback, in_features, out_features, stored)


def own_copy(assigned: Assignment, head: Linear, before: int, stored: int) -> Assignment:
    """What a tied head gets of what it was assigned, and what that means for the file and for the speed of answers.

    Args:
        head: the head as a linear; before: bytes of the embedding that it reads now.
        stored: bytes of the copy that the source has of it, mostly none.
    """
    scheme, fallback = assigned.scheme.fit(head.in_features, head.out_features)
    if not scheme.quantized:
        return Assignment(assigned.scheme, assigned.why if fallback else f"{assigned.why}: it stays the embedding")
    size = scheme.weight_bytes(head.in_features, head.out_features)
    grows = f"grows by {human(size - stored)}" if size >= stored else f"shrinks by {human(stored - size)}"
    meaning = f"a copy of its own in {scheme.bits} bits, the embedding stays; the file {grows}"
    reads = f"the last step of each token reads {100 * size / max(1, before):.0f} % of the bytes"
    return Assignment(assigned.scheme, f"{assigned.why}: {meaning}, {reads}")


def grouped(tree: ModelTree, plans: Iterable[LayerPlan]) -> Plans:
    """`plans` as `Plans`, which they may be already; wherever they come from, their layers are of `tree`."""
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
    """Return the reason and a hint where no layer gets fewer than 16 bits; None where one does."""
    cases = [case for case, _ in plans.counts]
    if any(case.scheme.quantized for case in cases):
        return None
    if cases and all(case.fallback for case in cases):
        odd = sorted({width for case in cases for width in (case.in_features, case.out_features) if width % _STEP})
        listed = f"{', '.join(map(str, odd[:3]))}{' and others' if len(odd) > 3 else ''}"
        reason = f"inputs and outputs have to be divisible by {_STEP}, and its layers have widths of {listed}."
        return f"No layer of this model can be quantized: {reason}", "Use a model with other widths."
    return "The bits map leaves every layer in 16 bits.", "Give at least one layer 2, 3, 4 or 8 bits."
