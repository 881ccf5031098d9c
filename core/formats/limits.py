"""Checks whether the packed safetensors formats can store the layers of a plan, before anything is written.

Works on distinct cases of layers, to be fast for tens of thousands of layers. Does not import torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from core.errors import BadInput
from core.formats.names import AUTO_ROUND, AWQ
from core.model.plans import LayerPlan, PlanCase, Plans, grouped
from core.model.tree import HEAD, TOWER, Linear, ModelTree
from core.schemes import PACK_UNIT, LayerScheme

_SHOWN = 3
_FOUR_BITS = ("auto_round:auto_awq", *AWQ)
_LEAVE = "Leave it in 16 bits."
_OTHERS = "choose auto_round or auto_gptq, which store any mixture of 2, 3, 4 and 8 bits."


@dataclass(frozen=True)
class Limit:
    """A reason why a format cannot store a plan.

    Attributes:
        why: a sentence without its full stop.
        hint: advice for the user.
        layers: names of the affected layers, in the order of the model; () if it concerns the whole plan.
    """

    why: str
    hint: str
    layers: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return the reason with the names of the first layers."""
        if not self.layers:
            return f"{self.why}."
        shown = ", ".join(self.layers[:_SHOWN])
        more = len(self.layers) - _SHOWN
        return f"{self.why}: {shown}{f' and {more} more' if more > 0 else ''}."


def limits(name: str, tree: ModelTree, plans: Iterable[LayerPlan]) -> list[Limit]:
    """Return all reasons why the packed format `name` cannot store a plan; [] if it can."""
    plans = grouped(tree, plans)
    reasons = [_of_case(name, case) for case in plans.cases]
    found = _in_towers(name, plans)
    found += _collect(plans, reasons) if any(reasons) else []
    found += _without_weight(tree, plans)
    if name in AWQ:
        found += _of_awq(name, plans)
    return found


def check(name: str, tree: ModelTree, plans: Iterable[LayerPlan]) -> None:
    """Raise BadInput with the first of the `limits`, if there is one."""
    for limit in limits(name, tree, plans):
        raise BadInput(limit.sentence(), limit.hint)


def _of_case(name: str, case: PlanCase) -> tuple[str, str] | None:
    """Return the reason why the format cannot store layers of this scheme and shape, and a hint; None if it can."""
    scheme, inputs, outputs = case.scheme, case.in_features, case.out_features
    if not scheme.quantized:
        return None
    if scheme.type:
        return (
            f"{name} cannot store layers in the block type {scheme.label()}",
            "Write that GGUF format alone, or combine this format with gguf, which stores the schemes of the bits map.",
        )
    if inputs % PACK_UNIT or outputs % PACK_UNIT:
        return f"A layer of {outputs}x{inputs} cannot be packed, which needs multiples of 32", _LEAVE
    if inputs % scheme.group_of(inputs):
        return f"The group size {scheme.group_size} does not divide the {inputs} inputs of a layer", "Choose 32 or 64."
    if name in _FOUR_BITS and scheme.bits != 4:
        return f"{name} stores 4 bits only, but there are layers with {scheme.bits}", _OTHERS.capitalize()
    return None


def _collect(plans: Plans, reasons: Sequence[tuple[str, str] | None]) -> list[Limit]:
    layers: dict[tuple[str, str], list[str]] = {}
    for place, kind in enumerate(plans.kinds):
        reason = reasons[kind]
        if reason:
            layers.setdefault(reason, []).append(plans[place].linear.name)
    return [Limit(*reason, tuple(names)) for reason, names in layers.items()]


def _outside(plans: Plans, block: int) -> list[Linear]:
    """Return the quantized layers outside the blocks with `block` HEAD or TOWER; those outside are the last ones."""
    found = []
    for place in reversed(range(len(plans))):
        plan = plans[place]
        if plan.linear.block >= 0:
            break
        if plan.scheme.quantized and plan.linear.block == block:
            found.append(plan.linear)
    return found[::-1]


def _in_towers(name: str, plans: Plans) -> list[Limit]:
    """Return a limit for quantized layers of towers in formats other than AutoRound's."""
    layers = tuple(linear.name for linear in _outside(plans, TOWER)) if name not in AUTO_ROUND else ()
    hint = "Choose auto_round, or leave the towers in 16 bits."
    return [Limit(f"Readers of {name} do not find quantized layers in towers", hint, layers)] if layers else []


def _without_weight(tree: ModelTree, plans: Plans) -> list[Limit]:
    """Return a limit for quantized heads without a tensor in the checkpoint; a tied head uses that of the embedding."""
    missing = tuple(linear.name for linear in _outside(plans, HEAD) if tree.weight_of(linear) not in tree.tensors)
    return [Limit("The checkpoint has no weight for a layer", _LEAVE, missing)] if missing else []


def _of_awq(name: str, plans: Plans) -> list[Limit]:
    """Return the limits of AWQ, whose config has a single scheme and whose readers do not support a quantized head."""
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
                f"{name} needs the same scheme for all layers, here {usual.label()}, but some differ",
                "Choose a group size that divides the inputs of all layers, leave the others in 16 bits, or choose "
                "auto_round.",
                tuple(others),
            )
        )
    heads = tuple(linear.name for linear in _outside(plans, HEAD))
    if heads:
        found.append(Limit(f"{name} does not support a quantized head", f"Leave it in 16 bits, or {_OTHERS}", heads))
    return found
