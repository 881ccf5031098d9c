"""Search for a readable pattern that matches exactly a given set of layers."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from core.bitsmap import Rule
from core.model.tree import ModelTree


def pattern_of(tree: ModelTree, layers: Collection[int]) -> str:
    """Return a pattern that matches exactly these layers (positions in the tree); "" if there is none.

    There is one if the layers are all layers of some kinds in some blocks.
    """
    wanted = set(layers)
    if not wanted or max(wanted) >= len(tree.linears) or any(tree.linears[n].block < 0 for n in wanted):
        return ""
    blocks = {tree.linears[n].block for n in wanted}
    kinds = {tree.linears[n].kind for n in wanted}
    inside = [(n, linear) for n, linear in enumerate(tree.linears) if linear.block >= 0]
    if {n for n, linear in inside if linear.block in blocks and linear.kind in kinds} != wanted:
        return ""
    of_kinds = {linear.block for _, linear in inside if linear.kind in kinds}
    of_blocks = {linear.kind for _, linear in inside if linear.block in blocks}
    names = {linear.name for n, linear in inside if n in wanted}
    others = [linear.name for n, linear in inside if n not in wanted]
    for candidate in _candidates(tree, blocks, kinds, all_blocks=of_kinds <= blocks, all_kinds=of_blocks <= kinds):
        search = Rule(candidate, 4).pattern.search
        if all(map(search, names)) and not any(map(search, others)):
            return candidate
    return ""


def _candidates(
    tree: ModelTree, blocks: set[int], kinds: set[str], *, all_blocks: bool, all_kinds: bool
) -> Iterable[str]:
    """Return candidate patterns, the shortest first; the caller checks that they match no other layers."""
    if all_blocks and all_kinds:
        yield "*"
    if len(blocks) == len(kinds) == 1:
        yield f"{tree.prefix}.{min(blocks)}.{min(kinds)}"
        return
    if all_kinds and len(blocks) == 1:
        yield f"{tree.prefix}.{min(blocks)}.*"
    if all_blocks:
        parts = [kind.split(".") for kind in sorted(kinds)]
        if len(parts) == 1:
            yield from ("*." + ".".join(parts[0][cut:]) for cut in reversed(range(len(parts[0]))))
        elif all(part[0] == parts[0][0] for part in parts):
            yield f"*.{parts[0][0]}.*"
    numbers = "" if all_blocks else rf"^{re.escape(tree.prefix)}\.{_either(map(str, sorted(blocks)))}"
    ending = "" if all_kinds else rf"\.{_either(sorted(kinds))}$"
    yield f"/{numbers}{ending or '[.]'}/"


def _either(words: Iterable[str]) -> str:
    escaped = [re.escape(word) for word in words]
    return escaped[0] if len(escaped) == 1 else f"({'|'.join(escaped)})"
