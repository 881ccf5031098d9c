"""Editing of the rules of a bits map, the effect of each rule on a model, and shorter equivalent maps.

Pure functions: an edit returns a new map.
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
    """Insert a rule at index `at`; by default at the end, where it overrides all others."""
    rules = list(bits_map.rules)
    rules.insert(len(rules) if at is None else at, rule)
    return replace(bits_map, rules=tuple(rules))


def change(bits_map: BitsMap, position: int, rule: Rule) -> BitsMap:
    """Replace the rule at index `position`."""
    rules = list(bits_map.rules)
    rules[_place(bits_map, position)] = rule
    return replace(bits_map, rules=tuple(rules))


def remove(bits_map: BitsMap, position: int) -> BitsMap:
    """Remove the rule at index `position`."""
    rules = list(bits_map.rules)
    del rules[_place(bits_map, position)]
    return replace(bits_map, rules=tuple(rules))


def move(bits_map: BitsMap, position: int, to: int) -> BitsMap:
    """Move the rule at index `position` to index `to`."""
    rules = list(bits_map.rules)
    rule = rules.pop(_place(bits_map, position))
    rules.insert(_place(bits_map, to), rule)
    return replace(bits_map, rules=tuple(rules))


def matches(tree: ModelTree, rule: Rule) -> tuple[str, ...]:
    """Return the names of the layers in the blocks that a rule matches."""
    return tuple(filter(rule.pattern.search, tree.block_linears))


@dataclass(frozen=True)
class RuleEffect:
    """The effect of one rule of a bits map.

    Attributes:
        matched: Number of layers that its pattern matches.
        decided: Number of layers whose scheme it determines.
        idle: Reason why the rule has no effect, as a sentence; "" if it has one.
    """

    matched: int
    decided: int
    idle: str


def effects(tree: ModelTree, bits_map: BitsMap) -> list[RuleEffect]:
    """Return the effect of each rule of the map, in the order of the rules."""
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
        return "No layer matches this pattern."
    if not own:
        return "Later rules or layers set by hand override it for all its layers."
    scheme = bits_map.rules[position].apply(bits_map.default)
    # without this rule the earlier ones apply, since no later rule matches these layers
    above = replace(bits_map, rules=bits_map.rules[:position], layers=())
    if all(above.resolve(name).scheme == scheme for name in own):
        return "Its layers have the same scheme without it."
    return ""


def compact(tree: ModelTree, bits_map: BitsMap) -> BitsMap:
    """Return an equivalent map with the same default and no more entries: every layer of `tree` has the same scheme.

    Names and patterns that match nothing in the tree are removed.
    """
    names = [
        *tree.block_linears,
        *(one.name for one in tree.nameable if one.block < 0 and one.name in bits_map.by_hand),
    ]
    schemes = {name: bits_map.resolve(name).scheme for name in names}
    # a pattern that was picked early can be overridden by those that were picked after it
    shortest = _without_idle(tree, from_schemes(tree, bits_map.default, schemes))
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
        # one at a time, since two equal rules are both without effect, but only one of them may be removed
        found = remove(found, idle[-1])


def from_schemes(tree: ModelTree, default: LayerScheme, schemes: Mapping[str, LayerScheme]) -> BitsMap:
    """Return a short map that gives each layer of `tree` its scheme in `schemes`.

    The map starts with rules for all layers, for layers of a kind and for whole blocks, as long as each saves more
    entries than it adds. One rule per kind and scheme follows for the remaining layers; single layers are named. Layers
    of the blocks that are missing in `schemes` get the default; layers outside of the blocks are quantized only if they
    are in it.
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
"""Cost of each further block in a list, in entries, so that patterns without a list are preferred."""


def _pick(tree: ModelTree, wanted: Mapping[str, LayerScheme], default: LayerScheme) -> list[tuple[str, LayerScheme]]:
    """Return patterns with their schemes, the best first, as long as each saves more than one entry."""
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
    """Return the number of entries that a rule saves if it gives `cells` the scheme `goal`, minus one for the rule."""
    changes: Counter[tuple[str, LayerScheme]] = Counter()
    for (kind, scheme, right), count in cells.items():
        if scheme == goal:
            changes[kind, scheme] -= 0 if right else count
        elif right:
            changes[kind, scheme] += count
    return sum(_cost(wrong[group]) - _cost(wrong[group] + change) for group, change in changes.items()) - 1


def _cost(count: int) -> float:
    """Return the cost in entries of `count` layers of one kind and scheme that no other rule covers."""
    return 0.0 if not count else 1 + _LISTED * (count - 1)


def _candidates(tree: ModelTree) -> dict[str, list[str]]:
    """Return simple patterns with the layers of the blocks that they match; only the shortest of equivalent ones."""
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
    """Add rules and named layers to `bits_map` for all layers whose scheme is not the wanted one."""
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
    """Return a regular expression that matches exactly the layers of one kind in the given blocks."""
    return rf"/^{re.escape(prefix)}\.({'|'.join(map(str, blocks))})\.{re.escape(kind)}$/"


def _plain(scheme: LayerScheme, default: LayerScheme) -> LayerScheme:
    """Return `scheme`; at 16 bits with the group size and symmetry of the default, since they have no effect."""
    return scheme if scheme.quantized else replace(default, bits=scheme.bits)


def _rule(match: str, scheme: LayerScheme, default: LayerScheme) -> Rule:
    """Return the rule that turns `default` into `scheme`. It sets the bits if nothing differs."""
    usual = default.to_json()
    keys: dict[str, Any] = {
        key: value for key, value in _plain(scheme, default).to_json().items() if value != usual[key]
    }
    return Rule(match, **(keys or {"bits": default.bits}))


def _place(bits_map: BitsMap, position: int) -> int:
    if not 0 <= position < len(bits_map.rules):
        raise BadInput(
            f"The bits map has {len(bits_map.rules)} rules, and none at index {position}.", "Indices start at 0."
        )
    return position
