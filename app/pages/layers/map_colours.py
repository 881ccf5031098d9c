"""From the figures of the layers to the colours of their cells, and to the scale that a legend explains.

Knows the theme; nothing of where a cell stands or how it is painted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PySide6.QtGui import QColor

from app.models.layer_sheet import LayerSheet

if TYPE_CHECKING:
    from app.theme import Theme

_STEPS: Final = 255
_DIMMED: Final = 0.8
"""How much of the ground is in the colour of a cell that the filter leaves out."""
_WIDE_RANGE: Final = 30.0
"""A largest value of so many times the smallest is shown by its logarithm: else all but a few cells look the same."""


@dataclass(frozen=True)
class Scale:
    """From the smallest to the largest value of a continuous colouring; None for both where there is none."""

    low: float | None = None
    high: float | None = None
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Where `value` stands between the ends, 0 to 1."""
        if self.low is None or self.high is None or self.low == self.high:
            return 0.0
        if self.logarithmic:
            return math.log(value / self.low) / math.log(self.high / self.low)
        return (value - self.low) / (self.high - self.low)


def make_scale(values: Sequence[float]) -> Scale:
    """The scale of `values`; what is not finite stays out of it."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return Scale()
    low, high = min(finite), max(finite)
    return Scale(low, high, logarithmic=low > 0 and high > _WIDE_RANGE * low)


def cell_colours(theme: Theme, sheet: LayerSheet, colouring: str) -> tuple[list[int], Scale]:
    """The colour of each layer's cell as ARGB, and the scale behind it (an empty one for bits)."""
    if colouring == "bits":
        return sheet.of_cases([theme.bits_color(case.scheme.bits).rgba() for case in sheet.plans.cases]), Scale()
    values = sheet.values(colouring)
    scale = make_scale(values)
    ramp = [theme.cividis(step / _STEPS).rgba() for step in range(_STEPS + 1)]
    missing = theme.color("line").rgba()
    known: dict[float, int] = {}
    for value in set(values):
        known[value] = ramp[round(scale.place(value) * _STEPS)] if math.isfinite(value) else missing
    return [known.get(value, missing) for value in values], scale


def dimmed(colours: Sequence[int], matches: Collection[int], ground: QColor) -> list[int]:
    """`colours` with all but `matches` faded into the ground."""
    from app.theme import mixed

    faded: dict[int, int] = {}
    for colour in set(colours):
        faded[colour] = mixed(QColor.fromRgba(colour), ground, _DIMMED).rgba()
    return [colour if layer in matches else faded[colour] for layer, colour in enumerate(colours)]
