"""What each linear of a model gets for a bits map and the formats that are written: the one way from a map to plans.

A GGUF type asked for by name has grids of its own; with all other formats the map's schemes stand as they are.
No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from core.bitsmap import BitsMap
from core.errors import BadInput
from core.formats.gguf import mixes
from core.formats.names import mix_of
from core.model.plans import PlanCase, Plans
from core.model.tree import Linear, ModelTree, resolve_schemes
from core.schemes import LayerScheme


def plan_layers(tree: ModelTree, bits_map: BitsMap, formats: Sequence[str], *, nameable: bool = False) -> Plans:
    """One plan for every linear, as `core.model.tree.resolve_schemes`, on the grids that the formats ask for.

    Raises:
        BadInput: as there; or two GGUF types by name, or bits for a head whose type is the mix's affair.
    """
    plans = resolve_schemes(tree, bits_map, nameable=nameable)
    mix = named_mix(formats)
    return _typed(tree, plans, bits_map, mix) if mix else plans


def named_mix(formats: Sequence[str]) -> str:
    """The GGUF type that the formats name, "" if none.

    Raises:
        BadInput: more than one, each of which would have to be tuned on its own grid.
    """
    named = [name for name in formats if mix_of(name)]
    if len(named) > 1:
        raise BadInput(
            f"{' and '.join(named[:2])} are tuned on grids of their own, one run for each.",
            "Name one of them, and make a second run for the other.",
        )
    return mix_of(named[0]) if named else ""


def _typed(tree: ModelTree, plans: Plans, bits_map: BitsMap, mix: str) -> Plans:
    """The plans with a type for every linear; what is alike is looked at once, for the sake of 20,000 layers."""
    cases: dict[tuple[int, str], int] = {}
    made: list[PlanCase] = []
    kinds = []
    linears = tree.nameable[: len(plans)]
    usual: dict[tuple[str, int], str] = {}
    known: dict[tuple[int, str, int], int] = {}
    for linear, number in zip(linears, plans.kinds, strict=True):
        # the block counts for some kinds only
        block = linear.block if mixes.role(linear.kind) or linear.block < 0 else 0
        if (number, linear.kind, block) not in known:
            if (linear.kind, block) not in usual:
                usual[linear.kind, block] = mixes.layer_type(mix, mixes.place(linear.kind, block, tree))
            case = plans.cases[number]
            wanted = _wanted(tree, linear, case, bits_map, mix, usual[linear.kind, block])
            if (number, wanted) not in cases:
                cases[number, wanted] = len(made)
                made.append(_case(case, mix, wanted) if wanted else case)
            known[number, linear.kind, block] = cases[number, wanted]
        kinds.append(known[number, linear.kind, block])
    return Plans(linears, made, kinds)


def _wanted(tree: ModelTree, linear: Linear, case: PlanCase, bits_map: BitsMap, mix: str, usual: str) -> str:
    """The type that a linear should have before its shape is looked at; "" leaves it as it is."""
    if linear.block < 0:
        if linear.name in bits_map.by_hand:
            if case.scheme.quantized:
                raise BadInput(
                    f"gguf:{mix} chooses the type of {linear.name} itself.",
                    "Take it out of the bits map, or give it 16 there to leave it alone.",
                )
            return ""
        return "" if tree.tied else mixes.head_type(mix, linear.in_features)
    if not case.scheme.quantized and not _unfit(case):
        return ""
    asked = case.scheme.bits if case.scheme.quantized else bits_map.default.bits
    if case.why != "default" and asked != bits_map.default.bits:
        return mixes.type_for_bits(mix, asked)
    return usual


def _unfit(case: PlanCase) -> bool:
    """Whether a layer stays in 16 bits only because of packed words of 32, which GGUF does not have for outputs."""
    return bool(case.fallback) and case.in_features % 32 == 0


def _case(case: PlanCase, mix: str, wanted: str) -> PlanCase:
    scheme, fallback = LayerScheme.of_type(wanted).fit(case.in_features, case.out_features)
    if scheme.type:
        scheme = mixes.tuned_as(scheme.type)
    why = f"gguf:{mix}" if case.why == "default" else f"{case.why}, in gguf:{mix}"
    return replace(case, scheme=scheme, why=why, fallback=fallback)
