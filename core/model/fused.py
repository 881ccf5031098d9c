"""Groups of fused modules: layers of a block that inference engines join into one matrix.

Engines fuse q, k and v, or gate and up, when they load a model, and keep all experts of a block in one tensor. The
layers of such a group must have the same quantization scheme. Groups are found by the names of the layers alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from core.model.fused_experts import EXPERT
from core.model.tree import ModelTree

_QKV, _GATE_UP = "qkv", "gate_up"
_PARTS = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), (_QKV, "proj")),
    **dict.fromkeys(("query", "key", "value"), (_QKV, "word")),
    **dict.fromkeys(("wq", "wk", "wv"), (_QKV, "w")),
    **dict.fromkeys(("gate_proj", "up_proj"), (_GATE_UP, "proj")),
    **dict.fromkeys(("w1", "w3"), (_GATE_UP, "w")),
}
"""Last part of a layer's name -> the fused module that it becomes a part of, and the naming convention."""
_REASONS = {
    _QKV: "query, key and value are one matrix in most engines",
    _GATE_UP: "gate and up are one matrix in most engines",
    "experts": "the experts of a block are one tensor in most engines",
    "block_experts": "all layers of the experts of a block have one scheme in vLLM",
}


@dataclass(frozen=True)
class FusedModules:
    """The kinds of layers that share a scheme.

    Attributes:
        fuse_qkv: q, k and v.
        fuse_gate_up: gate and up.
        experts: the same layer of all experts of a block.
        block_experts: all layers of all experts of a block.
    """

    fuse_qkv: bool = True
    fuse_gate_up: bool = True
    experts: bool = True
    block_experts: bool = False


@dataclass(frozen=True)
class FusedGroup:
    """Layers of one block that share a scheme, by name in the order of the model, and the reason."""

    layers: tuple[str, ...]
    reason: str


def groups(tree: ModelTree, fused: FusedModules) -> tuple[FusedGroup, ...]:
    """Return the groups of two or more layers in the order of the model."""
    stems: dict[str, tuple[str, frozenset[str]]] = {}
    reasons: dict[tuple[str, ...], str] = {}
    found = []
    for places in group_positions(tree, fused):
        linears = [tree.linears[place] for place in places]
        kinds = tuple(linear.kind for linear in linears)
        if kinds not in reasons:
            stems |= {kind: _stem(kind, fused) for kind in kinds}
            reasons[kinds] = _reason(kinds, stems[kinds[0]][1])
        found.append(FusedGroup(tuple(linear.name for linear in linears), reasons[kinds]))
    return tuple(found)


def group_positions(tree: ModelTree, fused: FusedModules) -> list[list[int]]:
    """Return the same groups as positions in `tree.linears`, without reasons; faster than `groups`."""
    stems: dict[str, str] = {}
    found: dict[tuple[int, str], list[int]] = {}
    for place, linear in enumerate(tree.linears):
        stem = stems.get(linear.kind)
        if stem is None:
            name, reasons = _stem(linear.kind, fused)
            stem = stems[linear.kind] = name if reasons else ""
        if stem and linear.block >= 0 and not linear.kept:
            found.setdefault((linear.block, stem), []).append(place)
    return [places for places in found.values() if len(places) > 1]


def _stem(kind: str, fused: FusedModules) -> tuple[str, frozenset[str]]:
    """Return a key that is equal for fused kinds, and the reasons for which they are fused."""
    reasons = set()
    expert = EXPERT.search(kind)
    if fused.block_experts and expert:
        return f"{kind[: expert.start()]}experts", frozenset({"block_experts"})
    if fused.experts and expert:
        kind = EXPERT.sub("experts.*", kind)
        reasons.add("experts")
    parent, _, last = kind.rpartition(".")
    into, convention = _PARTS.get(last, ("", ""))
    if (into == _QKV and fused.fuse_qkv) or (into == _GATE_UP and fused.fuse_gate_up):
        kind = f"{parent}.{into}:{convention}"
        reasons.add(into)
    return kind, frozenset(reasons)


def _reason(kinds: tuple[str, ...], reasons: frozenset[str]) -> str:
    lasts = {kind.rpartition(".")[2] for kind in kinds}
    numbers = {match[0] if (match := EXPERT.search(kind)) else "" for kind in kinds}
    true = [reason for reason in sorted(reasons) if len(numbers if "experts" in reason else lasts) > 1]
    return "; ".join(_REASONS[reason] for reason in true)
