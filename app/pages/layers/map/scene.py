"""The state that painting the bits map depends on, as one value."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

from PySide6.QtCore import QPoint, QRect, QSize
from PySide6.QtGui import QColor, QFont, QImage, QPalette

from app.pages.layers.layer_grid import NOTHING, OUTER_ROW, LayerGrid
from app.pages.layers.map.cells import MapCells
from app.pages.layers.map.geometry import MapGeometry

if TYPE_CHECKING:
    from app.theme import Theme


@dataclass(frozen=True)
class Scene:
    """The input of the painting functions. Cells are identified by their first layer.

    Attributes:
        image: one pixel for each cell of the blocks.
        values, colors: value and color (ARGB) of each cell.
        lit: the cells that match the filter; None without a filter.
        scroll, view: scroll offset and size of the viewport.
    """

    cells: MapCells
    geometry: MapGeometry
    image: QImage
    values: Sequence[float]
    colors: Sequence[int]
    coloring: str
    lit: frozenset[int] | None
    selected: frozenset[int]
    current: int
    focused: bool
    scroll: QPoint
    view: QSize
    palette: QPalette
    font: QFont
    theme: Theme

    @property
    def grid(self) -> LayerGrid:
        return self.cells.grid

    def rect(self, row: int, column: int) -> QRect:
        """Return the colored part of a cell in the viewport."""
        return self.geometry.rect(row, column).translated(-self.scroll)

    @property
    def place(self) -> tuple[int, int] | None:
        """The place of the current layer."""
        return self.grid.places[self.current] if 0 <= self.current < len(self.grid.places) else None

    @cached_property
    def visible(self) -> list[tuple[int, QRect]]:
        """The visible cells of the blocks."""
        rows, columns = self.geometry.visible(self.scroll, self.view)
        if not rows or not columns:
            return []
        first = self.rect(rows[0], columns[0])
        wide, tall = self.geometry.cell.width(), self.geometry.cell.height()
        width, height = first.width(), first.height()
        lefts = [(column, first.x() + number * wide) for number, column in enumerate(columns)]
        found = []
        for number, row in enumerate(rows):
            top, start = first.y() + number * tall, row * self.grid.columns
            for column, left in lefts:
                layer = self.grid.cells[start + column]
                if layer != NOTHING:
                    found.append((layer, QRect(left, top, width, height)))
        return found

    @cached_property
    def outer(self) -> list[tuple[int, QRect]]:
        """The cells of layers outside the blocks."""
        outer = enumerate(self.grid.outer)
        return [(one.layer, self.rect(OUTER_ROW, number)) for number, one in outer if one.layer != NOTHING]

    @cached_property
    def _folded(self) -> dict[int, tuple[int, ...]]:
        return self.cells.folded

    def chosen(self, layer: int) -> bool:
        """Return whether all layers of a cell are selected."""
        layers = self._folded.get(layer)
        return layer in self.selected if layers is None else self.selected.issuperset(layers)

    def chosen_at(self, row: int, column: int) -> bool:
        """Return whether all layers of the cell at a place are selected; False if there is no cell."""
        layer = self.grid.cells[row * self.grid.columns + column]
        return layer != NOTHING and self.chosen(layer)

    def partly(self, layer: int) -> bool:
        """Return whether some but not all layers of a cell are selected."""
        layers = self._folded.get(layer)
        return layers is not None and not self.selected.isdisjoint(layers) and not self.chosen(layer)

    @cached_property
    def _text_colors(self) -> dict[int, QColor]:
        return {}

    def text_color(self, layer: int) -> QColor:
        """Return the text in a cell."""
        if self.lit is not None and layer not in self.lit:
            return self.theme.color("muted")
        ground = self.colors[layer]
        found = self._text_colors.get(ground)
        if found is None:
            found = self._text_colors[ground] = self.theme.text_on(QColor.fromRgba(ground))
        return found


def cell_image(grid: LayerGrid, colors: Sequence[int]) -> QImage:
    """Return an image of the blocks with one pixel per cell, transparent if there is no layer."""
    if not grid.cells:
        return QImage()
    pixels = array("I", [0 if layer == NOTHING else colors[layer] for layer in grid.cells])
    image = QImage(pixels.tobytes(), grid.columns, grid.rows, 4 * grid.columns, QImage.Format.Format_ARGB32)
    return image.copy()  # a copy, because the image does not own the bytes above
