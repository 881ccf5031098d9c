"""The expandable list of parameters, with the number of changed parameters and a button to reset them.

The rows are created when they are first shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QToolButton, QVBoxLayout, QWidget

from app.pages.recipe.parameter_grid import ParameterGrid
from app.pages.recipe.parameters import PARAMETERS, default_of, value_of
from app.theme import Theme
from app.widgets.tinted_label import TintedLabel
from core.recipes import Recipe


class MoreParameters(QWidget):
    """The button, and the parameters below it.

    Signals:
        turned: the key and the new valid value of a parameter.
        reset: All parameters are to be reset.
        opened: The parameters were shown or hidden.
    """

    turned = Signal(str, object)
    reset = Signal()
    opened = Signal(bool)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._grid: ParameterGrid | None = None
        self._values: tuple[Recipe, Recipe, Mapping[str, Any]] | None = None
        self._toggle = QToolButton(self)
        self._toggle.setObjectName("more")
        self._toggle.setText(self.tr("All parameters"))
        self._toggle.setCheckable(True)
        self._toggle.setAutoRaise(True)
        self._toggle.setToolButtonStyle(Qt.ToolButtonStyle.ToolButtonTextBesideIcon)
        self._toggle.setArrowType(Qt.ArrowType.RightArrow)
        self._toggle.toggled.connect(self._open)
        self._count = TintedLabel(theme, role="accent", parent=self)
        self._count.setObjectName("changed-count")
        self._reset = QPushButton(self.tr("Reset all"), self)
        self._reset.setObjectName("reset-all")
        self._reset.setAutoDefault(False)
        self._reset.clicked.connect(self.reset)
        self._reset.hide()
        head = QHBoxLayout()
        head.setSpacing(8)
        head.addWidget(self._toggle)
        head.addWidget(self._count)
        head.addWidget(self._reset)
        head.addStretch(1)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(16)
        self._column.addLayout(head)

    @property
    def grid(self) -> ParameterGrid | None:
        """The parameters; None until they are shown for the first time."""
        return self._grid

    def show_values(self, recipe: Recipe, base: Recipe, job: Mapping[str, Any]) -> None:
        """Show the values; `base` is the selected recipe, `job` holds the values that are not part of it."""
        self._values = (recipe, base, job)
        count = sum(value_of(parameter, recipe, job) != default_of(parameter, base) for parameter in PARAMETERS)
        text = self.tr("1 parameter changed") if count == 1 else self.tr("{n} parameters changed").format(n=count)
        self._count.setText(text if count else "")
        self._reset.setVisible(bool(count))
        if self._grid is not None and not self._grid.isHidden():
            self._grid.show_values(recipe, base, job)

    def _open(self, yes: bool) -> None:
        self._toggle.setArrowType(Qt.ArrowType.DownArrow if yes else Qt.ArrowType.RightArrow)
        if yes and self._grid is None:
            self._grid = ParameterGrid(self._theme, self)
            self._grid.turned.connect(self.turned)
            self._column.addWidget(self._grid)
            before: QWidget = self._reset
            for widget in self._grid.stops():  # created after the widgets below it
                QWidget.setTabOrder(before, widget)
                before = widget
        if self._grid is not None:
            if yes and self._values is not None:
                self._grid.show_values(*self._values)
            self._grid.setVisible(yes)
        self.opened.emit(yes)
