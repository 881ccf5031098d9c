"""Editing the rules of a bits map, what each rule does to a model, and saying the same with fewer.

Values in, values out: an edit makes a new map. Knows the names of layers, not their weights and no file.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from core.bitsmap import BitsMap, Rule
from core.errors import BadInput
from core.model.tree import ModelTree
from core.schemes import LayerScheme


def add(bits_map: BitsMap, rule: Rule, at: int | None = None) -> BitsMap:
    """`bits_map` with one rule more, before position `at`; by default the last, which wins over all others."""
    rules = list(bits_map.rules)
    rules.insert(len(rules) if at is None else at, rule)
    return replace(bits_map, rules=tuple(rules))


def change(bits_map: BitsMap, position: int, rule: Rule) -> BitsMap:
    """`bits_map` with `rule` in place of the one at `position` (from 0)."""
    rules = list(bits_map.rules)
    rules[_place(bits_map, position)] = rule
    return replace(bits_map, rules=tuple(rules))


def remove(bits_map: BitsMap, position: int) -> BitsMap:
    """`bits_map` without the rule at `position` (from 0)."""
    rules = list(bits_map.rules)
    del rules[_place(bits_map, position)]
    return replace(bits_map, rules=tuple(rules))


def move(bits_map: BitsMap, position: int, to: int) -> BitsMap:
    """`bits_map` with the rule at `position` moved so that it stands at `to` (both from 0)."""
    rules = list(bits_map.rules)
    rule = rules.pop(_place(bits_map, position))
    rules.insert(_place(bits_map, to), rule)
    return replace(bits_map, rules=tuple(rules))


def matches(tree: ModelTree, rule: Rule) -> tuple[str, ...]:
    """Names of the layers that a rule speaks of: those in blocks whose name it matches."""
    return tuple(filter(rule.pattern.search, tree.block_linears))


@dataclass(frozen=True)
class RuleEffect:
    """What one rule does in its map.

    Attributes:
        matched: layers that its pattern matches.
        decided: those of them that have their scheme from it.
        idle: why the map says the same without it, as a sentence; "" if it does not.
    """

    matched: int
    decided: int
    idle: str


def effects(tree: ModelTree, bits_map: BitsMap) -> list[RuleEffect]:
    """What each rule of the map does, in their order."""
    names = tree.block_linears
    decided: dict[int, list[str]] = defaultdict(list)
    for name in names:
        if name not in bits_map.by_hand:
            decided[bits_map.winner(name)].append(name)
    found = []
    for position, rule in enumerate(bits_map.rules):
        own = decided[position + 1]
        matched = sum(1 for name in names if rule.pattern.search(name))
        found.append(RuleEffect(matched, len(own), _idle(bits_map, position, matched, own)))
    return found


def _idle(bits_map: BitsMap, position: int, matched: int, own: Sequence[str]) -> str:
    if not matched:
        return "No layer answers to it."
    if not own:
        return "Rules below it or layers set by hand speak for all of its layers."
    scheme = bits_map.rules[position].apply(bits_map.default)
    # Without it the rules above decide; the ones below matched none of these.
    above = replace(bits_map, rules=bits_map.rules[:position], layers=())
    if all(above.resolve(name).scheme == scheme for name in own):
        return "Its layers would have the same without it."
    return ""


def compact(tree: ModelTree, bits_map: BitsMap) -> BitsMap:
    """A map of the same default that gives every layer of `tree` the same scheme, with as few entries or fewer.

    Names and patterns that the tree does not know are dropped.
    """
    names = [
        *tree.block_linears,
        *(one.name for one in tree.nameable if one.block < 0 and one.name in bits_map.by_hand),
    ]
    schemes = {name: bits_map.resolve(name).scheme for name in names}
    shortest = from_schemes(tree, bits_map.default, schemes)
    kept = _without_idle(tree, bits_map)
    return min((kept, shortest), key=lambda found: len(found.rules) + len(found.layers))


def _without_idle(tree: ModelTree, bits_map: BitsMap) -> BitsMap:
    known = {linear.name for linear in tree.nameable}
    kept = [rule for rule in bits_map.layers if rule.match in known]
    found = replace(bits_map, layers=tuple(kept))
    while True:
        idle = [position for position, effect in enumerate(effects(tree, found)) if effect.idle]
        if not idle:
            return found
        # One at a time: two rules may each be idle only while the other is there.
        found = remove(found, idle[-1])


def from_schemes(tree: ModelTree, default: LayerScheme, schemes: Mapping[str, LayerScheme]) -> BitsMap:
    """A short map that gives each layer of `tree` the scheme that it has in `schemes`.

    First come rules for all layers, for layers of a kind and for whole blocks, as long as each saves more than it
    costs; then one for what is left over of each kind and scheme. Single layers are named. Layers in blocks that
    `schemes` lacks follow the default; heads stay unless they are in it.
    """
    wanted = {name: _plain(schemes.get(name, default), default) for name in tree.block_linears}
    picked = _pick(tree, wanted, default)
    found = BitsMap(default, tuple(_rule(match, scheme, default) for match, scheme in picked))
    found = _with_exceptions(tree, found, wanted)
    ends = [
        _rule(linear.name, schemes[linear.name], default)
        for linear in tree.nameable
        if linear.block < 0 and linear.name in schemes and schemes[linear.name].quantized
    ]
    return replace(found, layers=(*found.layers, *ends))


_LISTED = 0.1
"""What one more block in a list costs, in entries: a pattern that needs no list reads better."""


def _pick(tree: ModelTree, wanted: Mapping[str, LayerScheme], default: LayerScheme) -> list[tuple[str, LayerScheme]]:
    """Patterns and their schemes, the best first: each saves more entries than the one that it is."""
    kind_of = {linear.name: linear.kind for linear in tree.linears}
    now = dict.fromkeys(wanted, default)
    wrong: Counter[tuple[str, LayerScheme]] = Counter()
    for name, scheme in wanted.items():
        wrong[kind_of[name], scheme] += scheme != default
    candidates = _candidates(tree)
    picked: list[tuple[str, LayerScheme]] = []
    while True:
        best, match, goal = 1e-9, "", default
        for pattern, names in candidates.items():
            cells = Counter((kind_of[name], wanted[name], now[name] == wanted[name]) for name in names)
            for scheme in {scheme for _, scheme, right in cells if not right}:
                saved = _saved(cells, scheme, wrong)
                if saved > best:
                    best, match, goal = saved, pattern, scheme
        if not match:
            return picked
        for name in candidates[match]:
            wrong[kind_of[name], wanted[name]] += (wanted[name] != goal) - (wanted[name] != now[name])
            now[name] = goal
        picked.append((match, goal))


def _saved(
    cells: Mapping[tuple[str, LayerScheme, bool], int], goal: LayerScheme, wrong: Mapping[tuple[str, LayerScheme], int]
) -> float:
    """Entries that a rule saves which gives `cells` the scheme `goal`, less the one that it is."""
    changes: Counter[tuple[str, LayerScheme]] = Counter()
    for (kind, scheme, right), count in cells.items():
        if scheme == goal:
            changes[kind, scheme] -= 0 if right else count
        elif right:
            changes[kind, scheme] += count
    return sum(_cost(wrong[group]) - _cost(wrong[group] + change) for group, change in changes.items()) - 1


def _cost(count: int) -> float:
    """Entries that `count` layers of one kind and scheme take if nothing else speaks for them."""
    return 0.0 if not count else 1 + _LISTED * (count - 1)


def _candidates(tree: ModelTree) -> dict[str, list[str]]:
    """Patterns that a person would write, with the layers in blocks that they match; of two alike the shorter."""
    found: dict[str, list[str]] = {"*": list(tree.block_linears)}
    kinds: dict[str, list[str]] = defaultdict(list)
    for linear in tree.linears:
        if linear.block >= 0:
            kinds[linear.kind].append(linear.name)
            found.setdefault(f"{tree.prefix}.{linear.block}.*", []).append(linear.name)
    for kind, names in kinds.items():
        parts = kind.split(".")
        for cut in range(len(parts)):
            found.setdefault("*." + ".".join(parts[cut:]), []).extend(names)
            if cut:
                found.setdefault("*." + ".".join(parts[:cut]) + ".*", []).extend(names)
    shortest: dict[tuple[str, ...], str] = {}
    for match, names in sorted(found.items(), key=lambda item: len(item[0])):
        shortest.setdefault(tuple(sorted(names)), match)
    return {match: list(names) for names, match in shortest.items()}


def _with_exceptions(tree: ModelTree, bits_map: BitsMap, wanted: Mapping[str, LayerScheme]) -> BitsMap:
    """`bits_map` with what it takes to give each layer what is `wanted`."""
    left: dict[tuple[str, LayerScheme], list[int]] = defaultdict(list)
    for linear in tree.linears:
        if linear.block >= 0 and bits_map.resolve(linear.name).scheme != wanted[linear.name]:
            left[linear.kind, wanted[linear.name]].append(linear.block)
    rules: list[Rule] = []
    by_hand: list[Rule] = []
    for (kind, scheme), blocks in left.items():
        one = len(blocks) == 1
        match = f"{tree.prefix}.{blocks[0]}.{kind}" if one else _listed(tree.prefix, blocks, kind)
        (by_hand if one else rules).append(_rule(match, scheme, bits_map.default))
    return replace(bits_map, rules=(*bits_map.rules, *rules), layers=tuple(by_hand))


def _listed(prefix: str, blocks: Iterable[int], kind: str) -> str:
    """An expression for the layers of one kind in these blocks and for nothing else."""
    return rf"/^{re.escape(prefix)}\.({'|'.join(map(str, blocks))})\.{re.escape(kind)}$/"


def _plain(scheme: LayerScheme, default: LayerScheme) -> LayerScheme:
    """`scheme`; of 16 bits, which group does not matter."""
    return scheme if scheme.quantized else replace(default, bits=scheme.bits)


def _rule(match: str, scheme: LayerScheme, default: LayerScheme) -> Rule:
    """The rule that makes `scheme` of `default`; one that changes nothing says its bits."""
    usual = default.to_json()
    keys: dict[str, Any] = {
        key: value for key, value in _plain(scheme, default).to_json().items() if value != usual[key]
    }
    return Rule(match, **(keys or {"bits": default.bits}))


def _place(bits_map: BitsMap, position: int) -> int:
    if not 0 <= position < len(bits_map.rules):
        raise BadInput(f"The bits map has {len(bits_map.rules)} rules, and none at {position}.", "Count from 0.")
    return position
