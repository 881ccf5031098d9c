"""The facts about a model as a table of names and values, in one or two columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QGridLayout, QWidget

from app.pages.model.facts import Fact
from app.widgets.elided_label import ElidedLabel

if TYPE_CHECKING:
    from app.theme import Theme

_TWO_COLUMNS = 56
"""Minimum width in average characters for two columns."""


class ModelFacts(QWidget):
    """Facts in reading order, row by row."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._labels: list[tuple[ElidedLabel, ElidedLabel]] = []
        self._columns = 0
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setHorizontalSpacing(12)
        self._grid.setVerticalSpacing(4)

    def show_facts(self, facts: Sequence[Fact]) -> None:
        """Replace the facts."""
        while len(self._labels) < len(facts):
            # With a parent from the start: a visible label without one is briefly a window.
            name, value = (
                ElidedLabel(self._theme, role="muted", parent=self),
                ElidedLabel(self._theme, middle=True, parent=self),
            )
            name.setBuddy(value)
            self._labels.append((name, value))
            self._columns = 0
        for number, (name, value) in enumerate(self._labels):
            fact = facts[number] if number < len(facts) else Fact("", "", "")
            name.setText(fact.name)
            value.setObjectName(fact.key)
            value.setText(fact.value)
            value.set_exact(fact.exact)
            name.setVisible(bool(fact.name))
            value.setVisible(bool(fact.name))
        self._arrange()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._arrange()

    def _arrange(self) -> None:
        columns = 2 if self.width() >= _TWO_COLUMNS * self.fontMetrics().averageCharWidth() else 1
        if columns == self._columns:
            return
        self._columns = columns
        for number, (name, value) in enumerate(self._labels):
            row, place = divmod(number, columns)
            self._grid.addWidget(name, row, 2 * place)
            self._grid.addWidget(value, row, 2 * place + 1)
        for place in range(2):
            self._grid.setColumnStretch(2 * place + 1, 1 if place < columns else 0)
