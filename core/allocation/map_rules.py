"""Editing of the rules of a bits map, the effect of each rule on a model, and shorter equivalent maps.

Pure functions: an edit returns a new map.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from core.bitsmap import BitsMap, Rule, with_layers
from core.errors import BadInput
from core.model.tree import TOWER, Linear, ModelTree
from core.schemes import UNTOUCHED, LayerScheme


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
    """Return the names of the layers that a rule matches and applies to."""
    return tuple(filter(rule.pattern.search, tree.ruled_linears))


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
    names = tree.ruled_linears
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
    names = [*tree.ruled_linears, *(name for name in bits_map.by_hand if name in tree.only_by_name)]
    schemes = {name: bits_map.resolve(name).scheme for name in names}
    # a pattern that was picked early can be overridden by those that were picked after it
    shortest = _without_idle(tree, replace(from_schemes(tree, bits_map.default, schemes), towers=bits_map.towers))
    kept = _without_idle(tree, bits_map)
    return min((kept, shortest), key=lambda found: len(found.rules) + len(found.layers))


def name_towers(tree: ModelTree, bits_map: BitsMap) -> BitsMap:
    """Return an equivalent map that names the layers of towers, if the map has bits for all of them."""
    if bits_map.towers == UNTOUCHED:
        return bits_map
    others = [linear.name for linear in tree.of_block(TOWER) if linear.name not in bits_map.by_hand]
    copied = replace(bits_map, towers=UNTOUCHED)
    return with_layers(copied, others, bits=bits_map.towers, exact_only=others)


def with_towers_of(tree: ModelTree, bits_map: BitsMap, before: BitsMap) -> BitsMap:
    """Return `bits_map` with the bits of the layers of towers in `before`."""
    towers = {linear.name for linear in tree.of_block(TOWER)}
    others = [rule for rule in bits_map.layers if rule.match not in towers]
    named = [rule for rule in before.layers if rule.match in towers]
    return replace(bits_map, layers=(*others, *named), towers=before.towers)


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
    of the blocks that are missing in `schemes` get the default; layers to which rules do not apply (head, routers) are
    quantized only if they are in it.
    """
    wanted = {name: _plain(schemes.get(name, default), default) for name in tree.ruled_linears}
    picked = _pick(tree, wanted, default)
    found = BitsMap(default, tuple(_rule(match, scheme, default) for match, scheme in picked))
    found = _with_exceptions(tree, found, wanted)
    ends = [
        _rule(linear.name, schemes[linear.name], default)
        for linear in tree.nameable
        if linear.name in tree.only_by_name and linear.name in schemes and schemes[linear.name].quantized
    ]
    return replace(found, layers=(*found.layers, *ends))


_NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
_LISTED = 0.1
"""Cost of each further block in a list, in entries, so that patterns without a list are preferred."""


def _pick(tree: ModelTree, wanted: Mapping[str, LayerScheme], default: LayerScheme) -> list[tuple[str, LayerScheme]]:
    """Return patterns with their schemes, the best first, as long as each saves more than one entry."""
    linears = _ruled(tree)
    schemes = list(dict.fromkeys([default, *wanted.values()]))
    numbers = {scheme: number for number, scheme in enumerate(schemes)}
    kinds = {kind: number for number, kind in enumerate(dict.fromkeys(linear.kind for linear in linears))}
    goal = np.array([numbers[wanted[linear.name]] for linear in linears], np.int64)
    # layers of one kind with one wanted scheme are one group
    group = np.array([kinds[linear.kind] for linear in linears], np.int64) * len(schemes) + goal
    count = len(kinds) * len(schemes)
    is_expert = np.repeat([_expert(kind) for kind in kinds], len(schemes)) if kinds else np.zeros(0, np.bool_)
    now = np.zeros(len(linears), np.int64)
    candidates = _candidates(tree)
    picked: list[tuple[str, LayerScheme]] = []
    while True:
        wrong = np.bincount(group[now != goal], minlength=count)
        cost = _costs(wrong, is_expert)
        best, match, scheme = 1e-9, "", 0
        for pattern, places in candidates.items():
            own, right = group[places], now[places] == goal[places]
            if right.all():
                continue
            touched, inverse = np.unique(own, return_inverse=True)
            there = np.bincount(inverse, right, len(touched)).astype(np.int64)
            total = np.bincount(inverse, minlength=len(touched))
            for number in np.unique(goal[places][~right]).tolist():
                # a group gets its scheme entirely, or loses what was right
                change = np.where(touched % len(schemes) == number, there - total, there)
                after = _costs(wrong[touched] + change, is_expert[touched])
                saved = float((cost[touched] - after).sum()) - 1
                if saved > best:
                    best, match, scheme = saved, pattern, number
        if not match:
            return picked
        now[candidates[match]] = scheme
        picked.append((match, schemes[scheme]))


def _costs(wrong: NDArray[np.int64], experts: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the cost in entries of so many layers of each kind and scheme that no other rule covers.

    They are one rule with a list of blocks; single experts are listed by name.
    """
    listed = np.where(wrong > 0, 1 + _LISTED * (wrong - 1), 0.0)
    return np.where(experts, wrong.astype(np.float64), listed)


def _ruled(tree: ModelTree) -> list[Linear]:
    return [linear for linear in tree.linears if linear.block >= 0 and not linear.kept]


def _expert(kind: str) -> bool:
    return _NUMBER.search(kind) is not None


def _candidates(tree: ModelTree) -> dict[str, NDArray[np.int64]]:
    """Return simple patterns with the positions of the layers that they match; only the shortest of equivalent ones.

    The positions are those in `tree.ruled_linears`. Patterns match all experts of a kind or a block, not single ones.
    """
    found: dict[str, list[int]] = {"*": list(range(len(tree.ruled_linears)))}
    kinds: dict[str, list[int]] = defaultdict(list)
    for place, linear in enumerate(_ruled(tree)):
        kind = _NUMBER.sub("*", linear.kind)
        kinds[kind].append(place)
        found.setdefault(f"{tree.prefix}.{linear.block}.*", []).append(place)
        if kind != linear.kind:
            for pattern in (kind, f"{kind.partition('*')[0]}*"):
                found.setdefault(f"{tree.prefix}.{linear.block}.{pattern}", []).append(place)
    for kind, places in kinds.items():
        parts = kind.split(".")
        for cut in range(len(parts)):
            if parts[cut] != "*":
                found.setdefault("*." + ".".join(parts[cut:]), []).extend(places)
            if cut and parts[cut - 1] != "*":
                found.setdefault("*." + ".".join(parts[:cut]) + ".*", []).extend(places)
    shortest: dict[bytes, tuple[str, NDArray[np.int64]]] = {}
    for match, places in sorted(found.items(), key=lambda item: len(item[0])):
        array = np.unique(np.array(places, np.int64))
        shortest.setdefault(array.tobytes(), (match, array))
    return dict(shortest.values())


def _with_exceptions(tree: ModelTree, bits_map: BitsMap, wanted: Mapping[str, LayerScheme]) -> BitsMap:
    """Add rules and named layers to `bits_map` for all layers whose scheme is not the wanted one."""
    left: dict[tuple[str, LayerScheme], list[int]] = defaultdict(list)
    linears = _ruled(tree)
    found = bits_map.resolve_all(tree.ruled_linears)
    for linear, assigned in zip(linears, found, strict=True):
        if assigned.scheme != wanted[linear.name]:
            left[linear.kind, wanted[linear.name]].append(linear.block)
    rules: list[Rule] = []
    by_hand: list[Rule] = []
    for (kind, scheme), blocks in left.items():
        if len(blocks) == 1 or _expert(kind):
            by_hand += [_rule(f"{tree.prefix}.{block}.{kind}", scheme, bits_map.default) for block in blocks]
        else:
            rules.append(_rule(_listed(tree.prefix, blocks, kind), scheme, bits_map.default))
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
