"""Texts on the card of a recipe: title, stages and estimated time.

Cards make no claim about the quality, which depends on the model and the bits; the report of a run has measurements.
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


def title_of(recipe: Recipe) -> str:
    """Return the title of the card."""
    return TITLES.get(recipe.name, recipe.name)


def section_of(recipe: Recipe) -> str:
    """Return the section of the card, one of OWN, SAVED and OTHER."""
    if recipe.name not in TITLES:
        return SAVED
    return OTHER if recipe.name in _COMPARED else OWN


def stages_text(recipe: Recipe) -> str:
    """Return the stages of a run with the recipe that change weights, in their order."""
    steps = f" ({recipe.iters:,} steps per block)"
    if recipe.start == "gptq":
        stages = ["GPTQ start"]
        tuned = "integers and scales" if recipe.learn_integers else "scales"
        stages += [f"{tuned}{steps}"] if recipe.iters else []
        stages += [f"end to end ({recipe.end_to_end:,} steps)"] if recipe.end_to_end else []
        return ", ".join(stages)
    stages = ["search for scales"] if recipe.start == "search" else []
    return ", ".join([*stages, f"rounding{steps}" if recipe.iters else "rounding"])


def time_text(seconds: Range | None, machine: Machine, device: str, *, model: bool) -> str:
    """Return the estimated time of a run, or why it is unknown; "" without a model."""
    if not model:
        return ""
    if seconds is not None:
        return f"Time: {time_range(seconds.low, seconds.high)} (estimate)"
    return "Time: measuring this machine" if machine.throughput is None else f"Time: not measured on {device}"
