"""Colors of the cells of the map, and the scale that the legend explains.

Depends on the theme, not on the geometry of the map.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from PySide6.QtGui import QColor

from app.pages.layers.map.cells import MapCells

if TYPE_CHECKING:
    from app.theme import Theme

_STEPS: Final = 255
_DIMMED: Final = 0.8
"""Share of the background in the color of a cell that does not match the filter."""
_WIDE_RANGE: Final = 30.0
"""Ratio of the largest to the smallest value from which the scale is logarithmic."""


@dataclass(frozen=True)
class Scale:
    """The range of a continuous coloring; None for both ends if there is none.

    A logarithmic scale begins at the smallest value above 0.
    """

    low: float | None = None
    high: float | None = None
    logarithmic: bool = False

    def place(self, value: float) -> float:
        """Return the position of `value` between the ends, 0 to 1."""
        if self.low is None or self.high is None or self.low == self.high or value <= self.low:
            return 0.0
        if self.logarithmic:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


def make_scale(values: Sequence[float]) -> Scale:
    """Return the scale of `values`, ignoring those that are not finite."""
    finite = [value for value in values if -math.inf < value < math.inf]
    if not finite:
        return Scale()
    low, high = min(finite), max(finite)
    above = low if low > 0 else min((value for value in finite if value > 0), default=0.0)
    if low >= 0 and above and high > _WIDE_RANGE * above:
        return Scale(above, high, logarithmic=True)
    return Scale(low, high)


def cell_colors(theme: Theme, cells: MapCells, coloring: str, values: Sequence[float]) -> tuple[list[int], Scale]:
    """Return the color of each cell as ARGB at its first layer, and the scale (empty for bits).

    Args:
        values: the values of the coloring, as from `MapCells.values`.
    """
    if coloring == "bits":
        sheet = cells.sheet
        colors = sheet.of_cases([theme.bits_color(case.scheme.bits).rgba() for case in sheet.plans.cases])
        for layer in cells.mixes:
            colors[layer] = theme.bits_color(cells.bits(layer)).rgba()
        return colors, Scale()
    scale = make_scale([values[layer] for layer in cells.shown])
    ramp = [theme.cividis(step / _STEPS).rgba() for step in range(_STEPS + 1)]
    missing = theme.color("line").rgba()
    known: dict[float, int] = {}
    for value in set(values):
        # Hidden layers of collapsed cells may be out of range.
        known[value] = ramp[round(min(scale.place(value), 1.0) * _STEPS)] if math.isfinite(value) else missing
    return [known.get(value, missing) for value in values], scale


def dimmed(colors: Sequence[int], lit: Collection[int], ground: QColor) -> list[int]:
    """Return `colors` with all cells except `lit` faded into the background."""
    from app.theme import mixed

    faded: dict[int, int] = {}
    for color in set(colors):
        faded[color] = mixed(QColor.fromRgba(color), ground, _DIMMED).rgba()
    return [color if layer in lit else faded[color] for layer, color in enumerate(colors)]
