"""Checks whether a format can store the layers of a plan, and remarks on the size, before anything is computed.

Used by the window and by runs. Depends on schemes, shapes and the model type only; `core.formats.registry.plan` also
checks the tokenizer for GGUF. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.block_types import TYPES
from core.formats.gguf.types import linear_type
from core.formats.limits import limits
from core.formats.names import is_gguf, mix_of
from core.model.architectures.table import gguf_refusal
from core.model.plans import LayerPlan, Plans, grouped
from core.model.tree import TOWER, ModelTree


def problems(tree: ModelTree, plans: Iterable[LayerPlan], format_name: str) -> list[str]:
    """Return the reasons why the format cannot store the plans, one sentence each; [] if it can.

    Each reason names one layer and the number of further layers, or the architecture.
    """
    if not is_gguf(format_name):
        return [limit.sentence() for limit in limits(format_name, tree, plans)]
    refusal = gguf_refusal(tree.model_type)
    if refusal:
        return [refusal]
    plans = grouped(tree, plans)
    if any(tree.of_block(TOWER)):
        towers = [item.linear.name for item in plans if item.linear.block == TOWER and item.scheme.quantized]
        if towers:
            others = f" and {len(towers) - 1} more" if len(towers) > 1 else ""
            return [f"GGUF files leave towers out, so the bits of {towers[0]}{others} cannot be stored."]
    found: dict[str, set[int]] = {}
    for number, case in enumerate(plans.cases):
        if case.scheme.quantized and not linear_type(case.scheme):
            why = f"no GGUF type can store {case.scheme.label()} exactly, since its signed levels need 9 bits"
            found.setdefault(why, set()).add(number)
    return [_sentence(why, plans, numbers) for why, numbers in found.items()]


def notes(tree: ModelTree, plans: Iterable[LayerPlan], format_name: str) -> list[str]:
    """Return remarks on a format that can store the plans: layers whose exact GGUF type is larger than their scheme."""
    if not is_gguf(format_name) or mix_of(format_name):
        return []
    costs: dict[tuple[str, str], int] = {}
    for case, count in grouped(tree, plans).counts:
        name = linear_type(case.scheme) if case.scheme.quantized and not case.scheme.type else ""
        if name and TYPES[name].bits > case.scheme.bits:
            key = (f"{case.scheme.bits}-bit {'symmetric' if case.scheme.sym else 'asymmetric'}", name)
            costs[key] = costs.get(key, 0) + count
    return [
        f"{count} {what} layers take {8 * TYPES[name].nbytes / TYPES[name].block:.3g} bits per weight in GGUF: "
        f"{name.upper()} is the smallest type that stores them exactly."
        for (what, name), count in sorted(costs.items())
    ]


def _sentence(why: str, plans: Plans, numbers: set[int]) -> str:
    places: Sequence[int] = [place for place, kind in enumerate(plans.kinds) if kind in numbers]
    first = plans[places[0]].linear.name
    others = f" and {len(places) - 1} more layers" if len(places) > 2 else " and one more" if len(places) == 2 else ""
    return f"{first}{others}: {why}."
