"""The side panel of the Layers page: one of four views, and below it the totals and actions of the map.

Arranges the widgets and stores the selected view.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QSize, Qt, Signal
from PySide6.QtGui import QAction
from PySide6.QtWidgets import (
    QHBoxLayout,
    QLayout,
    QMenu,
    QPushButton,
    QToolButton,
    QVBoxLayout,
    QWidget,
)

from app.pages.layers.budget.panel import BudgetPanel
from app.pages.layers.engine.panel import EnginePanel
from app.pages.layers.layer_inspector import LayerInspector
from app.pages.layers.live_cost import LiveCost
from app.pages.layers.rules.panel import RulesPanel
from app.widgets.note import Note
from app.widgets.segmented import Option, Segmented
from app.widgets.view_stack import ViewStack

if TYPE_CHECKING:
    from app.state import State
    from app.theme import Theme

VIEWS: Final = ("layers", "rules", "budget", "engine")
_STATE: Final = "layers/panel"
_NARROW, _ROOMY = 300, 384
_LINE: Final = 16


class SidePanel(QWidget):
    """The side panel.

    Signals:
        view_changed(str): the view of `VIEWS` that is shown now.
    """

    view_changed = Signal(str)

    def __init__(self, theme: Theme, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        # Created in reading order, which is the order of the Tab key.
        self.views = self._view_choice(theme)
        self.inspector = LayerInspector(theme, self)
        self.rules = RulesPanel(theme, self)
        self.budget = BudgetPanel(theme, state, self)
        self.engine = EnginePanel(theme, self)
        self.cost = LiveCost(theme, self)
        self.undo = self._icon_button("undo", self.tr("Undo"))
        self.redo = self._icon_button("redo", self.tr("Redo"))
        self.menu = QPushButton(self.tr("Map"), self)
        self.menu.setObjectName("map_menu")
        self.menu.setToolTip(self.tr("Open, save, copy and simplify the bits map"))
        self._make_menu()
        self.reason = Note(theme, parent=self)
        self.reason.setObjectName("reason")
        self.next = QPushButton(self.tr("&Quantize"), self)
        self.next.setObjectName("next")
        self.next.setAutoDefault(True)
        self._stack = ViewStack(self)
        self._stack.addWidget(self.inspector)
        self._stack.add_scrolling(self.rules)
        self._stack.addWidget(self.budget)
        self._stack.add_scrolling(self.engine)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self.views)
        column.addWidget(self._stack, 1)
        column.addWidget(self.cost)
        column.addWidget(self.reason)
        column.addLayout(self._ending())
        self._tint(theme)
        theme.changed.connect(lambda: self._tint(theme))
        self.views.chosen.connect(self._choose)
        self._choose(self.views.value)
        self.set_roomy(False)

    @property
    def view(self) -> str:
        """The current view, one of `VIEWS`."""
        return VIEWS[self._stack.currentIndex()]

    def show_view(self, view: str) -> None:
        """Show one of `VIEWS`."""
        self.views.set_value(view)
        self._choose(view)

    def set_roomy(self, roomy: bool) -> None:
        """Set the width for a wide or a narrow window."""
        self.setFixedWidth(max(_ROOMY if roomy else _NARROW, self.views.sizeHint().width()))

    def show_undo(self, undo: str, redo: str) -> None:
        """Set the texts of the next undo and redo steps, "" for none."""
        for button, text in ((self.undo, undo), (self.redo, redo)):
            button.setEnabled(bool(text))
            button.setToolTip(text)

    def _view_choice(self, theme: Theme) -> Segmented:
        choice = Segmented(
            theme,
            (
                Option("layers", self.tr("Layers"), self.tr("Show the selected layers")),
                Option("rules", self.tr("Rules"), self.tr("Show the rules of the map")),
                Option("budget", self.tr("Budget"), self.tr("Show the budget")),
                Option("engine", self.tr("Engine"), self.tr("Show the target inference engine")),
            ),
            self,
        )
        choice.setObjectName("panel_view")
        remembered = self._state.value(_STATE, "layers")
        choice.set_value(remembered if remembered in VIEWS else "layers")
        return choice

    def _icon_button(self, name: str, text: str) -> QToolButton:
        button = QToolButton(self)
        button.setObjectName(name)
        button.setAccessibleName(text)
        button.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        button.setIconSize(QSize(_LINE, _LINE))
        button.setEnabled(False)
        return button

    def _make_menu(self) -> None:
        menu = QMenu(self.menu)
        self.open = self._entry(menu, "open_map", self.tr("Open map\N{HORIZONTAL ELLIPSIS}"))
        self.save = self._entry(menu, "save_map", self.tr("Save map\N{HORIZONTAL ELLIPSIS}"))
        self.take = self._entry(menu, "take_map", self.tr("Load from checkpoint\N{HORIZONTAL ELLIPSIS}"))
        menu.addSeparator()
        self.copy_command = self._entry(menu, "copy_command", self.tr("Copy as command"))
        self.copy_config = self._entry(menu, "copy_config", self.tr("Copy as layer_config"))
        menu.addSeparator()
        self.simplify = self._entry(menu, "simplify", self.tr("Simplify rules"))
        self.simplify.setToolTip(self.tr("Replace the rules by fewer rules with the same result"))
        self.reset = self._entry(menu, "reset", self.tr("Reset all"))
        self.reset.setToolTip(self.tr("Set every layer to the default of the Recipe page"))
        menu.setToolTipsVisible(True)
        self.menu.setMenu(menu)

    def _entry(self, menu: QMenu, name: str, text: str) -> QAction:
        action = menu.addAction(text)
        action.setObjectName(name)
        return action

    def _ending(self) -> QLayout:
        row = QHBoxLayout()
        row.setSpacing(8)
        for button in (self.undo, self.redo, self.menu):
            row.addWidget(button)
        row.addStretch(1)
        row.addWidget(self.next)
        return row

    def _choose(self, view: str) -> None:
        self._stack.setCurrentIndex(VIEWS.index(view))
        self._state.set_value(_STATE, view)
        self.view_changed.emit(view)

    def _tint(self, theme: Theme) -> None:
        self.undo.setIcon(theme.icon("undo"))
        self.redo.setIcon(theme.icon("redo"))
