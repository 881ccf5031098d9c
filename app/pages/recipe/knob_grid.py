"""All knobs in two columns, in one where there is little room.

Shows values and tells which the user turned; knows no draft.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QLayout, QWidget

from app.pages.recipe.knob_row import KnobRow
from app.pages.recipe.knobs import KNOBS, default_of, value_of
from app.theme import Theme
from core.recipes import Recipe

_GAP = 48
"""That of the two halves of the page, so that the columns stand below them."""


class KnobGrid(QWidget):
    """A row for every knob.

    Signals:
        turned: the user gave the knob with this key a possible value.
    """

    turned = Signal(str, object)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(_GAP)
        self._grid.setVerticalSpacing(16)
        self._grid.setSizeConstraint(QLayout.SizeConstraint.SetNoConstraint)
        self._rows: dict[str, KnobRow] = {}
        for knob in KNOBS:
            row = KnobRow(theme, knob, self)
            row.turned.connect(lambda value, key=knob.key: self.turned.emit(key, value))
            self._rows[knob.key] = row
        self._columns = 0
        self._place(2)

    def row(self, key: str) -> KnobRow:
        """The row of one knob."""
        return self._rows[key]

    def show_values(self, recipe: Recipe, base: Recipe, job: Mapping[str, Any]) -> None:
        """Show what the knobs are at; `job` holds the values of those that are not of the recipe."""
        for row in self._rows.values():
            row.show_value(value_of(row.knob, recipe, job), default_of(row.knob, base), recipe)

    def stops(self) -> list[QWidget]:
        """What the keyboard reaches, in the order of reading."""
        return [widget for row in self._rows.values() for widget in row.stops()]

    @property
    def changed(self) -> list[str]:
        """Keys of the knobs that are not at their default."""
        return [key for key, row in self._rows.items() if row.changed]

    def minimumSizeHint(self) -> QSize:
        """The width of one column: two may become one."""
        return QSize(self._widest(), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """One column or two."""
        super().resizeEvent(event)
        self._place(2 if self.width() >= 2 * self._widest() + _GAP else 1)

    def _widest(self) -> int:
        """Width that the widest row needs."""
        return max(row.minimumSizeHint().width() for row in self._rows.values())

    def _place(self, columns: int) -> None:
        if columns == self._columns:
            return
        self._columns = columns
        rows = list(self._rows.values())
        height = -(-len(rows) // columns)
        for number, row in enumerate(rows):
            self._grid.removeWidget(row)
            # down the first column, then down the second, which is also the order of Tab
            self._grid.addWidget(row, number % height, number // height)
        self._grid.setColumnStretch(0, 1)
        self._grid.setColumnStretch(1, 1 if columns == 2 else 0)
