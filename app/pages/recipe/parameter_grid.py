"""All parameters of a run in one or two columns.

Shows values and emits changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import QSize, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QLayout, QWidget

from app.pages.recipe.parameter_row import ParameterRow
from app.pages.recipe.parameters import PARAMETERS, default_of, value_of
from app.theme import Theme
from core.recipes import Recipe

_GAP = 48
"""Spacing of the columns, the same as on the rest of the page."""


class ParameterGrid(QWidget):
    """A row for each parameter.

    Signals:
        turned: the key and the new valid value of a parameter.
    """

    turned = Signal(str, object)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(_GAP)
        self._grid.setVerticalSpacing(16)
        self._grid.setSizeConstraint(QLayout.SizeConstraint.SetNoConstraint)
        self._rows: dict[str, ParameterRow] = {}
        for parameter in PARAMETERS:
            row = ParameterRow(theme, parameter, self)
            row.turned.connect(lambda value, key=parameter.key: self.turned.emit(key, value))
            self._rows[parameter.key] = row
        self._columns = 0
        self._place(2)

    def row(self, key: str) -> ParameterRow:
        """Return the row of a parameter."""
        return self._rows[key]

    def show_values(self, recipe: Recipe, base: Recipe, job: Mapping[str, Any]) -> None:
        """Show the values; `job` holds those that are not part of the recipe."""
        for row in self._rows.values():
            row.show_value(value_of(row.parameter, recipe, job), default_of(row.parameter, base), recipe)

    def stops(self) -> list[QWidget]:
        """Return the focusable widgets in reading order."""
        return [widget for row in self._rows.values() for widget in row.stops()]

    @property
    def changed(self) -> list[str]:
        """The keys of the parameters that differ from their defaults."""
        return [key for key, row in self._rows.items() if row.changed]

    def minimumSizeHint(self) -> QSize:
        """Return the minimum size for one column."""
        return QSize(self._widest(), super().minimumSizeHint().height())

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Use one or two columns."""
        super().resizeEvent(event)
        self._place(2 if self.width() >= 2 * self._widest() + _GAP else 1)

    def _widest(self) -> int:
        """Return the width of the widest row."""
        return max(row.minimumSizeHint().width() for row in self._rows.values())

    def _place(self, columns: int) -> None:
        if columns == self._columns:
            return
        self._columns = columns
        rows = list(self._rows.values())
        height = -(-len(rows) // columns)
        for number, row in enumerate(rows):
            self._grid.removeWidget(row)
            # down the first column, then the second, as in the Tab order
            self._grid.addWidget(row, number % height, number // height)
        self._grid.setColumnStretch(0, 1)
        self._grid.setColumnStretch(1, 1 if columns == 2 else 0)
