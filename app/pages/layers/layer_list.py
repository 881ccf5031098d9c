"""The table of layers; its selection is that of the map, in both directions.

Knows the table's model and the shared selection; nothing of what is done with the selected layers.
"""

from __future__ import annotations

from itertools import pairwise

from PySide6.QtCore import QItemSelection, QItemSelectionModel, QModelIndex, Qt
from PySide6.QtGui import QColor, QIcon, QKeyEvent, QPixmap, QResizeEvent, QShowEvent
from PySide6.QtWidgets import (
    QAbstractItemView,
    QHeaderView,
    QStyledItemDelegate,
    QStyleOptionViewItem,
    QTableView,
    QWidget,
)

from app.models.layer_table import BITS, BLOCK, GROUP, NAME, SHAPE, SIZE, SYMMETRIC, WHY, Index, LayerTable
from app.models.selection import Selection

_WIDTHS = {NAME: 40, BLOCK: 8, SHAPE: 14, BITS: 8, GROUP: 8, SYMMETRIC: 12, SIZE: 12, WHY: 24}
"""Widths of the columns in average characters; that of the names is the least beside a column for the reason."""
_SWATCH = 12


class _NameDelegate(QStyledItemDelegate):
    """Cuts long names at their beginning, which all of them share."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: Index) -> None:
        super().initStyleOption(option, index)
        option.textElideMode = Qt.TextElideMode.ElideLeft


class _BitsDelegate(QStyledItemDelegate):
    """Shows the colour of the bits as it is, in selected rows too, where the style would tint it."""

    def initStyleOption(self, option: QStyleOptionViewItem, index: Index) -> None:
        super().initStyleOption(option, index)
        colour = index.data(Qt.ItemDataRole.DecorationRole)
        if isinstance(colour, QColor):
            swatch, icon = QPixmap(_SWATCH, _SWATCH), QIcon()
            swatch.fill(colour)
            for mode in (QIcon.Mode.Normal, QIcon.Mode.Selected):
                icon.addPixmap(swatch, mode)
            option.icon = icon


class LayerList(QTableView):
    """Rows that can be sorted and selected."""

    def __init__(self, model: LayerTable, selection: Selection, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._table, self._selection = model, selection
        self._syncing = False
        self._outdated = True
        self.setModel(model)
        self.setAccessibleName(self.tr("Layers"))
        self.setObjectName("layer_list")
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setItemDelegateForColumn(NAME, _NameDelegate(self))
        self.setItemDelegateForColumn(BITS, _BitsDelegate(self))
        self.setWordWrap(False)
        self.setShowGrid(False)
        self.setAlternatingRowColors(True)
        self.setTabKeyNavigation(False)
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().height() + 8)
        self.verticalHeader().hide()
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setStretchLastSection(True)
        header.setSortIndicatorClearable(True)
        # A selection of its own, always empty: to paint its titles it asks of every single row whether it is selected.
        header.setSelectionModel(QItemSelectionModel(model, header))
        for column, characters in _WIDTHS.items():
            self.setColumnWidth(column, characters * self.fontMetrics().averageCharWidth())
        self.sortByColumn(-1, Qt.SortOrder.AscendingOrder)
        self.setSortingEnabled(True)
        self.selectionModel().selectionChanged.connect(self._take)
        self.selectionModel().currentRowChanged.connect(self._take_current)
        selection.changed.connect(self._show_selection)
        selection.current_changed.connect(self._show_current)
        model.modelReset.connect(self._show_again)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Leave letters and digits to the page, which has better uses for them than a search for names."""
        if event.text().strip() and not event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
            event.ignore()
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """The names give way, and where even that is too little, the reason, which the side panel tells as well."""
        super().resizeEvent(event)
        if event.size().width() == event.oldSize().width():
            return
        letter = self.fontMetrics().averageCharWidth()
        others = sum(width for column, width in _WIDTHS.items() if column not in (NAME, WHY))
        room = event.size().width() - others * letter
        short = room < (_WIDTHS[NAME] + _WIDTHS[WHY]) * letter
        self.setColumnHidden(WHY, short)
        self.setColumnWidth(NAME, max(room, _WIDTHS[WHY] * letter) if short else _WIDTHS[NAME] * letter)

    def showEvent(self, event: QShowEvent) -> None:
        """Catch up with what was selected meanwhile."""
        super().showEvent(event)
        if self._outdated:
            self._show_again()

    def _take(self, *_changes: object) -> None:
        """From the rows to the shared selection."""
        if self._syncing:
            return
        rows, parts = self._table.rows, self.selectionModel().selection()
        chosen: list[int] = []
        for number in range(parts.count()):
            part = parts.at(number)
            chosen += rows[part.top() : part.bottom() + 1]
        self._syncing = True
        self._selection.select(chosen)
        self._syncing = False

    def _take_current(self, current: QModelIndex, _previous: QModelIndex) -> None:
        if not self._syncing and current.isValid():
            self._syncing = True
            self._selection.set_current(self._table.rows[current.row()])
            self._syncing = False

    def _show_again(self) -> None:
        self.executeDelayedItemsLayout()  # or the table is painted before it and once more after it
        self._show_selection()
        self._show_current(self._selection.current)

    def _show_selection(self) -> None:
        """From the shared selection to the rows."""
        if self._syncing:
            return
        self._outdated = not self.isVisible()
        if self._outdated:
            return
        rows = sorted(self._table.rows_of(self._selection.layers))
        starts = [row for before, row in pairwise([-2, *rows]) if row != before + 1]
        ends = [row for row, after in pairwise([*rows, -2]) if after != row + 1]
        chosen = QItemSelection()
        last = self._table.columnCount() - 1
        for first, end in zip(starts, ends, strict=True):
            chosen.select(self._table.index(first, 0), self._table.index(end, last))
        self._syncing = True
        # Cleared first: Qt compares the old parts with the new ones each with each, which may be thousands.
        self.selectionModel().clearSelection()
        self.selectionModel().select(chosen, QItemSelectionModel.SelectionFlag.Select)
        self._syncing = False

    def _show_current(self, layer: int) -> None:
        row = self._table.row_of(layer)
        if self._syncing or row < 0 or not self.isVisible():
            return
        self._syncing = True
        index = self._table.index(row, max(self.currentIndex().column(), 0))
        self.selectionModel().setCurrentIndex(index, QItemSelectionModel.SelectionFlag.NoUpdate)
        self.scrollTo(index)
        self._syncing = False
