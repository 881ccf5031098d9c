"""Settings of a comparison, used for both models: order, highlighting, system prompt and sampling.

The settings are kept between sessions.
"""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QCheckBox, QPlainTextEdit, QVBoxLayout, QWidget

from app.pages.chat.comparison.turns import AskOrder
from app.pages.chat.sampling_panel import SamplingPanel
from app.pages.chat.side_column import SideColumn
from app.state import State
from app.theme import Theme
from app.widgets.note import Note
from app.widgets.segmented import Option, Segmented
from app.widgets.tinted_label import TintedLabel
from core.inference.generation.settings import Sampling

_ORDER, _MARKS, _SYSTEM = "comparison/order", "comparison/marks", "chat/system"


class ComparisonSettings(SideColumn):
    """A column on the right of the comparison, which scrolls if the window is low.

    Signals:
        order_changed: the order changed.
        marks_changed: highlighting was switched on or off.
    """

    order_changed = Signal()
    marks_changed = Signal()

    def __init__(self, theme: Theme, state: State, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._state = state
        self._order = Segmented(
            theme,
            (
                Option(
                    "auto",
                    self.tr("Automatic"),
                    tip=self.tr("At once if both models fit into memory, otherwise in turn"),
                ),
                Option(
                    "at_once",
                    self.tr("At once"),
                    tip=self.tr("Both models generate at the same time and share the device"),
                ),
                Option("in_turn", self.tr("In turn"), tip=self.tr("One model after the other, each at full speed")),
            ),
        )
        self._order.setObjectName("comparison_order")
        self._order.set_value(state.value(_ORDER, "auto"))
        if self._order.value is None:
            self._order.set_value("auto")
        self._order.chosen.connect(self._note_order)
        self._plan = Note(theme, parent=self)
        self._plan.setObjectName("comparison_plan_words")
        self._marks = QCheckBox(self.tr("&Highlight differences"))
        self._marks.setObjectName("comparison_marks")
        self._marks.setToolTip(self.tr("Highlight text that differs, with a stronger color at the first difference"))
        self._marks.setChecked(state.value(_MARKS, True))
        self._marks.toggled.connect(self._note_marks)
        self._system = QPlainTextEdit()
        self._system.setObjectName("comparison_system")
        self._system.setPlaceholderText(self.tr("Example: You answer in one sentence."))
        self._system.setToolTip(self.tr("Instructions for both models, sent before the conversation"))
        self._system.setTabChangesFocus(True)
        self._system.setFixedHeight(self._system.fontMetrics().lineSpacing() * 3 + 16)
        self._sampling = SamplingPanel(state)
        self._system.setPlainText(state.value(_SYSTEM, ""))
        self._system.textChanged.connect(lambda: state.set_value(_SYSTEM, self.system))
        self._lay_out(theme)

    @property
    def order(self) -> AskOrder:
        """The selected order."""
        order: AskOrder = self._order.value
        return order

    @property
    def marked(self) -> bool:
        """Return whether differences are highlighted."""
        return self._marks.isChecked()

    @property
    def system(self) -> str:
        """The system prompt, "" for none."""
        return self._system.toPlainText()

    def values(self) -> Sampling:
        """Return the sampling settings; a random seed is drawn once for both models."""
        return self._sampling.values()

    def read(self) -> None:
        """Load the stored settings, which the chat with one model shares."""
        system = self._state.value(_SYSTEM, "")
        if system != self.system:
            self._system.setPlainText(system)
        fresh = SamplingPanel(self._state)
        self._column.replaceWidget(self._sampling, fresh)
        self._sampling.hide()
        self._sampling.deleteLater()
        self._sampling = fresh

    def show_plan(self, words: str, role: str) -> None:
        """Show the effect of the order."""
        self._plan.set_text(words, role)

    def _lay_out(self, theme: Theme) -> None:
        system_label = TintedLabel(theme, self.tr("S&ystem prompt"), bold=True)
        system_label.setBuddy(self._system)
        inner = QWidget()
        self._column = column = QVBoxLayout(inner)
        column.setContentsMargins(8, 8, 16, 16)
        column.setSpacing(4)
        column.addWidget(TintedLabel(theme, self.tr("Order"), bold=True))
        column.addWidget(self._order)
        column.addWidget(self._plan)
        column.addSpacing(12)
        column.addWidget(self._marks)
        column.addSpacing(12)
        column.addWidget(system_label)
        column.addWidget(self._system)
        column.addSpacing(12)
        column.addWidget(TintedLabel(theme, self.tr("Sampling for both models"), bold=True))
        column.addWidget(self._sampling)
        column.addStretch(1)
        self.hold(inner)
        self.setAccessibleName(self.tr("Comparison settings"))

    def _note_order(self) -> None:
        self._state.set_value(_ORDER, self.order)
        self.order_changed.emit()

    def _note_marks(self, marked: bool) -> None:
        self._state.set_value(_MARKS, marked)
        self.marks_changed.emit()
