"""The result of a conversion: exact, or the error that it added; with figures and buttons."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.pages.convert.conversion_words import Outcome
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.fact_row import FactRow
from app.widgets.note import Note
from app.widgets.panel import Panel
from app.widgets.primary_button import make_primary
from app.widgets.tinted_label import TintedLabel

_HEADING = 1.35


class OutcomePanel(QWidget):
    """The panel below the table after a conversion.

    Signals:
        chat_wanted, folder_wanted, again_wanted: the three buttons.
    """

    chat_wanted = Signal()
    folder_wanted = Signal()
    again_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._headline = TintedLabel(theme, bold=True, scale=_HEADING, parent=self)
        self._headline.setObjectName("outcome")
        self._text = Note(theme, role="", parent=self)
        self._text.setObjectName("outcome_text")
        self._text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self._facts = FactRow(theme)
        self._facts.setObjectName("outcome_facts")
        self._where = ElidedLabel(theme, role="muted", middle=True, parent=self)
        self._where.setObjectName("outcome_folder")
        self.again = QPushButton(self.tr("Co&nvert again"), self)
        self.again.setObjectName("convert_again")
        self.folder = QPushButton(self.tr("&Open folder"), self)
        self.folder.setObjectName("open_folder")
        self.chat = make_primary(QPushButton(self.tr("C&hat with model"), self), theme)
        self.chat.setObjectName("chat")
        panel = Panel(theme, self)
        for widget in (self._headline, self._text, self._facts, self._where):
            panel.column.addWidget(widget)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self.again)
        row.addStretch(1)
        row.addWidget(self.folder)
        row.addWidget(self.chat)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(12)
        column.addWidget(panel)
        column.addLayout(row)
        self.again.clicked.connect(self.again_wanted)
        self.folder.clicked.connect(self.folder_wanted)
        self.chat.clicked.connect(self.chat_wanted)

    def show_outcome(self, found: Outcome) -> None:
        """Show a result."""
        self._headline.setText(found.headline)
        self._headline.set_role(found.role)
        self._text.set_text(found.text, "")
        self._facts.show_facts(found.facts)
        self._where.set_text(found.output)
        there = bool(found.output) and Path(found.output).exists()
        for button in (self.chat, self.folder):
            button.setEnabled(there)
            button.setToolTip("" if there else self.tr("The folder no longer exists"))
        self.setAccessibleDescription(f"{found.headline}. {found.text}")
