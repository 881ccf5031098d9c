"""Painting the bits map: cells as one image with a pixel a cell, over it what fits into the cells in view.

One image, because 20,000 rectangles take longer than a frame; texts, marks and outlines only where they can be
seen. Knows nothing of keys, mouse or undo.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QLine, QPoint, QPointF, QRect, QSize, Qt
from PySide6.QtGui import QColor, QFont, QFontMetrics, QImage, QPainter, QPainterPath, QPalette, QPen

from app.models.layer_grid import APART, NOTHING, LayerGrid
from app.models.layer_sheet import LayerSheet
from app.pages.layers.map_geometry import MapGeometry

if TYPE_CHECKING:
    from app.theme import Theme

_SMALLEST_TEXT: Final = 8
_LARGEST_TEXT: Final = 13
_NO_ROOM: Final = 8
"""Cells smaller than this are outlined in areas, or nothing of their colours would be left."""
_MARK: Final = 5
"""Side of the corner that marks a layer which got another scheme than it was given."""


@dataclass(frozen=True)
class Scene:
    """All that one painting depends on.

    Attributes:
        image: one pixel a cell of the blocks.
        colours: of each layer, as ARGB.
        matches: the layers that the filter lets through; None without a filter.
        scroll, view: of the viewport.
    """

    grid: LayerGrid
    sheet: LayerSheet
    geometry: MapGeometry
    image: QImage
    colours: Sequence[int]
    colouring: str
    matches: frozenset[int] | None
    selected: frozenset[int]
    current: int
    focused: bool
    scroll: QPoint
    view: QSize
    palette: QPalette
    font: QFont
    theme: Theme

    def rect(self, row: int, column: int) -> QRect:
        """The coloured part of a cell, in the viewport."""
        return self.geometry.rect(row, column).translated(-self.scroll)

    @property
    def place(self) -> tuple[int, int] | None:
        """Where the current layer stands."""
        return self.grid.places[self.current] if 0 <= self.current < len(self.grid.places) else None

    @cached_property
    def cells(self) -> list[tuple[int, QRect]]:
        """The layers of the blocks that are in view, and their cells."""
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
    def cells_apart(self) -> list[tuple[int, QRect]]:
        """The layers outside the blocks, and their cells."""
        apart = enumerate(self.grid.apart)
        return [(one.layer, self.rect(APART, number)) for number, one in apart if one.layer != NOTHING]

    @cached_property
    def _text_colours(self) -> dict[int, QColor]:
        return {}

    def text_colour(self, layer: int) -> QColor:
        """What can be read on a cell."""
        if self.matches is not None and layer not in self.matches:
            return self.theme.color("muted")
        ground = self.colours[layer]
        found = self._text_colours.get(ground)
        if found is None:
            found = self._text_colours[ground] = self.theme.text_on(QColor.fromRgba(ground))
        return found


def cell_image(grid: LayerGrid, colours: Sequence[int]) -> QImage:
    """The blocks with one pixel a cell, transparent where there is no layer."""
    if not grid.cells:
        return QImage()
    pixels = array("I", [0 if layer == NOTHING else colours[layer] for layer in grid.cells])
    image = QImage(pixels.tobytes(), grid.columns, grid.rows, 4 * grid.columns, QImage.Format.Format_ARGB32)
    return image.copy()  # of its own memory: the bytes above live no longer than this call


def paint(painter: QPainter, scene: Scene) -> None:
    """The whole map."""
    ground = scene.palette.color(QPalette.ColorRole.Base)
    painter.fillRect(QRect(QPoint(0, 0), scene.view), ground)
    painter.save()
    painter.setClipRect(QRect(scene.geometry.left, scene.geometry.top, scene.view.width(), scene.view.height()))
    _paint_colours(painter, scene, ground)
    _paint_apart(painter, scene)
    _paint_outlines(painter, scene)
    _paint_texts(painter, scene)
    _paint_marks(painter, scene)
    painter.restore()
    _paint_titles(painter, scene)
    _paint_numbers(painter, scene)


def _paint_colours(painter: QPainter, scene: Scene, ground: QColor) -> None:
    rows, columns = scene.geometry.visible(scene.scroll, scene.view)
    if not rows or not columns or scene.image.isNull():
        return
    gap, cell = scene.geometry.gap, scene.geometry.cell
    corner = scene.rect(rows[0], columns[0]).topLeft() - QPoint(gap, gap)
    target = QRect(corner, QSize(len(columns) * cell.width(), len(rows) * cell.height()))
    painter.drawImage(target, scene.image, QRect(columns[0], rows[0], len(columns), len(rows)))
    if gap:
        for number in range(len(columns)):
            painter.fillRect(corner.x() + number * cell.width(), corner.y(), gap, target.height(), ground)
        for number in range(len(rows)):
            painter.fillRect(corner.x(), corner.y() + number * cell.height(), target.width(), gap, ground)


def _paint_apart(painter: QPainter, scene: Scene) -> None:
    painter.setFont(scene.font)
    for number, one in enumerate(scene.grid.apart):
        rect = scene.rect(APART, number)
        if one.layer == NOTHING:
            painter.setPen(QPen(scene.theme.color("line"), 1))
            painter.drawRect(rect.adjusted(0, 0, -1, -1))
            painter.setPen(scene.theme.color("muted"))
            text = f"{one.title}  16"
        else:
            painter.fillRect(rect, QColor.fromRgba(scene.colours[one.layer]))
            painter.setPen(scene.text_colour(one.layer))
            text = f"{one.title}  {scene.sheet.text(one.layer, scene.colouring)}"
        painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, text)


def _paint_texts(painter: QPainter, scene: Scene) -> None:
    size = min(scene.geometry.cell.height() - 3, _LARGEST_TEXT)
    if size < _SMALLEST_TEXT:
        return
    font = QFont(scene.font)
    font.setPixelSize(size)
    painter.setFont(font)
    room = scene.geometry.cell.width() - 2 * scene.geometry.gap
    metrics = QFontMetrics(font)
    fits: dict[str, bool] = {}
    pen = None
    for layer, rect in scene.cells:
        text = scene.sheet.text(layer, scene.colouring)
        if text not in fits:
            fits[text] = metrics.horizontalAdvance(text) <= room
        if fits[text]:
            colour = scene.text_colour(layer)
            if colour != pen:
                pen = colour
                painter.setPen(colour)
            painter.drawText(rect, Qt.AlignmentFlag.AlignCenter, text)


def _paint_marks(painter: QPainter, scene: Scene) -> None:
    """A corner for each layer that cannot have what it was given; the tooltip and the side panel say why."""
    if scene.geometry.cell.height() < 2 * _MARK:
        return
    path = QPainterPath()
    for layer, rect in (*scene.cells, *scene.cells_apart):
        if scene.sheet.case(layer).fallback:
            corner = QPointF(rect.x() + rect.width(), rect.y())
            path.moveTo(corner)
            path.lineTo(corner.x() - _MARK, corner.y())
            path.lineTo(corner.x(), corner.y() + _MARK)
            path.closeSubpath()
    painter.fillPath(path, scene.palette.color(QPalette.ColorRole.Text))


def _paint_outlines(painter: QPainter, scene: Scene) -> None:
    smaller = min(scene.geometry.cell.width(), scene.geometry.cell.height())
    thick = 3 if smaller >= 20 else 2
    over = min(1, scene.geometry.gap) if smaller < 20 else 0  # into the gap, as a low cell needs its height for text
    chosen = [
        rect.adjusted(-over, -over, over, over)
        for layer, rect in (*scene.cells, *scene.cells_apart)
        if layer in scene.selected
    ]
    painter.setBrush(Qt.BrushStyle.NoBrush)
    if smaller < _NO_ROOM:
        _outline_areas(painter, scene)
        return
    # Inside it a thin line of the ground, so that the outline stands off from every colour.
    _outline(painter, chosen, scene.palette.color(QPalette.ColorRole.Base), thick, 1)
    _outline(painter, chosen, scene.palette.color(QPalette.ColorRole.Text), 0, thick)
    if scene.focused and scene.place is not None:
        inset = thick - over if scene.current in scene.selected else 0
        rect = scene.rect(*scene.place).adjusted(inset, inset, -inset - 1, -inset - 1)
        colour = scene.palette.color(QPalette.ColorRole.Text) if inset else scene.text_colour(scene.current)
        painter.setPen(QPen(colour, 1, Qt.PenStyle.DotLine))
        painter.drawRect(rect)


def _outline_areas(painter: QPainter, scene: Scene) -> None:
    """Lines between what is selected and what is not."""
    grid, selected = scene.grid, scene.selected
    wide, tall, gap = scene.geometry.cell.width(), scene.geometry.cell.height(), scene.geometry.gap
    lines = []
    for layer, rect in scene.cells:
        if layer not in selected:
            continue
        row, column = grid.places[layer]
        left, top = rect.x() - gap, rect.y() - gap
        if grid.layer_at(row - 1, column) not in selected or row == 0:
            lines.append(QLine(left, top, left + wide, top))
        if grid.layer_at(row + 1, column) not in selected:
            lines.append(QLine(left, top + tall, left + wide, top + tall))
        if grid.layer_at(row, column - 1) not in selected:
            lines.append(QLine(left, top, left, top + tall))
        if grid.layer_at(row, column + 1) not in selected:
            lines.append(QLine(left + wide, top, left + wide, top + tall))
    painter.setPen(QPen(scene.palette.color(QPalette.ColorRole.Text), 1))
    painter.drawLines(lines)


def _outline(painter: QPainter, rects: list[QRect], colour: QColor, inset: int, thick: int) -> None:
    """Outlines inside `rects`, so many pixels from their edges."""
    first = inset + thick // 2
    last = -2 * inset - thick
    pen = QPen(colour, thick)
    pen.setJoinStyle(Qt.PenJoinStyle.MiterJoin)
    painter.setPen(pen)
    painter.drawRects(
        [QRect(r.x() + first, r.y() + first, max(r.width() + last, 1), max(r.height() + last, 1)) for r in rects]
    )


def _paint_titles(painter: QPainter, scene: Scene) -> None:
    """The kinds, in view at the top however far the map is scrolled down."""
    geometry = scene.geometry
    painter.fillRect(0, 0, scene.view.width(), geometry.top, scene.palette.color(QPalette.ColorRole.Window))
    painter.setFont(scene.font)
    plain, accent = scene.palette.color(QPalette.ColorRole.WindowText), scene.theme.color("accent")
    current = scene.place[1] if scene.focused and scene.place is not None and scene.place[0] != APART else -1
    metrics = QFontMetrics(scene.font)
    wide = geometry.cell.width()
    every = -(-metrics.height() // wide) if geometry.upright else 1
    for column in geometry.visible(scene.scroll, scene.view)[1]:
        left = geometry.left + column * wide - scene.scroll.x()
        title = scene.grid.titles[column]
        painter.setPen(accent if column == current else plain)
        if not geometry.upright:
            painter.drawText(QRect(left, 0, wide + geometry.gap, geometry.top), Qt.AlignmentFlag.AlignCenter, title)
        elif column % every == 0:
            room = geometry.top - 6
            painter.save()
            painter.translate(left + (wide + metrics.ascent()) / 2, geometry.top - 4)
            painter.rotate(-90)
            painter.drawText(0, 0, metrics.elidedText(title, Qt.TextElideMode.ElideMiddle, room))
            painter.restore()


def _paint_numbers(painter: QPainter, scene: Scene) -> None:
    """The blocks, in view at the left however far the map is scrolled to the right."""
    geometry = scene.geometry
    window = scene.palette.color(QPalette.ColorRole.Window)
    painter.save()
    painter.setClipRect(QRect(0, geometry.top, geometry.left, scene.view.height()))
    painter.fillRect(0, geometry.top, geometry.left, scene.view.height(), window)
    tall = geometry.cell.height()
    font = QFont(scene.font)
    if tall >= _SMALLEST_TEXT + 2:
        font.setPixelSize(min(tall - 3, _LARGEST_TEXT))
    painter.setFont(font)
    muted, accent = scene.theme.color("muted"), scene.theme.color("accent")
    current = scene.place[0] if scene.focused and scene.place is not None else APART
    every = max(1, -(-QFontMetrics(font).ascent() // tall))
    flags = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
    for row in geometry.visible(scene.scroll, scene.view)[0]:
        if row % every == 0:
            painter.setPen(accent if row == current else muted)
            top = geometry.first_row + row * tall - scene.scroll.y()
            painter.drawText(QRect(0, top, geometry.left - 8, tall * every + geometry.gap), flags, str(row))
    painter.restore()
    painter.fillRect(0, 0, geometry.left, geometry.top, window)
