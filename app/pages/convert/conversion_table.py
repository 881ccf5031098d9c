"""Table model of the possible conversions: exact ones first, then inexact ones, then impossible ones.

Each part has a heading, which cannot be selected.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from PySide6.QtCore import QAbstractTableModel, QModelIndex, QObject, QPersistentModelIndex, Qt
from PySide6.QtGui import QFont

from app.pages.convert.conversion_words import ROLES, VERDICTS, heading, verdict_text
from app.shared.formats import words as format_words
from core.conversion.survey import ConversionOption
from core.wording import human

if TYPE_CHECKING:
    from app.theme import Theme

FORMAT, RESULT, SIZE, WHY = range(4)
_RIGHT: Final = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
_DASH: Final = "\N{EN DASH}"

Index = QModelIndex | QPersistentModelIndex
Row = ConversionOption | str


class ConversionTable(QAbstractTableModel):
    """Rows of `ConversionOption`, with headings."""

    def __init__(self, theme: Theme, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rows: list[Row] = []
        self._titles = (self.tr("Format"), self.tr("Result"), self.tr("Size"), self.tr("Notes"))
        theme.changed.connect(self._colors_changed)

    def show_rows(self, found: Sequence[ConversionOption]) -> None:
        """Replace the rows."""
        self.beginResetModel()
        self._rows = []
        order = {name: number for number, name in enumerate(_all_formats())}
        for verdict in VERDICTS:
            part = [row for row in found if row.verdict == verdict]
            part.sort(key=lambda row: order.get(row.format, len(order)))
            if part:
                self._rows += [heading(verdict, len(part)), *part]
        self.endResetModel()

    def row_at(self, row: int) -> ConversionOption | None:
        """Return the option of a row; None for a heading."""
        found = self._rows[row] if 0 <= row < len(self._rows) else None
        return found if isinstance(found, ConversionOption) else None

    def headings(self) -> list[int]:
        """Return the numbers of the heading rows."""
        return [number for number, row in enumerate(self._rows) if isinstance(row, str)]

    def first(self, kind: str = "") -> int:
        """Return the first row, preferably an exact one of a family other than `kind`; -1 if there is none."""
        found = [(number, row) for number, row in enumerate(self._rows) if isinstance(row, ConversionOption)]
        exact = [(number, row) for number, row in found if row.verdict == "exact"]
        others = [(number, row) for number, row in exact if format_words.family_of(row.format).title != kind]
        return next((number for number, _row in (*others, *exact, *found)), -1)

    # --- QAbstractTableModel ---

    def rowCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008 - Qt's name and default
        """Return the number of rows, including headings."""
        return 0 if parent.isValid() else len(self._rows)

    def columnCount(self, parent: Index = QModelIndex()) -> int:  # noqa: B008
        """Return the number of columns."""
        return 0 if parent.isValid() else len(self._titles)

    def flags(self, index: Index) -> Qt.ItemFlag:
        """Return the item flags; a heading is neither selectable nor focusable."""
        if self.row_at(index.row()) is None:
            return Qt.ItemFlag.NoItemFlags
        return Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsSelectable

    def headerData(self, section: int, orientation: Qt.Orientation, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the titles of the columns."""
        if orientation != Qt.Orientation.Horizontal or not 0 <= section < len(self._titles):
            return None
        if role == Qt.ItemDataRole.DisplayRole:
            return self._titles[section] + ("\N{EM SPACE}" if section == SIZE else "")
        if role == Qt.ItemDataRole.TextAlignmentRole:
            return _RIGHT if section == SIZE else Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        return None

    def data(self, index: Index, role: int = Qt.ItemDataRole.DisplayRole) -> Any:
        """Return the text or the appearance of a cell."""
        row = self._rows[index.row()]
        if isinstance(row, str):
            return self._heading(row, index.column(), role)
        column = index.column()
        if role == Qt.ItemDataRole.DisplayRole:
            return self._text(row, column)
        if role == Qt.ItemDataRole.AccessibleTextRole and column == FORMAT:
            return ", ".join(filter(None, (self._text(row, part) for part in (FORMAT, RESULT, SIZE, WHY))))
        if role == Qt.ItemDataRole.ToolTipRole:
            words = row.reason if column != SIZE else f"{row.nbytes:,} bytes" if row.nbytes else ""
            return f"<p>{html.escape(words)}</p>" if words else None
        if role == Qt.ItemDataRole.TextAlignmentRole and column == SIZE:
            return _RIGHT
        if role == Qt.ItemDataRole.ForegroundRole and (column in (RESULT, WHY) or row.verdict == "no"):
            return self._theme.color(ROLES[row.verdict] if column == RESULT else "muted")
        return None

    def _heading(self, text: str, column: int, role: int) -> Any:
        if role == Qt.ItemDataRole.DisplayRole and column == FORMAT:
            return text
        if role == Qt.ItemDataRole.FontRole:
            font = QFont()
            font.setWeight(QFont.Weight.DemiBold)
            return font
        if role == Qt.ItemDataRole.ForegroundRole:
            return self._theme.color("muted")
        return None

    def _text(self, row: ConversionOption, column: int) -> str:
        if column == FORMAT:
            return format_words.title(row.format)
        if column == RESULT:
            return verdict_text(row.verdict)
        if column == SIZE:
            return human(row.nbytes) if row.nbytes and row.verdict != "no" else _DASH
        return row.reason or format_words.family_of(row.format).about

    def _colors_changed(self) -> None:
        if self._rows:
            last = self.index(len(self._rows) - 1, len(self._titles) - 1)
            self.dataChanged.emit(self.index(0, 0), last, [Qt.ItemDataRole.ForegroundRole])


def _all_formats() -> list[str]:
    return [name for family in format_words.all_families() for name in family.formats]
