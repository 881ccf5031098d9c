"""Conversion of the schemes of all layers to a short bits map.

The map has a few rules for layer kinds (`*.mlp.down_proj`) and blocks, where a rule saves more entries than it needs
exceptions, and names the other layers. It is not the shortest possible map: the number of rules is limited, so that
matching 20,000 names is fast.
"""

from __future__ import annotations

import glob
import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from core.bitsmap import BitsMap, LayerOverrides, Rule, RuleKeys
from core.model.tree import ModelTree
from core.schemes import LayerScheme

MAX_RULES = 12
"""Maximum number of rules. Every rule is matched against every name."""

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def short_map(
    tree: ModelTree,
    schemes: Sequence[LayerScheme],
    wanted: NDArray[np.int64],
    free: NDArray[np.bool_],
    by_name: Mapping[str, LayerScheme],
) -> BitsMap:
    """Return a bits map that assigns the wanted scheme to each linear layer of the blocks.

    Args:
        schemes: All schemes that occur.
        wanted: Index in `schemes` for each linear layer of the blocks.
        free: Flag for each linear layer of the blocks that stays at 16 bits whatever it is assigned.
        by_name: Schemes of layers outside of the blocks.
    """
    counts = np.bincount(wanted[~free], minlength=len(schemes))
    usual = int(counts.argmax())
    default = schemes[usual]
    rules = _rules(tree, schemes, wanted, free, usual)
    names = tree.block_linears
    assigned = BitsMap(default, rules).resolve_all(names)
    numbers = {scheme: number for number, scheme in enumerate(schemes)}
    known = {id(one): numbers.get(one.scheme, -1) for one in assigned}
    got = np.fromiter((known[id(one)] for one in assigned), np.int64, len(names))
    got[list(tree.kept)] = -1  # rules do not apply to these layers
    keys = [_keys(scheme, default) for scheme in schemes]
    layers = {names[index]: keys[wanted[index]] for index in np.flatnonzero((got != wanted) & ~free).tolist()}
    layers |= {name: _keys(scheme, default) for name, scheme in by_name.items()}
    return BitsMap(default, rules, LayerOverrides(layers))


def _rules(
    tree: ModelTree, schemes: Sequence[LayerScheme], wanted: NDArray[np.int64], free: NDArray[np.bool_], usual: int
) -> tuple[Rule, ...]:
    """Return rules from general to specific, since the last match wins; each saves more names than it adds."""
    assigned = np.full(len(wanted), usual)
    rules: list[Rule] = []
    for patterns, members in _groupings(tree):
        counts = np.zeros((len(patterns), len(schemes)), np.int64)
        np.add.at(counts, (members[~free], wanted[~free]), 1)
        right = np.bincount(members[~free], (assigned == wanted)[~free], len(patterns))
        best = counts.argmax(axis=1)
        gain = counts.max(axis=1) - right - 1
        for group in np.argsort(-gain, kind="stable")[: MAX_RULES - len(rules)].tolist():
            if gain[group] <= 0:
                break
            scheme = schemes[best[group]]
            rules.append(_rule(patterns[group], scheme, schemes[usual]))
            assigned[members == group] = best[group]
    return tuple(rules)


def _groupings(tree: ModelTree) -> list[tuple[list[str], NDArray[np.int64]]]:
    """Return groupings of the linear layers of the blocks: patterns, and for each layer the index of its pattern."""
    linears = [linear for linear in tree.linears if linear.block >= 0]
    prefix = glob.escape(tree.prefix)
    kinds = {kind: f"*.{glob.escape(kind)}" for kind in dict.fromkeys(linear.kind for linear in linears)}
    wide = {kind: f"*.{_NUMBER.sub('*', glob.escape(kind))}" for kind in kinds}
    labels = [[kinds[linear.kind] for linear in linears], [f"{prefix}.{linear.block}.*" for linear in linears]]
    if wide != kinds:
        labels.insert(0, [wide[linear.kind] for linear in linears])
    found = []
    for label in labels:
        numbers = {pattern: number for number, pattern in enumerate(dict.fromkeys(label))}
        found.append((list(numbers), np.array([numbers[pattern] for pattern in label], np.int64)))
    return found


def _rule(pattern: str, scheme: LayerScheme, default: LayerScheme) -> Rule:
    keys = _keys(scheme, default)
    return Rule(pattern, keys.bits, keys.group_size, keys.sym)


def _keys(scheme: LayerScheme, default: LayerScheme) -> RuleKeys:
    """Return the keys that turn the default into `scheme`: the bits, and others that differ and have an effect."""
    differs = scheme.quantized
    return Rule(
        "layer",
        scheme.bits,
        scheme.group_size if differs and scheme.group_size != default.group_size else None,
        scheme.sym if differs and scheme.sym != default.sym else None,
    ).keys
