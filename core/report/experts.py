"""The tokens that the experts of a mixture got during calibration, and the experts that were not tuned, in a report.

Reports may be of any age or origin, so that every field may be missing or invalid.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MixtureTokens:
    """The experts of one mixture in a block.

    Attributes:
        name: path of the experts in the checkpoint, such as `model.layers.3.mlp.experts`.
        tokens: number of tokens of the calibration text that each expert got.
        not_tuned: numbers of the experts whose rounding was not tuned, because they got too few tokens.
    """

    name: str
    tokens: tuple[int, ...]
    not_tuned: tuple[int, ...]

    @property
    def spread(self) -> str:
        """The smallest, the median and the largest number of tokens of an expert, in words."""
        return spread(self.tokens)


def mixtures(report: Mapping[str, Any]) -> tuple[MixtureTokens, ...]:
    """Return the mixtures of experts of a report in the order of the blocks; () for a model without experts."""
    experts = (item for block in _mappings(report.get("blocks")) for item in _mappings(block.get("experts")))
    return tuple(
        MixtureTokens(str(item.get("name", "")), tokens, _numbers(item.get("not_tuned")))
        for item in experts
        if (tokens := _numbers(item.get("tokens")))
    )


def expert_notes(report: Mapping[str, Any]) -> list[str]:
    """Return remarks on the experts of a run, one sentence each; [] for a model without experts."""
    found = mixtures(report)
    if not found:
        return []
    notes = [f"Calibration tokens per expert: {spread([count for mixture in found for count in mixture.tokens])}."]
    count, total = sum(len(mixture.not_tuned) for mixture in found), sum(len(mixture.tokens) for mixture in found)
    recipe = _mapping(_mapping(report.get("settings")).get("recipe"))
    if count and recipe.get("iters") != 0:
        experts, were = ("1 expert", "was") if count == 1 else (f"{count:,} experts", "were")
        notes.append(
            f"{experts} of {total:,} got too few tokens to be tuned and {were} rounded with searched scales; more "
            "samples reach more experts."
        )
    return notes


def spread(tokens: Sequence[int]) -> str:
    """Return the smallest, the median and the largest of some numbers of tokens, in words."""
    return f"{min(tokens):,} to {max(tokens):,}, median {round(statistics.median(tokens)):,}"


def _numbers(value: Any) -> tuple[int, ...]:
    items = value if isinstance(value, list | tuple) else ()
    return tuple(item for item in items if type(item) is int)


def _mappings(value: Any) -> list[Mapping[str, Any]]:
    items = value if isinstance(value, list | tuple) else ()
    return [item for item in items if isinstance(item, Mapping)]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
