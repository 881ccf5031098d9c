"""Rules in place of the names of experts, where all experts of a block are set by hand.

A mixture has thousands of experts, so that a map which lists them by name is long, and hides that they are equal.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from core.bitsmap import BitsMap, LayerOverrides, Rule, RuleKeys
from core.model.fused_experts import EXPERT
from core.model.tree import Linear, ModelTree


def fold_experts(tree: ModelTree, bits_map: BitsMap, linears: Iterable[Linear]) -> BitsMap:
    """Return an equivalent map with rules in place of the names of experts, if all experts of a block are named.

    A rule has the keys that most of these experts share; the others stay named, which overrides the rule. It is for
    one module, such as all `down_proj`, of one or several blocks: `PREFIX.N.mlp.experts.*.down_proj`. The new rules are
    the last ones; they replace earlier rules of this form for the same blocks.

    Args:
        tree: of the model.
        bits_map: with the names.
        linears: the layers whose names may be replaced, usually those that an edit changed.
    """
    stems: dict[str, str] = {}
    cells: dict[tuple[str, int], list[str]] = defaultdict(list)
    for linear in linears:
        stem = _stem(stems, linear.kind)
        if stem and linear.block >= 0 and not linear.kept:
            cells[stem, linear.block].append(linear.name)
    if not cells:
        return bits_map
    counts = tree.expert_modules
    blocks_of: dict[tuple[str, RuleKeys], list[int]] = defaultdict(list)
    for (stem, block), names in cells.items():
        if len(names) < counts[stem][block] or len(names) == 1:
            continue
        found = Counter(map(bits_map.by_hand.get, names))
        keys = found.most_common(1)[0][0]
        if keys is not None and None not in found:
            blocks_of[stem, keys].append(block)
    made: dict[str, tuple[RuleKeys, list[str]]] = {}
    covered: set[str] = set()
    ended: list[str] = []
    for (stem, keys), blocks in blocks_of.items():
        every = len(blocks) == len(counts[stem])
        pattern = _pattern(tree.prefix, stem, blocks, every=every)
        if _matches_others(tree, pattern, stem, blocks):
            continue
        names = [name for block in blocks for name in cells[stem, block] if bits_map.by_hand[name] is keys]
        made[pattern] = keys, names
        covered |= {pattern, *(_glob(tree.prefix, block, stem) for block in blocks)}
        ended += [_ending(stem)] if every else []
    return _with_rules(bits_map, made, covered, tuple(ended)) if made else bits_map


def _with_rules(
    bits_map: BitsMap, made: Mapping[str, tuple[RuleKeys, list[str]]], covered: Collection[str], ended: tuple[str, ...]
) -> BitsMap:
    """Return the map with rules instead of names.

    Args:
        made: pattern of each rule -> its keys, and the names that it replaces.
        covered, ended: patterns, and ends of patterns, of earlier rules that match only layers of the new ones.
    """
    by_hand = {**bits_map.by_hand}
    for _, names in made.values():
        for name in names:
            del by_hand[name]
    kept = tuple(rule for rule in bits_map.rules if rule.match not in covered and not rule.match.endswith(ended))
    without = replace(bits_map, rules=kept, layers=LayerOverrides(by_hand))
    rules = []
    for pattern, (keys, names) in made.items():
        scheme = keys.apply(bits_map.default)
        if any(assignment.scheme != scheme for assignment in without.resolve_all(names)):
            rules.append(Rule(pattern, keys.bits, keys.group_size, keys.sym))
    return replace(without, rules=(*kept, *rules))


def _matches_others(tree: ModelTree, pattern: str, stem: str, blocks: Sequence[int]) -> bool:
    """Return whether a pattern matches other modules than `stem` in these blocks."""
    search = Rule(pattern, 4).pattern.search
    kinds = {linear.kind for block in blocks for linear in tree.of_block(block)}
    # Names of one block suffice, since a pattern matches all the blocks alike.
    found = (kind for kind in kinds if search(f"{tree.prefix}.{blocks[0]}.{kind}"))
    return any(EXPERT.sub("experts.*", kind) != stem for kind in found)


def _pattern(prefix: str, stem: str, blocks: Sequence[int], *, every: bool) -> str:
    """Return the pattern of the experts of some blocks."""
    if every:
        return f"{prefix}.*.{stem}"
    if len(blocks) == 1:
        return _glob(prefix, blocks[0], stem)
    return rf"/^{re.escape(prefix)}\.({'|'.join(map(str, sorted(blocks)))}){_ending(stem)}"


def _ending(stem: str) -> str:
    """Return the end of the regular expression for the experts of several blocks."""
    return rf"\.{re.escape(stem)}$/".replace(r"\*", r"\d+")


def _glob(prefix: str, block: int, stem: str) -> str:
    return f"{prefix}.{block}.{stem}"


def _stem(known: dict[str, str], kind: str) -> str:
    """Return the name of a module of all experts, such as `mlp.experts.*.up_proj`; "" if it is not one of an expert."""
    found = known.get(kind)
    if found is None:
        stem = EXPERT.sub("experts.*", kind)
        found = known[kind] = stem if stem != kind else ""
    return found
