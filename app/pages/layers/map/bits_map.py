"""The bits map of a model: one cell per layer, a row per block, a column per kind of module.

Shows values as colors and the selection as outlines, and changes the shared selection by mouse and keyboard. The
experts of a block are one cell until they are expanded, which the owner does on request.
"""

from __future__ import annotations

import html
from operator import is_
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

from app.pages.layers.layer_grid import OUTER_ROW, LayerGrid
from app.pages.layers.layer_sheet import LayerSheet
from app.pages.layers.map import colors, painting, words
from app.pages.layers.map.cells import MapCells
from app.pages.layers.map.cursor import MapCursor, Place
from app.pages.layers.map.geometry import ZOOMS, Hit, MapGeometry, make_geometry
from app.pages.layers.map.scene import Scene, cell_image
from app.pages.layers.selection import Selection

if TYPE_CHECKING:
    from app.theme import Theme

_STEP: Final = 1.2
"""Zoom factor per step of the mouse wheel."""
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
_ENTERS: Final = (int(Qt.Key.Key_Return), int(Qt.Key.Key_Enter))
_ZOOMS: Final = {int(Qt.Key.Key_Plus): _STEP, int(Qt.Key.Key_Equal): _STEP, int(Qt.Key.Key_Minus): 1 / _STEP}


class BitsMapView(QAbstractScrollArea):
    """The widget that paints the map.

    Signals:
        scale_changed: the new scale of the colors (`colors.Scale`), for a legend.
        fold_wanted: the stem (`layer_grid.Band`) of the experts to expand or collapse.
    """

    scale_changed = Signal(object)
    fold_wanted = Signal(str)

    def __init__(self, theme: Theme, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme, self._selection = theme, selection
        self._cells: MapCells | None = None
        self._cursor: MapCursor | None = None
        self._pixels: MapGeometry | None = None
        self._coloring, self._zoom = "bits", 1.0
        self._matches: frozenset[int] | None = None
        self._lit: frozenset[int] | None = None
        self._values: list[float] = []
        self._colors: list[int] = []
        self._colored: tuple[object, ...] = ()
        self._image = QImage()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(self.tr("Bits map"))
        self.setWhatsThis(
            self.tr(
                "Arrow keys move, Shift with arrow keys selects a range, Space adds or removes a layer, "
                "Enter expands or collapses experts."
            )
        )
        theme.changed.connect(self._repaint)
        selection.changed.connect(self._selection_changed)
        selection.current_changed.connect(self._current_changed)

    @property
    def zoom(self) -> float:
        """The zoom factor; 1 fits the map into the view within limits."""
        return self._zoom

    @property
    def pixels(self) -> MapGeometry | None:
        """The geometry of the map without scrolling."""
        return self._pixels

    @property
    def offset(self) -> QPoint:
        """The scroll offset."""
        return QPoint(self.horizontalScrollBar().value(), self.verticalScrollBar().value())

    def show_layers(self, grid: LayerGrid | None, sheet: LayerSheet | None) -> None:
        """Show these layers; None for both clears the map. The scroll position is kept for the same model."""
        before = self._cells.grid if self._cells is not None else None
        self._cells = None if grid is None or sheet is None else MapCells(grid, sheet)
        if grid is not before:
            self._cursor = None if grid is None else MapCursor(grid, self._selection)
            if grid is not None and before is not None and grid.template is before.template is not None:
                self._lay_out()
                self._reveal_fold(before, grid)
            else:
                self._matches, self._zoom = None, 1.0
                self._lay_out()
                self.horizontalScrollBar().setValue(0)
                self.verticalScrollBar().setValue(0)
        self._recolor()
        self.viewport().update()
        self._describe()

    def set_coloring(self, coloring: str) -> None:
        """Set the quantity that the colors show.

        Args:
            coloring: `bits`, `sensitivity` (loss increase at the fewest bits), `size` or `loss` (after a run).
        """
        self._coloring = coloring
        self._recolor()

    def set_matches(self, matches: frozenset[int] | None) -> None:
        """Fade all layers except these; None fades none."""
        self._matches = matches
        self._recolor()

    def set_zoom(self, zoom: float, around: QPoint | None = None) -> None:
        """Set the zoom and keep the point `around` (the centre if None) in place."""
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
        """Return the size for a small model."""
        return QSize(560, 440)

    # --- painting -------------------------------------------------------------------------------------------

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the visible part."""
        painter = QPainter(self.viewport())
        if self._cells is None or self._pixels is None:
            painter.fillRect(self.viewport().rect(), self.palette().color(QPalette.ColorRole.Base))
        else:
            scene = Scene(
                cells=self._cells,
                geometry=self._pixels,
                image=self._image,
                values=self._values,
                colors=self._colors,
                coloring=self._coloring,
                lit=self._lit,
                selected=self._selection.layers,
                current=self._selection.current,
                focused=self.hasFocus(),
                scroll=self.offset,
                view=self.viewport().size(),
                palette=self.palette(),
                font=self.font(),
                theme=self._theme,
            )
            painting.paint(painter, scene)
        painter.end()

    def _repaint(self) -> None:
        self._colored = ()
        self._recolor()

    def _recolor(self) -> None:
        scale, before, self._colored = colors.Scale(), self._colored, ()
        if self._cells is not None and self._coloring == "sensitivity":
            # An edit does not change the sensitivity.
            self._colored = (self._cells.grid, self._cells.sheet.loss_increase, self._matches)
            if before and all(map(is_, before, self._colored)):
                return
        if self._cells is not None:
            self._values = self._cells.values(self._coloring)
            self._colors, scale = colors.cell_colors(self._theme, self._cells, self._coloring, self._values)
            self._lit = None if self._matches is None else self._cells.lit(self._matches)
            if self._lit is not None:
                ground = self.palette().color(QPalette.ColorRole.Base)
                self._colors = colors.dimmed(self._colors, self._lit, ground)
            self._image = cell_image(self._cells.grid, self._colors)
        self.scale_changed.emit(scale)
        self.viewport().update()

    def _lay_out(self) -> None:
        view = self.viewport().size()
        self._pixels = None
        if self._cells is not None:
            self._pixels = make_geometry(self._cells.grid, view, self._zoom, QFontMetrics(self.font()))
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
            self._repaint()

    # --- mouse ----------------------------------------------------------------------------------------------

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Select a cell, a column, a row or all; Ctrl adds and removes, Shift extends the selection."""
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
        elif hit.part == "fold":
            self._want_fold(hit.column)
        elif hit.part == "band":
            band = self._cells.grid.band_at(hit.column) if self._cells is not None else None
            columns = band.columns if band is not None else range(hit.column, hit.column + 1)
            self._cursor.press_columns(columns, extend=extend, toggle=toggle)
        elif hit.part == "copied":
            part = self._cells.grid.copied[hit.row] if self._cells is not None else None
            self._cursor.press_layers(part.layers if part is not None else (), keep=extend or toggle)
        elif hit.part == "corner":
            self._cursor.press_all()
        else:
            self._cursor.press_nothing(keep=extend or toggle)

    def mouseDoubleClickEvent(self, event: QMouseEvent) -> None:
        """Expand or collapse the experts under the mouse."""
        hit = self._pixels.hit(event.position().toPoint(), self.offset) if self._pixels is not None else Hit()
        plain = event.button() == Qt.MouseButton.LeftButton and not event.modifiers() & (_SHIFT | _CTRL)
        inside = hit.part in ("column", "band") or (hit.part == "cell" and hit.row != OUTER_ROW)
        if not (plain and inside and self._want_fold(hit.column)):
            self.mousePressEvent(event)

    def _want_fold(self, column: int) -> bool:
        """Request to expand or collapse the experts of a column; return False if it has none."""
        band = self._cells.grid.band_at(column) if self._cells is not None else None
        if band is not None:
            self.fold_wanted.emit(band.stem)
        return band is not None

    def mouseMoveEvent(self, event: QMouseEvent) -> None:
        """Select the rectangle from the point where the button was pressed."""
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
        """Show the tooltip of the item under the mouse."""
        if event.type() != QEvent.Type.ToolTip or not isinstance(event, QHelpEvent):
            return super().viewportEvent(event)
        text = self.tip_at(event.pos())
        # Escaped, because names in a checkpoint are untrusted.
        shown = f"<p style='white-space:pre'>{html.escape(text)}</p>" if text else ""
        QToolTip.showText(event.globalPos(), shown, self.viewport())
        return True

    def tip_at(self, point: QPoint) -> str:
        """Return the text of the tooltip at a point of the viewport."""
        if self._pixels is None or self._cells is None:
            return ""
        return words.tip(self._cells, self._pixels.hit(point, self.offset))

    # --- keys -----------------------------------------------------------------------------------------------

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Move and select; pass all other keys on to the page."""
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
        elif key in _ENTERS and not keep and cursor.place is not None and cursor.place[0] != OUTER_ROW:
            if not self._want_fold(cursor.place[1]):
                event.ignore()
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

    # --- selection ------------------------------------------------------------------------------------------

    def _reveal(self, place: Place) -> None:
        """Scroll by the minimum that makes a cell visible."""
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

    def _reveal_fold(self, before: LayerGrid, after: LayerGrid) -> None:
        """Scroll to the expanded or collapsed experts, at least to their start, and to the current cell."""
        folded = {band.stem: band.folded for band in before.bands}
        turned = [band for band in after.bands if band.folded != folded.get(band.stem)]
        row = self._pixels.visible(self.offset, self.viewport().size())[0] if self._pixels is not None else range(0)
        if turned and row:
            for column in (turned[0].columns[-1], turned[0].columns[0]):
                self._reveal((row[len(row) // 2], column))
        if self._cursor is not None and self._cursor.place is not None:
            self._reveal(self._cursor.place)

    def _selection_changed(self) -> None:
        self._describe()
        self.viewport().update()

    def _current_changed(self, _layer: int) -> None:
        place = self._cursor.place if self._cursor is not None else None
        if place is not None:
            self._reveal(place)
        self._selection_changed()

    def _describe(self) -> None:
        """Update the accessible description with the current cell."""
        place = self._cursor.place if self._cursor is not None else None
        if self._cells is None or place is None:
            self.setAccessibleDescription(self.tr("No current layer"))
        else:
            self.setAccessibleDescription(words.spoken(self._cells, place, self._selection.layers))

    def focusInEvent(self, event: QFocusEvent) -> None:
        super().focusInEvent(event)
        self.viewport().update()

    def focusOutEvent(self, event: QFocusEvent) -> None:
        super().focusOutEvent(event)
        self.viewport().update()
