"""Plans of all linear layers of a model for a bits map and the output formats.

GGUF types that are chosen by name (`gguf:q4_k_m`) replace the schemes of the map by block types; all other formats use
the schemes of the map. Does not import torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from core.bitsmap import BitsMap, with_layers
from core.block_types import TYPES
from core.errors import BadInput
from core.formats.gguf import mixes
from core.formats.names import mix_of
from core.model.plans import PlanCase, Plans
from core.model.tree import TOWER, Linear, ModelTree, resolve_schemes
from core.schemes import UNTOUCHED, LayerScheme

if TYPE_CHECKING:
    from core.formats.gguf.file_types import FileTypes


def plan_layers(
    tree: ModelTree, bits_map: BitsMap, formats: Sequence[str], *, nameable: bool = False, like: str = ""
) -> Plans:
    """Return a plan for every linear layer, like `core.model.tree.resolve_schemes`, on the grids of the formats.

    Args:
        like: path of a GGUF file, whose types the layers get instead of the schemes of the map; "" for none.

    Raises:
        BadInput: as `resolve_schemes`; or two GGUF types are chosen by name, or the map sets bits for a head whose type
            the mix determines.
        BadInput, CorruptFile, UnsupportedModel: as `core.formats.gguf.file_types.read_file_types`.
    """
    if like:
        from core.formats.gguf.file_types import read_file_types  # imports numpy, which takes a noticeable time

        return _as_in_file(tree, bits_map, read_file_types(Path(like), tree), nameable=nameable)
    plans = resolve_schemes(tree, bits_map, nameable=nameable)
    mix = named_mix(formats)
    return _typed(tree, plans, bits_map, mix) if mix else plans


def named_mix(formats: Sequence[str]) -> str:
    """Return the GGUF type in a list of formats; "" if there is none.

    Raises:
        BadInput: there are several, each of which needs its own tuning.
    """
    named = [name for name in formats if mix_of(name)]
    if len(named) > 1:
        raise BadInput(
            f"{' and '.join(named[:2])} have different grids and need separate runs.",
            "Choose one of them, and start a second run for the other.",
        )
    return mix_of(named[0]) if named else ""


def _as_in_file(tree: ModelTree, bits_map: BitsMap, types: FileTypes, *, nameable: bool) -> Plans:
    """Return the plans with the types of a GGUF file; layers that are floats in the file stay in 16 bits."""
    if tree.tied_head is not None and types.separate_head:
        bits_map = with_layers(bits_map, [tree.tied_head.name], bits=4, exact_only=tree.only_by_name)
    plans = resolve_schemes(tree, bits_map, nameable=nameable)
    linears = tree.nameable[: len(plans)]
    cases: dict[tuple[int, str], int] = {}
    made: list[PlanCase] = []
    kinds = []
    for linear, number in zip(linears, plans.kinds, strict=True):
        name = types.linears.get(linear.name, "")
        if (number, name) not in cases:
            cases[number, name] = len(made)
            scheme = mixes.tuned_as(name) if name in TYPES else LayerScheme(UNTOUCHED)
            made.append(replace(plans.cases[number], scheme=scheme, why=f"as in {types.header.label}", fallback=""))
        kinds.append(cases[number, name])
    return Plans(linears, made, kinds)


def _typed(tree: ModelTree, plans: Plans, bits_map: BitsMap, mix: str) -> Plans:
    """Return the plans with block types; equal layers are handled once, to be fast for 20,000 layers."""
    cases: dict[tuple[int, str], int] = {}
    made: list[PlanCase] = []
    kinds = []
    linears = tree.nameable[: len(plans)]
    usual: dict[tuple[str, int], str] = {}
    known: dict[tuple[int, str, int], int] = {}
    for linear, number in zip(linears, plans.kinds, strict=True):
        # the type depends on the block number for some kinds only
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
    """Return the block type that a linear layer should have, before its shape is checked; "" leaves it unchanged."""
    if linear.block == TOWER:
        return ""
    if linear.block < 0:
        if linear.name in bits_map.by_hand:
            if case.scheme.quantized:
                raise BadInput(
                    f"gguf:{mix} determines the type of {linear.name} itself.",
                    "Remove it from the bits map, or set it to 16 bits there.",
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
    """Return whether a layer stays in 16 bits only because its outputs are not a multiple of 32.

    GGUF has no such restriction for outputs.
    """
    return bool(case.fallback) and case.in_features % 32 == 0


def _case(case: PlanCase, mix: str, wanted: str) -> PlanCase:
    scheme, fallback = LayerScheme.of_type(wanted).fit(case.in_features, case.out_features)
    if scheme.type:
        scheme = mixes.tuned_as(scheme.type)
    why = f"gguf:{mix}" if case.why == "default" else f"{case.why}, in gguf:{mix}"
    return replace(case, scheme=scheme, why=why, fallback=fallback)
