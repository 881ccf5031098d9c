"""Layers that must have the same scheme, by the names that they have in their block.

Engines join q, k and v, or gate and up, into one matrix when they load a model, and keep all experts of a block in one
tensor; a matrix has one width of integers. Goes by names alone, and knows no engine that joins others.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from core.model.tree import ModelTree

_QKV, _GATE_UP = "qkv", "gate_up"
_JOINED = {
    **dict.fromkeys(("q_proj", "k_proj", "v_proj"), (_QKV, "proj")),
    **dict.fromkeys(("query", "key", "value"), (_QKV, "word")),
    **dict.fromkeys(("wq", "wk", "wv"), (_QKV, "w")),
    **dict.fromkeys(("gate_proj", "up_proj"), (_GATE_UP, "proj")),
    **dict.fromkeys(("w1", "w3"), (_GATE_UP, "w")),
}
"""Last part of a layer's name -> what it is joined into, and the habit of naming that it belongs to."""
_WHY = {
    _QKV: "query, key and value are one matrix in most engines",
    _GATE_UP: "gate and up are one matrix in most engines",
    "experts": "the experts of a block are one tensor in most engines",
}
_EXPERT = re.compile(r"(?<![^.])experts\.\d+(?=\.)")


@dataclass(frozen=True)
class Ties:
    """Which layers are tied: query with key and value, gate with up, the experts of a block with each other."""

    fuse_qkv: bool = True
    fuse_gate_up: bool = True
    experts: bool = True


@dataclass(frozen=True)
class Tied:
    """Layers of one block that share a scheme, by name in the order of the model, and why."""

    layers: tuple[str, ...]
    reason: str


def groups(tree: ModelTree, ties: Ties) -> tuple[Tied, ...]:
    """The groups of two and more layers, in the order of the model."""
    stems: dict[str, tuple[str, frozenset[str]]] = {}
    reasons: dict[tuple[str, ...], str] = {}
    found = []
    for places in tied(tree, ties):
        linears = [tree.linears[place] for place in places]
        kinds = tuple(linear.kind for linear in linears)
        if kinds not in reasons:
            stems |= {kind: _stem(kind, ties) for kind in kinds}
            reasons[kinds] = _reason(kinds, stems[kinds[0]][1])
        found.append(Tied(tuple(linear.name for linear in linears), reasons[kinds]))
    return tuple(found)


def tied(tree: ModelTree, ties: Ties) -> list[list[int]]:
    """The same groups as positions in `tree.linears`, without the reasons; quick."""
    stems: dict[str, str] = {}
    found: dict[tuple[int, str], list[int]] = {}
    for place, linear in enumerate(tree.linears):
        stem = stems.get(linear.kind)
        if stem is None:
            name, whys = _stem(linear.kind, ties)
            stem = stems[linear.kind] = name if whys else ""
        if stem and linear.block >= 0:
            found.setdefault((linear.block, stem), []).append(place)
    return [places for places in found.values() if len(places) > 1]


def _stem(kind: str, ties: Ties) -> tuple[str, frozenset[str]]:
    """What all kinds that are tied have in common, and which ties did it."""
    whys = set()
    if ties.experts and _EXPERT.search(kind):
        kind = _EXPERT.sub("experts.*", kind)
        whys.add("experts")
    parent, _, last = kind.rpartition(".")
    into, habit = _JOINED.get(last, ("", ""))
    if (into == _QKV and ties.fuse_qkv) or (into == _GATE_UP and ties.fuse_gate_up):
        kind = f"{parent}.{into}:{habit}"
        whys.add(into)
    return kind, frozenset(whys)


def _reason(kinds: tuple[str, ...], whys: frozenset[str]) -> str:
    lasts = {kind.rpartition(".")[2] for kind in kinds}
    numbers = {match[0] if (match := _EXPERT.search(kind)) else "" for kind in kinds}
    true = [why for why in sorted(whys) if len(numbers if why == "experts" else lasts) > 1]
    return "; ".join(_WHY[why] for why in true)
