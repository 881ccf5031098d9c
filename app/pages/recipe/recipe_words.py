"""Texts on the card of a recipe: title, expected quality and estimated time.

The quality is a coarse ranking by the amount of tuning. Only the report of a run contains measurements.
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
    "gptq": "Without gradients (GPTQ)",
    "rtn": "Plain rounding (RTN)",
    "opt-rtn": "Searched rounding (opt-RTN)",
    "autoround-light": "AutoRound light",
    "autoround": "AutoRound",
    "autoround-best": "AutoRound best",
}
OWN, SAVED, OTHER = "", "Your recipes", "For comparison: rounding, and the settings of AutoRound"
"""Headings of the sections of cards, in their order; none for the first."""
_COMPARED = ("rtn", "opt-rtn", "autoround-light", "autoround", "autoround-best")
_FEW_TOKENS = 32_768
"""Number of tokens below which a recipe without a start has the lowest rank for any number of steps."""
_START_RANKS = ((1, 8_192, "medium"), (50, 32_768, "full"), (150, 131_072, "long"))
"""Steps and tokens from which a recipe with the start GPTQ has a higher rank than "short"."""
_EFFORTS = ("rounded", "searched", "short", "medium", "full", "long")
_WORDS = {
    8: ("hardly any loss",) * 6,
    4: ("visible loss", "some loss", "some loss", "little loss", "little loss", "least loss"),
    3: ("large loss", "large loss", "visible loss", "some loss", "some loss", "least loss"),
    2: (
        "rarely usable", "rarely usable", "large loss", "large loss", "visible loss",
        "least loss",
    ),
}  # fmt: skip


def title_of(recipe: Recipe) -> str:
    """Return the title of the card."""
    return TITLES.get(recipe.name, recipe.name)


def section_of(recipe: Recipe) -> str:
    """Return the section of the card, one of OWN, SAVED and OTHER."""
    if recipe.name not in TITLES:
        return SAVED
    return OTHER if recipe.name in _COMPARED else OWN


def effort(recipe: Recipe) -> str:
    """Return the amount of tuning, one of `_EFFORTS`, from the steps and the number of tokens."""
    tokens = recipe.samples * recipe.seqlen
    if recipe.start == "gptq":
        ranks = [rank for steps, text, rank in _START_RANKS if recipe.iters >= steps and tokens >= text]
        return ranks[-1] if ranks else "short"
    if recipe.iters == 0:
        return {"range": "rounded", "search": "searched"}[recipe.start]
    if recipe.iters < 50 or tokens < _FEW_TOKENS:
        return "short"
    return "medium" if recipe.iters < 150 else "full" if recipe.iters < 500 else "long"


def quality(recipe: Recipe, bits: int) -> str:
    """Return the expected quality at a number of bits."""
    words = _WORDS.get(bits)
    return words[_EFFORTS.index(effort(recipe))] if words else "same as the original"


def time_text(seconds: Range | None, machine: Machine, device: str, *, model: bool) -> str:
    """Return the estimated time of a run, or why it is unknown; "" without a model."""
    if not model:
        return ""
    if seconds is not None:
        return f"Time: {time_range(seconds.low, seconds.high)} (estimate)"
    return "Time: measuring this machine" if machine.throughput is None else f"Time: not measured on {device}"
