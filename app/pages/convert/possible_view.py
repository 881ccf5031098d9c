"""The table of the possible conversions."""

from __future__ import annotations

from typing import Any, Final

from PySide6.QtCore import QLocale, QModelIndex, Qt, Signal
from PySide6.QtGui import QKeyEvent, QResizeEvent
from PySide6.QtWidgets import QAbstractItemView, QHeaderView, QStyledItemDelegate, QTableView, QWidget

from app.pages.convert.conversion_table import FORMAT, RESULT, SIZE, WHY, ConversionTable
from core.conversion.survey import ConversionOption

_WIDTHS: Final = {FORMAT: 34, RESULT: 16, SIZE: 13}
"""Widths in average characters; the reasons take the rest."""
_ROW = 10
"""Vertical padding of a row in pixels."""


class _SizeDelegate(QStyledItemDelegate):
    """A delegate with right-aligned sizes and padding."""

    def displayText(self, value: Any, locale: QLocale | QLocale.Language) -> str:
        return f"{super().displayText(value, locale)}\N{EM SPACE}"


class PossibleView(QTableView):
    """A table with one selected row; arrow keys skip the headings.

    Signals:
        chosen(object): another `ConversionOption` was selected, or None.
        wanted(object): a `ConversionOption` was double-clicked, or Enter was pressed on it.
    """

    chosen = Signal(object)
    wanted = Signal(object)

    def __init__(self, table: ConversionTable, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._table = table
        self.setModel(table)
        self.setObjectName("convert_table")
        self.setAccessibleName(self.tr("Possible conversions"))
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        self.setShowGrid(False)
        self.setTabKeyNavigation(False)
        self.setItemDelegateForColumn(SIZE, _SizeDelegate(self))
        self.setWordWrap(False)
        self.verticalHeader().hide()
        self.verticalHeader().setSectionResizeMode(QHeaderView.ResizeMode.Fixed)
        self.verticalHeader().setDefaultSectionSize(self.fontMetrics().lineSpacing() + _ROW)
        header = self.horizontalHeader()
        header.setHighlightSections(False)
        header.setSectionsClickable(False)
        header.setSectionsMovable(False)
        header.setStretchLastSection(True)
        header.setMinimumSectionSize(40)
        self.doubleClicked.connect(self._want)
        self.selectionModel().currentRowChanged.connect(self._current_changed)
        table.modelReset.connect(self._laid_out)

    @property
    def current(self) -> ConversionOption | None:
        """Return the option of the selected row."""
        return self._table.row_at(self.currentIndex().row())

    def choose_first(self, kind: str = "") -> None:
        """Select the first row, preferably of a family other than `kind`."""
        row = self._table.first(kind)
        if row >= 0:
            self.selectRow(row)
            self.scrollToTop()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter) and not event.modifiers():
            self._want(self.currentIndex())
        else:
            super().keyPressEvent(event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        letter = self.fontMetrics().averageCharWidth()
        for column, letters in _WIDTHS.items():
            self.setColumnWidth(column, letters * letter)

    def _laid_out(self) -> None:
        self.clearSpans()
        for row in self._table.headings():
            self.setSpan(row, FORMAT, 1, WHY + 1)

    def _current_changed(self, current: QModelIndex, _before: QModelIndex) -> None:
        self.chosen.emit(self._table.row_at(current.row()))

    def _want(self, index: QModelIndex) -> None:
        row = self._table.row_at(index.row())
        if row is not None:
            self.wanted.emit(row)
