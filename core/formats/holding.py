"""Whether a format can hold what a map makes of a model, and what that costs: known before anything is computed.

The rules of the formats' preflight, for the window and for a run alike. Knows schemes and shapes; the architecture and
the tokenizer, which GGUF depends on too, are looked at by `core.formats.registry.plan`. No torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from core.block_types import TYPES
from core.formats.gguf.types import linear_type
from core.formats.limits import limits
from core.formats.names import is_gguf, mix_of
from core.model.plans import LayerPlan, Plans, grouped
from core.model.tree import ModelTree


def problems(tree: ModelTree, plans: Iterable[LayerPlan], format_name: str) -> list[str]:
    """Why the format cannot hold the plans, one sentence for each reason; empty where it can.

    A layer is named for each reason, and how many more there are.
    """
    if not is_gguf(format_name):
        return [limit.sentence() for limit in limits(format_name, tree, plans)]
    plans = grouped(tree, plans)
    found: dict[str, set[int]] = {}
    for number, case in enumerate(plans.cases):
        if case.scheme.quantized and not linear_type(case.scheme):
            why = f"no GGUF type holds {case.scheme.label()} exactly: with their signs its levels need 9 bits"
            found.setdefault(why, set()).add(number)
    return [_sentence(why, plans, numbers) for why, numbers in found.items()]


def notes(tree: ModelTree, plans: Iterable[LayerPlan], format_name: str) -> list[str]:
    """What a user should know of a format that can hold the plans: what exact carrying costs, and who fell back."""
    if not is_gguf(format_name) or mix_of(format_name):
        return []
    costs: dict[tuple[str, str], int] = {}
    for case, count in grouped(tree, plans).counts:
        name = linear_type(case.scheme) if case.scheme.quantized and not case.scheme.type else ""
        if name and TYPES[name].bits > case.scheme.bits:
            key = (f"{case.scheme.bits}-bit {'symmetric' if case.scheme.sym else 'asymmetric'}", name)
            costs[key] = costs.get(key, 0) + count
    return [
        f"{count} {what} layers take {8 * TYPES[name].nbytes / TYPES[name].block:.3g} bits a weight in GGUF: "
        f"{name.upper()} is the smallest type that holds them exactly."
        for (what, name), count in sorted(costs.items())
    ]


def _sentence(why: str, plans: Plans, numbers: set[int]) -> str:
    places: Sequence[int] = [place for place, kind in enumerate(plans.kinds) if kind in numbers]
    first = plans[places[0]].linear.name
    others = f" and {len(places) - 1} more layers" if len(places) > 2 else " and one more" if len(places) == 2 else ""
    return f"{first}{others}: {why}."
