"""The geometry of the bits map in pixels: sizes and positions of cells, and hit tests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from PySide6.QtCore import QPoint, QRect, QSize
from PySide6.QtGui import QFontMetrics

from app.pages.layers.layer_grid import OUTER_ROW, Band, LayerGrid

CELL_WIDTHS: Final = (34, 64)
CELL_HEIGHTS: Final = (13, 30)
"""Minimum and maximum sides of a cell at zoom 1."""
SCROLLED: Final = 20
"""Height of a cell if the blocks do not fit into the view."""
SMALLEST: Final = 3
ZOOMS: Final = (0.1, 4.0)
BOX: Final = 11
"""Side of the box that expands or collapses experts."""
_MARGIN: Final = 8
_TALLEST_TITLE: Final = 120
_LONGEST: Final = "2.4e-5"
"""The longest text of a cell, for a width that does not depend on the values."""


@dataclass(frozen=True)
class Hit:
    """The result of a hit test: the part of the map at a point, and its place.

    The part is `cell`, `column`, `row`, `corner`, `band` (the heading of experts), `fold` (the box in it), `copied` (a
    part that is not quantized), or "".
    """

    part: str = ""
    row: int = 0
    column: int = 0


@dataclass(frozen=True)
class MapGeometry:
    """The sizes of a map in pixels.

    Attributes:
        columns, rows, outer_count: numbers of kinds, of blocks, and of modules outside the blocks.
        cell: size of a cell with its gap; gap: between cells.
        left, top: width of the row numbers, height of the column titles, which are always visible.
        upright: whether the titles are too long for their columns and are rotated.
        outer: size of a cell outside the blocks, in a separate row above them; height 0 if there is none.
        bands, band: headings of experts, and their height above the titles, part of `top`; 0 if there are none.
        copied_count, copied: number of parts that are not quantized, and the height of each above the blocks.
    """

    columns: int
    rows: int
    outer_count: int
    cell: QSize
    gap: int
    left: int
    top: int
    upright: bool
    outer: QSize
    bands: tuple[Band, ...] = ()
    band: int = 0
    copied_count: int = 0
    copied: int = 0

    @property
    def first_copied(self) -> int:
        """The top of the first part that is not quantized."""
        return self.top + (self.outer.height() + _MARGIN if self.outer.height() else 0)

    @property
    def first_row(self) -> int:
        """The top of block 0."""
        return self.first_copied + (self.copied_count * self.copied + _MARGIN if self.copied_count else 0)

    @property
    def size(self) -> QSize:
        """The whole map."""
        width = max(self.columns * self.cell.width(), self.outer_count * self.outer.width())
        return QSize(self.left + width + _MARGIN, self.first_row + self.rows * self.cell.height() + _MARGIN)

    def copied_rect(self, number: int, scroll: QPoint, view: QSize) -> QRect:
        """Return the row of a part that is not quantized; it is as wide as the view and does not scroll sideways."""
        top = self.first_copied + number * self.copied - scroll.y()
        return QRect(self.left + 1, top + 1, view.width() - self.left - _MARGIN, self.copied - 3)

    def rect(self, row: int, column: int) -> QRect:
        """Return the colored part of a cell, without scrolling."""
        if row == OUTER_ROW:
            left = self.left + column * self.outer.width()
            return QRect(left + 1, self.top + 1, self.outer.width() - 4, self.outer.height() - 2)
        left = self.left + column * self.cell.width()
        top = self.first_row + row * self.cell.height()
        return QRect(left + self.gap, top + self.gap, self.cell.width() - self.gap, self.cell.height() - self.gap)

    def visible(self, scroll: QPoint, view: QSize) -> tuple[range, range]:
        """Return the rows and columns of the blocks that are at least partly visible."""
        high, wide = self.cell.height(), self.cell.width()
        top = max(0, (scroll.y() + self.top - self.first_row) // high)
        bottom = min(self.rows, -(-(scroll.y() + view.height() - self.first_row) // high))
        left = max(0, scroll.x() // wide)
        right = min(self.columns, -(-(scroll.x() + view.width() - self.left) // wide))
        return range(top, max(top, bottom)), range(left, max(left, right))

    def heading(self, band: Band, scroll: QPoint, view: QSize) -> QRect:
        """Return the visible part of a heading; empty if it is not visible."""
        left = self.left + band.columns.start * self.cell.width() - scroll.x()
        right = left + len(band.columns) * self.cell.width()
        left, right = max(left + self.gap, self.left), min(right, view.width())
        return QRect(left, 2, max(right - left, 0), self.band - 3)

    def box(self, heading: QRect) -> QRect:
        """Return the box that expands or collapses experts, at the left of the visible part of their heading."""
        inset = min(3, max(0, (heading.width() - BOX) // 2))
        return QRect(heading.left() + inset, heading.top() + (heading.height() - BOX) // 2, BOX, BOX)

    def _hit_heading(self, point: QPoint, scroll: QPoint, column: int) -> Hit:
        band = next((band for band in self.bands if column in band.columns), None)
        if band is None:
            return Hit("column", 0, column)
        box = self.box(self.heading(band, scroll, QSize(1 << 20, 0)))
        return Hit("fold" if point.x() <= box.right() + 2 else "band", 0, column)

    def hit(self, point: QPoint, scroll: QPoint) -> Hit:
        """Return the part of the map at a point of the view."""
        x, y = point.x() + scroll.x() - self.left, point.y() + scroll.y()
        column = x // self.cell.width()
        row = (y - self.first_row) // self.cell.height()
        inside = point.x() >= self.left and 0 <= column < self.columns
        if point.y() < self.top:
            if point.x() < self.left:
                return Hit("corner")
            if inside and point.y() < self.band:
                return self._hit_heading(point, scroll, column)
            return Hit("column", 0, column) if inside else Hit()
        if self.copied_count and self.first_copied <= y < self.first_row:
            part = (y - self.first_copied) // self.copied
            return Hit("copied", part) if point.x() >= self.left and part < self.copied_count else Hit()
        if y < self.first_row:
            outer = x // self.outer.width() if self.outer.width() else -1
            return Hit("cell", OUTER_ROW, outer) if point.x() >= self.left and 0 <= outer < self.outer_count else Hit()
        if not 0 <= row < self.rows:
            return Hit()
        if point.x() < self.left:
            return Hit("row", row)
        return Hit("cell", row, column) if inside else Hit()

    def nearest(self, point: QPoint, scroll: QPoint) -> tuple[int, int]:
        """Return the cell of the blocks nearest to a point, for drags beyond the edges."""
        column = (point.x() + scroll.x() - self.left) // self.cell.width()
        row = (point.y() + scroll.y() - self.first_row) // self.cell.height()
        return min(max(row, 0), self.rows - 1), min(max(column, 0), self.columns - 1)


def make_geometry(grid: LayerGrid, view: QSize, zoom: float, metrics: QFontMetrics) -> MapGeometry:
    """Return the geometry of `grid` for a view of this size; `zoom` 1 fits it into the view within limits."""
    left = metrics.horizontalAdvance(str(max(grid.rows - 1, 0))) + 2 * _MARGIN
    high = metrics.height()
    outer = QSize(0, 0)
    if grid.outer:
        longest = max(metrics.horizontalAdvance(f"{one.title}  {_LONGEST}") for one in grid.outer)
        outer = QSize(longest + 2 * _MARGIN, max(high + 4, 20))
    wide = _fitted((view.width() - left - _MARGIN) // max(grid.columns, 1), CELL_WIDTHS, zoom)
    longest = max(map(metrics.horizontalAdvance, grid.titles), default=0)
    upright = longest + 4 > wide
    band = high + 4 if grid.bands else 0
    top = band + (min(longest + 2, _TALLEST_TITLE) if upright else high) + _MARGIN
    first_row = top + (outer.height() + _MARGIN if outer.height() else 0)
    copied = max(high + 4, 20) if grid.copied else 0
    if copied:
        first_row += len(grid.copied) * copied + _MARGIN
    room = (view.height() - first_row - _MARGIN) // max(grid.rows, 1)
    tall = _fitted(room if room >= CELL_HEIGHTS[0] else SCROLLED, CELL_HEIGHTS, zoom)
    smaller = min(wide, tall)
    return MapGeometry(
        columns=grid.columns,
        rows=grid.rows,
        outer_count=len(grid.outer),
        cell=QSize(wide, tall),
        gap=2 if smaller >= 14 else int(smaller >= 6),
        left=left,
        top=top,
        upright=upright,
        outer=outer,
        bands=grid.bands,
        band=band,
        copied_count=len(grid.copied),
        copied=copied,
    )


def _fitted(room: int, limits: tuple[int, int], zoom: float) -> int:
    return max(SMALLEST, round(min(max(room, limits[0]), limits[1]) * zoom))
