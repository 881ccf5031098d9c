"""The tree view of layers, which shares its selection with the map.

The selection of Qt stays empty: testing every visible cell against thousands of ranges takes seconds. Gestures change
the shared selection instead, and the rows are painted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QEvent, QItemSelection, QItemSelectionModel, QModelIndex, QRect, QSize, Qt
from PySide6.QtGui import QBrush, QColor, QIcon, QKeyEvent, QPainter, QPalette, QPixmap, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QStyle,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTreeView,
    QWidget,
)

from app.pages.layers.list.layer_table import (
    BITS,
    GROUP,
    LOSS_INCREASE,
    NAME,
    SHAPE,
    SIZE,
    SYMMETRIC,
    WHY,
    Index,
    LayerTable,
)
from app.pages.layers.selection import Selection

_WIDTHS: Final = {NAME: 40, SHAPE: 14, BITS: 9, GROUP: 9, SYMMETRIC: 12, SIZE: 12, LOSS_INCREASE: 12, WHY: 24}
"""Column widths in average characters; that of the names is the minimum beside the column of reasons."""
_GIVE_WAY: Final = (WHY, SYMMETRIC, SHAPE, GROUP)
_SHORTEST: Final = 29
"""Width of the names in average characters without that column."""
_SWATCH: Final = 12
_SWATCHES: Final = QSize(_SWATCH, _SWATCH)
_MOST_OPEN: Final = 2500
"""Maximum number of rows that a filter expands; more would delay typing."""
_PARTLY: Final = 60
"""Opacity (0 to 255) of the highlight of a partly selected row."""
_FLAGS: Final = QItemSelectionModel.SelectionFlag
_KEYPAD: Final = Qt.KeyboardModifier.KeypadModifier


class _Gestures(QItemSelectionModel):
    """A selection model that forwards selection commands to the shared selection and stays empty itself."""

    def __init__(self, view: LayerList, model: LayerTable, selection: Selection) -> None:
        super().__init__(model, view)
        self._view, self._shared = view, selection
        self._kept: frozenset[int] = selection.layers
        self._last: tuple[frozenset[int], QItemSelectionModel.SelectionFlag] | None = None
        selection.changed.connect(self._forget)
        self._own = False

    def select(  # type: ignore[override] # one name for two of Qt's
        self, what: QItemSelection | QModelIndex, command: QItemSelectionModel.SelectionFlag
    ) -> None:
        """Select the layers below the rows; `Current` replaces the last selection of the current gesture."""
        if command & _FLAGS.Clear:
            self._kept, self._last = frozenset(), None
        elif not command & _FLAGS.Current:
            self._kept, self._last = self._merged(), None
        if command & (_FLAGS.Select | _FLAGS.Deselect):
            self._last = self._view.layers_under(what), command
        self._own = True
        self._shared.select(self._merged())
        self._own = False

    def _merged(self) -> frozenset[int]:
        if self._last is None:
            return self._kept
        layers, command = self._last
        return self._kept - layers if command & _FLAGS.Deselect else self._kept | layers

    def _forget(self) -> None:
        """Continue from the selection of another view."""
        if not self._own:
            self._kept, self._last = self._shared.layers, None


class _RowDelegate(QStyledItemDelegate):
    """A delegate that paints the shared selection, and the colors of the bits without the tint of the style."""

    def __init__(self, view: LayerList) -> None:
        super().__init__(view)
        self._view = view

    def initStyleOption(self, option: QStyleOptionViewItem, index: Index) -> None:
        """Set all options at once instead of role by role, which halves the time for a screen of cells."""
        node, column = index.internalId(), index.column()
        if isinstance(index, QModelIndex):
            option.index = index
        option.text, option.displayAlignment = self._view.words(node, column)
        option.features |= QStyleOptionViewItem.ViewItemFeature.HasDisplay
        chosen = self._view.chosen(node)
        if chosen:
            option.state |= QStyle.StateFlag.State_Selected
        elif chosen is None:
            option.backgroundBrush = QBrush(self._view.faint)
        if column == BITS:
            option.icon = self._view.swatch(node)
            option.features |= QStyleOptionViewItem.ViewItemFeature.HasDecoration
            option.decorationSize = _SWATCHES


class LayerList(QTreeView):
    """The tree view of layers."""

    def __init__(self, model: LayerTable, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._table, self._selection = model, selection
        self._syncing = False
        self._chosen: dict[int, bool | None] = {}
        self._swatches: dict[tuple[tuple[int, int], ...], QIcon] = {}
        self._open: set[tuple[int, str]] = set()
        self._opened: int | None = None
        self._listening = self._adding = True
        self.setModel(model)
        self.setSelectionModel(_Gestures(self, model, selection))
        self.setAccessibleName(self.tr("Layers"))
        self.setObjectName("layer_list")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setItemDelegate(_RowDelegate(self))
        self.setUniformRowHeights(True)
        self.setAlternatingRowColors(True)
        self.setAllColumnsShowFocus(True)
        self.setIndentation(16)
        header = self.header()
        header.setStretchLastSection(True)
        header.setSectionsMovable(False)
        for column, characters in _WIDTHS.items():
            self.setColumnWidth(column, characters * self.fontMetrics().averageCharWidth())
        self.selectionModel().currentRowChanged.connect(self._take_current)
        selection.changed.connect(self._selection_changed)
        selection.current_changed.connect(self._show_current)
        model.modelReset.connect(self._show_again)
        model.figures_changed.connect(self._show_columns)
        self.expanded.connect(lambda index: self._note(index, True))
        self.collapsed.connect(lambda index: self._note(index, False))
        self._show_columns()

    # --- selection ------------------------------------------------------------------------------------------

    def chosen(self, node: int) -> bool | None:
        """Return whether all layers below a node are selected; None if only some are."""
        if node not in self._chosen:
            layers, nodes = self._selection.layers, self._table.nodes
            if not nodes.counts[node]:
                self._chosen[node] = nodes.layers[node] in layers
            else:
                below = nodes.below(node)
                self._chosen[node] = layers.issuperset(below) or (None if not layers.isdisjoint(below) else False)
        return self._chosen[node]

    def selectionCommand(self, index: Index, event: QEvent | None = None) -> QItemSelectionModel.SelectionFlag:
        """Return the command of an event; Ctrl toggles by the state that is shown, also during a drag."""
        command = super().selectionCommand(index, event)
        if not command & _FLAGS.Toggle:
            return command
        if event is None or event.type() != QEvent.Type.MouseMove:
            self._adding = not (index.isValid() and self.chosen(index.internalId()))
        return (command & ~_FLAGS.Toggle) | (_FLAGS.Select if self._adding else _FLAGS.Deselect)

    def layers_under(self, what: QItemSelection | QModelIndex) -> frozenset[int]:
        """Return the layers of a gesture; among several rows an expanded row stands only for its visible children."""
        nodes = self._table.nodes
        if isinstance(what, QModelIndex):
            return frozenset(nodes.below(what.internalId())) if what.isValid() else frozenset()
        parts = [what.at(number) for number in range(what.count())]
        found = [part.topLeft().internalId() + step for part in parts for step in range(part.height())]
        alone = len(found) == 1
        return frozenset(
            layer
            for node in found
            if alone or not nodes.counts[node] or not self.isExpanded(self._table.index_of(node))
            for layer in nodes.below(node)
        )

    def _selection_changed(self) -> None:
        self._chosen.clear()
        self.viewport().update()

    def _take_current(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if not self._syncing and current.isValid():
            self._syncing = True
            self._selection.set_current(self._table.nodes.layers[current.internalId()])
            self._syncing = False

    def _show_current(self, layer: int) -> None:
        """Scroll to the current layer; expand its block for that and collapse it afterwards."""
        nodes = self._table.nodes
        node = nodes.nodes.get(layer, -1)
        if self._syncing or node < 0 or not self.isVisible():
            return
        self._syncing = True
        above = list(nodes.above(node))
        block = above[-1] if above else None
        if self._opened is not None and self._opened != block:
            self.collapse(self._table.index_of(self._opened))
            self._opened = None
        if block is not None and not self.isExpanded(self._table.index_of(block)):
            self.expand(self._table.index_of(block))
            self._opened = block
        if len(above) > 1 and not self.isExpanded(self._table.index_of(above[0])):
            node = above[0]
        index = self._table.index_of(node, max(self.currentIndex().column(), 0))
        self.selectionModel().setCurrentIndex(index, _FLAGS.NoUpdate)
        self.scrollTo(self._table.index_of(node))
        self._syncing = False

    # --- expanded rows --------------------------------------------------------------------------------------

    def _note(self, index: QModelIndex, is_open: bool) -> None:
        """Store the expanded rows to restore them when the filter is cleared."""
        nodes, node = self._table.nodes, index.internalId()
        if self._syncing or not self._listening:
            return
        if node == self._opened:
            self._opened = None
        if not self._table.filtered:
            key = self._key(node)
            if is_open:
                self._open.add(key)
            else:
                self._open.discard(key)
        if is_open and len(nodes) and nodes.counts[node] == 1:
            self.expand(self._table.index_of(nodes.firsts[node]))

    def _key(self, node: int) -> tuple[int, str]:
        nodes = self._table.nodes
        if node in nodes.stems:
            return nodes.blocks[nodes.parents[node]], nodes.stems[node]
        return nodes.blocks.get(node, -1), ""

    def _open_again(self) -> None:
        """Expand the rows that match the filter as far as that is fast; without a filter restore the expanded rows."""
        nodes = self._table.nodes
        self._listening = False
        if self._table.filtered:
            if len(nodes) <= _MOST_OPEN:
                self.expandAll()
            elif sum(nodes.counts[: nodes.tops]) <= _MOST_OPEN:
                self.expandToDepth(0)
        elif self._open:
            wanted = [node for node, block in nodes.blocks.items() if (block, "") in self._open]
            for node in (*wanted, *(node for node in nodes.stems if self._key(node) in self._open)):
                self.expand(self._table.index_of(node))
        self._listening = True

    def _show_again(self) -> None:
        self._chosen.clear()
        self._opened = None
        self._show_columns()
        self._open_again()
        self.executeDelayedItemsLayout()  # otherwise the rows are painted twice
        self._show_current(self._selection.current)

    # --- appearance -----------------------------------------------------------------------------------------

    def words(self, node: int, column: int) -> tuple[str, Qt.AlignmentFlag]:
        """Return the text of a cell and its alignment."""
        return self._table.text(node, column), self._table.alignment(column)

    @property
    def faint(self) -> QColor:
        """Return the background of a partly selected row."""
        color = self.palette().color(QPalette.ColorRole.Highlight)
        color.setAlpha(_PARTLY)
        return color

    def swatch(self, node: int) -> QIcon:
        """Paint the colors of the bits below a node, each with its share of the width."""
        mix = tuple(self._table.mix(node).items())
        if mix not in self._swatches:
            found = QPixmap(_SWATCH, _SWATCH)
            painter, total, done, left = QPainter(found), sum(count for _, count in mix), 0, 0
            for number, (bits, count) in enumerate(mix):
                done += count
                right = min(max(round(_SWATCH * done / total), left + 2), _SWATCH - 2 * (len(mix) - 1 - number))
                painter.fillRect(QRect(left, 0, right - left, _SWATCH), self._table.theme.bits_color(bits))
                left = right
            painter.end()
            icon = self._swatches[mix] = QIcon()
            for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
                icon.addPixmap(found, mode)
        return self._swatches[mix]

    def dataChanged(self, first: Index, last: Index, roles: Sequence[int] = ()) -> None:
        """Update the viewport; Qt would compute the position of every changed row."""
        self.viewport().update()

    def _show_columns(self) -> None:
        """Fit the columns into the width: shorten the names first, then hide columns that the side panel also shows."""
        letter = self.fontMetrics().averageCharWidth()
        shown = set(_WIDTHS) if self._table.loss_increase_known else set(_WIDTHS) - {LOSS_INCREASE}
        room = self.viewport().width() // letter - sum(_WIDTHS[column] for column in shown - {NAME})
        for column in _GIVE_WAY:
            if room < (_WIDTHS[NAME] if column == WHY else _SHORTEST):
                shown.discard(column)
                room += _WIDTHS[column]
        for column in _WIDTHS:
            self.setColumnHidden(column, column not in shown)
        self.setColumnWidth(NAME, letter * (_WIDTHS[NAME] if WHY in shown else max(room, _SHORTEST)))

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        if event.size().width() != event.oldSize().width():
            self._show_columns()

    def showEvent(self, event: QShowEvent) -> None:
        """Scroll to a layer that became current while the view was hidden."""
        super().showEvent(event)
        self._show_current(self._selection.current)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Expand or collapse with Enter; pass letters and digits on to the page."""
        index, text = self.currentIndex(), event.text().strip()
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not event.modifiers() & ~_KEYPAD:
            if index.isValid() and self._table.hasChildren(index.siblingAtColumn(NAME)):
                self.setExpanded(index.siblingAtColumn(NAME), not self.isExpanded(index.siblingAtColumn(NAME)))
            else:
                event.ignore()
        elif text and text not in "+-*" and not event.modifiers() & ~_KEYPAD:
            event.ignore()
        else:
            super().keyPressEvent(event)
