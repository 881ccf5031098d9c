"""Detection of mixtures whose experts do not fit together: one lacks a matrix or has another shape, or the config
selects more experts than there are.

transformers joins the matrices of all experts of a block, which fails without naming the expert. Does not import torch.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from core.model.fused_experts import EXPERT, experts_per_token

Matrix = tuple[str, int, int]
"""Name, out_features and in_features of the matrix of one expert."""


def find(names: Iterable[Matrix], text: Mapping[str, Any]) -> str:
    """Return the reason why the experts of a model cannot be computed, in one sentence; "" if they can.

    Args:
        names: of the linear layers of the blocks; those that belong to no expert are ignored.
        text: config of the language model.
    """
    if text.get("zero_expert_num"):  # LongCat's router also chooses from experts without weights
        return ""
    groups: dict[str, dict[str, dict[int, tuple[int, int]]]] = {}
    for name, rows, columns in names:
        match = EXPERT.search(name)
        if match is not None:
            projections = groups.setdefault(name[: match.start()], {})
            projections.setdefault(name[match.end() :], {})[int(match[1])] = (rows, columns)
    reason = next((reason for stem, found in groups.items() if (reason := _uneven(stem, found))), "")
    return reason or _too_few(groups, text)


def _uneven(stem: str, projections: Mapping[str, Mapping[int, tuple[int, int]]]) -> str:
    """Return the reason why the experts under one module path do not fit together; "" if they do.

    Args:
        projections: shape of the matrix by end of the name, such as `.up_proj`, and by number of the expert.
    """
    numbers = {number for shapes in projections.values() for number in shapes}
    for end, shapes in projections.items():
        expected = range(max(numbers) + 1) if len(numbers) == len(shapes) else numbers
        missing = sorted(set(expected) - set(shapes))
        if missing:
            return (
                f"The checkpoint has no weight for {stem}experts.{missing[0]}{end}, but for other experts of the block."
            )
        usual = Counter(shapes.values()).most_common(1)[0][0]
        odd = next((number for number, shape in shapes.items() if shape != usual), None)
        if odd is not None:
            return (
                f"The weight of {stem}experts.{odd}{end} has the shape {list(shapes[odd])}, but that of other experts "
                f"{list(usual)}."
            )
    return ""


def _too_few(groups: Mapping[str, Mapping[str, Mapping[int, object]]], text: Mapping[str, Any]) -> str:
    selected = experts_per_token(text)
    count = max((len(shapes) for found in groups.values() for shapes in found.values()), default=selected)
    if selected <= count:
        return ""
    return f"The config selects {selected} experts for each token, but a block has only {count}."
