"""Which layers of a map a packed format cannot hold, and why: asked before anything is written.

Knows the formats of safetensors by name and what their layouts and readers allow, nothing of GGUF. Works on kinds of
layers, so that it stays quick for tens of thousands of them. No torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.errors import BadInput
from core.formats.names import AWQ
from core.model.plans import LayerPlan, PlanCase, Plans, grouped
from core.model.tree import Linear, ModelTree
from core.schemes import PACK_UNIT, LayerScheme

_SHOWN = 3
_FOUR_BITS = ("auto_round:auto_awq", *AWQ)
_LEAVE = "Leave it in 16 bits."
_OTHERS = "choose auto_round or auto_gptq, which hold 2, 3, 4 and 8 bits in any mixture."


@dataclass(frozen=True)
class Limit:
    """One reason why a format cannot hold a map.

    Attributes:
        why: a sentence without its full stop, about the format; hint: what to do.
        layers: names of the layers that it is about, in the order of the model; none where it is about the whole.
    """

    why: str
    hint: str
    layers: tuple[str, ...] = ()

    def sentence(self) -> str:
        """The reason with the first layers' names."""
        if not self.layers:
            return f"{self.why}."
        shown = ", ".join(self.layers[:_SHOWN])
        more = len(self.layers) - _SHOWN
        return f"{self.why}: {shown}{f' and {more} more' if more > 0 else ''}."


def limits(name: str, tree: ModelTree, plans: Iterable[LayerPlan]) -> list[Limit]:
    """All reasons why the packed format `name` cannot hold a resolved map; none if it can."""
    plans = grouped(tree, plans)
    reasons = [_of_case(name, case) for case in plans.cases]
    found = _collect(plans, reasons) if any(reasons) else []
    found += _without_weight(tree, plans)
    if name in AWQ:
        found += _of_awq(name, plans)
    return found


def check(name: str, tree: ModelTree, plans: Iterable[LayerPlan]) -> None:
    """Raise BadInput with the first of the `limits`, if there is one."""
    for limit in limits(name, tree, plans):
        raise BadInput(limit.sentence(), limit.hint)


def _of_case(name: str, case: PlanCase) -> tuple[str, str] | None:
    """Why the format cannot hold a layer with this scheme and shape, and what to do; None if it can."""
    scheme, inputs, outputs = case.scheme, case.in_features, case.out_features
    if not scheme.quantized:
        return None
    if scheme.type:
        return (
            f"Layers tuned on {scheme.label()}'s own grid cannot be held by {name}",
            "Write that GGUF format alone, or gguf, which holds the integers of a bits map, beside this one.",
        )
    if inputs % PACK_UNIT or outputs % PACK_UNIT:
        return f"A layer of {outputs}x{inputs} cannot be packed in words, which need multiples of 32", _LEAVE
    if inputs % scheme.group_of(inputs):
        return f"The group size {scheme.group_size} does not divide the {inputs} inputs of a layer", "Choose 32 or 64."
    if name in _FOUR_BITS and scheme.bits != 4:
        return f"{name} holds 4 bits only, and there are layers with {scheme.bits}", _OTHERS.capitalize()
    return None


def _collect(plans: Plans, reasons: Sequence[tuple[str, str] | None]) -> list[Limit]:
    layers: dict[tuple[str, str], list[str]] = {}
    for place, kind in enumerate(plans.kinds):
        reason = reasons[kind]
        if reason:
            layers.setdefault(reason, []).append(plans[place].linear.name)
    return [Limit(*reason, tuple(names)) for reason, names in layers.items()]


def _heads(plans: Plans) -> list[Linear]:
    """The quantized layers outside the blocks, which come last."""
    found = []
    for place in reversed(range(len(plans))):
        plan = plans[place]
        if plan.linear.block >= 0:
            break
        if plan.scheme.quantized:
            found.append(plan.linear)
    return found


def _without_weight(tree: ModelTree, plans: Plans) -> list[Limit]:
    """A head that the checkpoint has no tensor for; a tied one has the embedding's."""
    missing = tuple(linear.name for linear in _heads(plans) if tree.weight_of(linear) not in tree.tensors)
    return [Limit("There is no weight in the checkpoint for a layer", _LEAVE, missing)] if missing else []


def _of_awq(name: str, plans: Plans) -> list[Limit]:
    """AWQ's config has one scheme for all layers, and its readers look for no quantized head."""
    found = []
    counts = Counter[LayerScheme]()
    for case, count in plans.counts:
        if case.scheme.quantized and not case.scheme.type:
            counts[case.scheme] += count
    if len(counts) > 1:
        usual = counts.most_common(1)[0][0]
        others = [
            f"{plans[place].linear.name} ({plans.cases[kind].scheme.label()})"
            for place, kind in enumerate(plans.kinds)
            if plans.cases[kind].scheme in counts and plans.cases[kind].scheme != usual
        ]
        found.append(
            Limit(
                f"{name} has one scheme for all layers, {usual.label()} here, and not all have it",
                "Choose groups that divide the inputs of all, leave the others in 16 bits, or choose auto_round.",
                tuple(others),
            )
        )
    heads = tuple(linear.name for linear in _heads(plans))
    if heads:
        found.append(Limit(f"{name} has no place for a quantized head", f"Leave it in 16 bits, or {_OTHERS}", heads))
    return found
