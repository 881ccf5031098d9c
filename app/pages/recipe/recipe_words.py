"""What a recipe's card says in words: its title, the quality to expect, the time by estimate. Pure functions.

The words for quality are a coarse ranking by how much a recipe tunes, not a measurement; a run's report measures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from core.estimation.costs import Range
from core.recipes import Recipe
from core.wording import time_range

if TYPE_CHECKING:
    from core.inference.machine import Machine

TITLES = {
    "quick": "Quick",
    "light": "Light",
    "default": "Default",
    "best": "Best",
    "rtn": "Plain rounding (RTN)",
    "opt-rtn": "Searched rounding (opt-RTN)",
}
_FEW_TOKENS = 32_768
"""Fewer tokens of text than these are few for any number of steps."""
_EFFORTS = ("rounded", "searched", "short", "medium", "full", "long")
_WORDS = {
    8: ("hardly any loss",) * 6,
    4: ("visible loss", "some loss", "some loss", "little loss", "little loss", "least loss"),
    3: ("large loss", "large loss", "visible loss", "some loss", "some loss", "least loss"),
    2: (
        "seldom usable", "seldom usable", "large loss", "large loss", "visible loss",
        "least loss",
    ),
}  # fmt: skip


def title_of(recipe: Recipe) -> str:
    """What the card is called."""
    return TITLES.get(recipe.name, recipe.name)


def effort(recipe: Recipe) -> str:
    """How much a recipe tunes, one of `_EFFORTS`: by its steps and its text."""
    if recipe.iters == 0:
        return "searched" if recipe.search_scale else "rounded"
    if recipe.iters < 50 or recipe.samples * recipe.seqlen < _FEW_TOKENS:
        return "short"
    return "medium" if recipe.iters < 150 else "full" if recipe.iters < 500 else "long"


def quality(recipe: Recipe, bits: int) -> str:
    """The quality to expect at so many bits, in a few words."""
    words = _WORDS.get(bits)
    return words[_EFFORTS.index(effort(recipe))] if words else "that of the original"


def time_text(seconds: Range | None, machine: Machine, device: str, *, model: bool) -> str:
    """How long a run takes: an estimate, or what is missing for one; nothing where that is a model."""
    if not model:
        return ""
    if seconds is not None:
        return f"Time: {time_range(seconds.low, seconds.high)} (estimate)"
    return "Time: measuring this machine" if machine.throughput is None else f"Time: not measured on {device}"
