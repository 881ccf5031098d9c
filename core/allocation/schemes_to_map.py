"""From the scheme of every layer to a short bits map that says the same.

A few rules by kind (`*.mlp.down_proj`) and by block, where a rule says more than it makes exceptions; the rest by name.
Not the shortest map there is: no more rules than are quick to match against 20,000 names.
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
"""Every rule is matched against every name."""

_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")


def short_map(
    tree: ModelTree,
    schemes: Sequence[LayerScheme],
    wanted: NDArray[np.int64],
    free: NDArray[np.bool_],
    by_name: Mapping[str, LayerScheme],
) -> BitsMap:
    """The map under which each linear in the blocks is assigned what is wanted.

    Args:
        schemes: all schemes that are wanted anywhere.
        wanted: number of the scheme of each linear in the blocks.
        free: of linears that stay in 16 bits whatever they are assigned.
        by_name: schemes of layers outside the blocks.
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
    keys = [_keys(scheme, default) for scheme in schemes]
    layers = {names[index]: keys[wanted[index]] for index in np.flatnonzero((got != wanted) & ~free).tolist()}
    layers |= {name: _keys(scheme, default) for name, scheme in by_name.items()}
    return BitsMap(default, rules, LayerOverrides(layers))


def _rules(
    tree: ModelTree, schemes: Sequence[LayerScheme], wanted: NDArray[np.int64], free: NDArray[np.bool_], usual: int
) -> tuple[Rule, ...]:
    """Rules from wide to narrow, as the last that matches wins; each saves more names than it costs."""
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
    """Ways to sort the linears of the blocks: patterns, and for each linear the number of its pattern."""
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
    """What makes `scheme` of the default: always the bits, the rest where it differs and matters."""
    differs = scheme.quantized
    return Rule(
        "layer",
        scheme.bits,
        scheme.group_size if differs and scheme.group_size != default.group_size else None,
        scheme.sym if differs and scheme.sym != default.sym else None,
    ).keys
