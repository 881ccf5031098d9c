"""The map of a model: one cell a layer, blocks downward, kinds of modules across; painted by one widget.

Shows figures by colour, a selection by outlines, and turns mouse and keys into changes of the shared selection.
Knows nothing of what a change of bits is or how it is undone.
"""

from __future__ import annotations

import html
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QEvent, QPoint, QSize, Qt, Signal
from PySide6.QtGui import (
    QFocusEvent,
    QFontMetrics,
    QHelpEvent,
    QImage,
    QKeyEvent,
    QMouseEvent,
    QPainter,
    QPaintEvent,
    QPalette,
    QResizeEvent,
    QWheelEvent,
)
from PySide6.QtWidgets import QAbstractScrollArea, QToolTip, QWidget

from app.models.layer_grid import APART, NOTHING, LayerGrid
from app.models.layer_sheet import LayerSheet
from app.models.map_cursor import MapCursor, Place
from app.models.selection import Selection
from app.pages.layers import map_colours, map_painting
from app.pages.layers.map_geometry import ZOOMS, MapGeometry, make_geometry

if TYPE_CHECKING:
    from app.theme import Theme

_STEP: Final = 1.2
"""Zoom of one notch of the wheel."""
_NOTCH: Final = 120
_CTRL: Final = Qt.KeyboardModifier.ControlModifier
_SHIFT: Final = Qt.KeyboardModifier.ShiftModifier
_MOVES: Final = {
    int(Qt.Key.Key_Left): (0, -1),
    int(Qt.Key.Key_Right): (0, 1),
    int(Qt.Key.Key_Up): (-1, 0),
    int(Qt.Key.Key_Down): (1, 0),
}
_ENDS: Final = {int(Qt.Key.Key_Home): True, int(Qt.Key.Key_End): False}
_PAGES: Final = {int(Qt.Key.Key_PageUp): -1, int(Qt.Key.Key_PageDown): 1}
_ZOOMS: Final = {int(Qt.Key.Key_Plus): _STEP, int(Qt.Key.Key_Equal): _STEP, int(Qt.Key.Key_Minus): 1 / _STEP}


class BitsMapView(QAbstractScrollArea):
    """The painted map.

    Signals:
        scale_changed: the colours have another scale now (`map_colours.Scale`), for a legend.
    """

    scale_changed = Signal(object)

    def __init__(self, theme: Theme, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme, self._selection = theme, selection
        self._grid: LayerGrid | None = None
        self._sheet: LayerSheet | None = None
        self._cursor: MapCursor | None = None
        self._pixels: MapGeometry | None = None
        self._colouring, self._zoom = "bits", 1.0
        self._matches: frozenset[int] | None = None
        self._colours: list[int] = []
        self._image = QImage()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(self.tr("Bits map"))
        self.setWhatsThis(self.tr("Arrows move, Shift with arrows selects a range, Space adds or removes a layer."))
        theme.changed.connect(self._recolour)
        selection.changed.connect(self._selection_changed)
        selection.current_changed.connect(self._current_changed)

    @property
    def zoom(self) -> float:
        """1 fits the map in, within reason."""
        return self._zoom

    @property
    def pixels(self) -> MapGeometry | None:
        """Where everything stands, before scrolling."""
        return self._pixels

    @property
    def offset(self) -> QPoint:
        """How far the map is scrolled."""
        return QPoint(self.horizontalScrollBar().value(), self.verticalScrollBar().value())

    def show_layers(self, grid: LayerGrid | None, sheet: LayerSheet | None) -> None:
        """Show these layers; None for both shows nothing."""
        moved = grid is not self._grid
        self._grid, self._sheet = grid, sheet
        if moved:
            self._cursor = None if grid is None else MapCursor(grid, self._selection)
            self._matches, self._zoom = None, 1.0
            self._lay_out()
            self.horizontalScrollBar().setValue(0)
            self.verticalScrollBar().setValue(0)
        self._recolour()
        self._describe()

    def set_colouring(self, colouring: str) -> None:
        """Colour by one of `layer_sheet.COLOURINGS`."""
        self._colouring = colouring
        self._recolour()

    def set_matches(self, matches: frozenset[int] | None) -> None:
        """Fade all layers but these; None fades none."""
        self._matches = matches
        self._recolour()

    def set_zoom(self, zoom: float, around: QPoint | None = None) -> None:
        """Zoom so that what is at `around` (the middle, if None) stays there."""
        zoom = min(max(zoom, ZOOMS[0]), ZOOMS[1])
        before = self._pixels
        if before is None or zoom == self._zoom:
            return
        point = around or self.viewport().rect().center()
        place = point + self.offset - QPoint(before.left, before.first_row)
        self._zoom = zoom
        self._lay_out()
        after = self._pixels or before
        x = place.x() * after.cell.width() / before.cell.width() + after.left - point.x()
        y = place.y() * after.cell.height() / before.cell.height() + after.first_row - point.y()
        self.horizontalScrollBar().setValue(round(x))
        self.verticalScrollBar().setValue(round(y))

    def sizeHint(self) -> QSize:
        """Room for a small model."""
        return QSize(560, 440)

    # --- painting -------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint what is in view."""
        painter = QPainter(self.viewport())
        if self._grid is None or self._sheet is None or self._pixels is None:
            painter.fillRect(self.viewport().rect(), self.palette().color(QPalette.ColorRole.Base))
        else:
            scene = map_painting.Scene(
                grid=self._grid,
                sheet=self._sheet,
                geometry=self._pixels,
                image=self._image,
                colours=self._colours,
                colouring=self._colouring,
                matches=self._matches,
                selected=self._selection.layers,
                current=self._selection.current,
                focused=self.hasFocus(),
                scroll=self.offset,
                view=self.viewport().size(),
                palette=self.palette(),
                font=self.font(),
                theme=self._theme,
            )
            map_painting.paint(painter, scene)
        painter.end()

    def _recolour(self) -> None:
        scale = map_colours.Scale()
        if self._sheet is not None and self._grid is not None:
            self._colours, scale = map_colours.cell_colours(self._theme, self._sheet, self._colouring)
            if self._matches is not None:
                ground = self.palette().color(QPalette.ColorRole.Base)
                self._colours = map_colours.dimmed(self._colours, self._matches, ground)
            self._image = map_painting.cell_image(self._grid, self._colours)
        self.scale_changed.emit(scale)
        self.viewport().update()

    def _lay_out(self) -> None:
        view = self.viewport().size()
        self._pixels = None
        if self._grid is not None:
            self._pixels = make_geometry(self._grid, view, self._zoom, QFontMetrics(self.font()))
            whole, cell = self._pixels.size, self._pixels.cell
            for bar, full, room, step in (
                (self.horizontalScrollBar(), whole.width(), view.width(), cell.width()),
                (self.verticalScrollBar(), whole.height(), view.height(), cell.height()),
            ):
                bar.setRange(0, max(0, full - room))
                bar.setPageStep(room)
                bar.setSingleStep(max(step, 16))
        self.viewport().update()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._lay_out()

    def changeEvent(self, event: QEvent) -> None:
        super().changeEvent(event)
        if event.type() == QEvent.Type.FontChange:
            self._lay_out()
        elif event.type() == QEvent.Type.PaletteChange and self._matches is not None:
            self._recolour()

    # --- mouse ----------------------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select a cell, a column, a row or all; Ctrl adds and removes, Shift takes all up to here."""
        if event.button() != Qt.MouseButton.LeftButton or self._pixels is None or self._cursor is None:
            return
        hit = self._pixels.hit(event.position().toPoint(), self.offset)
        extend, toggle = bool(event.modifiers() & _SHIFT), bool(event.modifiers() & _CTRL)
        if hit.part == "cell":
            self._cursor.press_cell((hit.row, hit.column), extend=extend, toggle=toggle)
        elif hit.part == "column":
            self._cursor.press_column(hit.column, extend=extend, toggle=toggle)
        elif hit.part == "row":
            self._cursor.press_row(hit.row, extend=extend, toggle=toggle)
        elif hit.part == "corner":
            self._cursor.press_all()
        else:
            self._cursor.press_nothing(keep=extend or toggle)

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Select the rectangle from where the button was pressed."""
        if self._pixels is None or self._cursor is None or not event.buttons() & Qt.MouseButton.LeftButton:
            return
        place = self._pixels.nearest(event.position().toPoint(), self.offset)
        if self._cursor.drag_to(place):
            self._reveal(place)

    def mouseReleaseEvent(self, event: QMouseEvent) -> None:
        """End a drag."""
        if self._cursor is not None:
            self._cursor.release()

    def wheelEvent(self, event: QWheelEvent) -> None:
        """Scroll, or zoom with Ctrl."""
        if event.modifiers() & _CTRL:
            notches = event.angleDelta().y() / _NOTCH
            self.set_zoom(self._zoom * _STEP**notches, event.position().toPoint())
            event.accept()
        else:
            super().wheelEvent(event)

    def viewportEvent(self, event: QEvent) -> bool:
        """Show the tooltip of what is under the mouse."""
        if event.type() != QEvent.Type.ToolTip or not isinstance(event, QHelpEvent):
            return super().viewportEvent(event)
        text = self.tip_at(event.pos())
        # Escaped: the names in a checkpoint are a stranger's.
        shown = f"<p style='white-space:pre'>{html.escape(text)}</p>" if text else ""
        QToolTip.showText(event.globalPos(), shown, self.viewport())
        return True

    def tip_at(self, point: QPoint) -> str:
        """What the tooltip says at a point of the viewport."""
        if self._pixels is None or self._grid is None or self._sheet is None:
            return ""
        hit = self._pixels.hit(point, self.offset)
        if hit.part == "column":
            return self.tr("{} in every block").format(self._grid.kinds[hit.column])
        if hit.part == "row":
            return self.tr("Block {}").format(hit.row)
        if hit.part != "cell":
            return ""
        layer = self._grid.layer_at(hit.row, hit.column)
        if layer == NOTHING:
            return self._grid.apart[hit.column].note if hit.row == APART else ""
        return self._sheet.describe(layer)

    # --- keys -----------------------------------------------------------------------------------------------

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move and select; keys that are not about that are left to the page."""
        cursor, key = self._cursor, event.key()
        extend, keep = bool(event.modifiers() & _SHIFT), bool(event.modifiers() & _CTRL)
        if cursor is None or self._pixels is None:
            event.ignore()
        elif key in _MOVES:
            self._go(cursor, cursor.step(*_MOVES[key]), extend, keep)
        elif key in _ENDS:
            self._go(cursor, cursor.end(back=_ENDS[key], far=keep), extend, False)
        elif key in _PAGES:
            rows = (self.viewport().height() - self._pixels.top) // self._pixels.cell.height()
            self._go(cursor, cursor.page(_PAGES[key] * max(1, rows - 1)), extend, False)
        elif key == Qt.Key.Key_Space:
            cursor.toggle_current()
        elif keep and key in _ZOOMS:
            self.set_zoom(self._zoom * _ZOOMS[key])
        elif keep and key == Qt.Key.Key_0:
            self.set_zoom(1.0)
        else:
            event.ignore()

    def _go(self, cursor: MapCursor, place: Place | None, extend: bool, keep: bool) -> None:
        cursor.go(place, extend=extend, keep=keep)
        if place is not None:
            self._reveal(place)

    # --- the selection --------------------------------------------------------------------------------------

    def _reveal(self, place: Place) -> None:
        """Scroll as little as brings a cell into view."""
        if self._pixels is None:
            return
        rect = self._pixels.rect(*place).adjusted(-2, -2, 2, 2)
        for bar, low, high, fixed, room in (
            (self.horizontalScrollBar(), rect.left(), rect.right(), self._pixels.left, self.viewport().width()),
            (self.verticalScrollBar(), rect.top(), rect.bottom(), self._pixels.top, self.viewport().height()),
        ):
            if low - bar.value() < fixed:
                bar.setValue(low - fixed)
            elif high - bar.value() > room:
                bar.setValue(high - room)

    def _selection_changed(self) -> None:
        self._describe()
        self.viewport().update()

    def _current_changed(self, _layer: int) -> None:
        place = self._cursor.place if self._cursor is not None else None
        if place is not None:
            self._reveal(place)
        self._selection_changed()

    def _describe(self) -> None:
        """Tell screen readers about the current layer."""
        current = self._selection.current
        if self._sheet is None or not 0 <= current < len(self._sheet):
            self.setAccessibleDescription(self.tr("No layer is current."))
            return
        state = self.tr("selected") if current in self._selection.layers else self.tr("not selected")
        self.setAccessibleDescription(f"{self._sheet.spoken(current)}, {state}")

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.viewport().update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.viewport().update()
