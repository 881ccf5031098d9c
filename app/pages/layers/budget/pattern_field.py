"""A field for lines of patterns with bits, and their errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QLabel, QPlainTextEdit, QVBoxLayout, QWidget

from app.pages.layers.budget.pattern_lines import parse, written
from app.widgets.note import Note
from core.bitsmap import Rule
from core.errors import BadInput

if TYPE_CHECKING:
    from app.theme import Theme

_LINES = 2


class PatternField(QWidget):
    """A title, a text field, and a note below.

    Signals:
        changed: The rules changed.
    """

    changed = Signal()

    def __init__(self, theme: Theme, name: str, title: str, example: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._rules: tuple[Rule, ...] | None = ()
        label = QLabel(title, self)
        self.text = QPlainTextEdit(self)
        self.text.setObjectName(name)
        self.text.setPlaceholderText(example)
        self.text.setTabChangesFocus(True)
        self.text.setAcceptDrops(False)
        self.text.setLineWrapMode(QPlainTextEdit.LineWrapMode.NoWrap)
        self.text.setFixedHeight((_LINES + 1) * self.fontMetrics().lineSpacing() + 10)
        label.setBuddy(self.text)
        self._note = Note(theme, parent=self)
        self._note.setObjectName(f"{name}_note")
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (label, self.text, self._note):
            column.addWidget(widget)
        self.text.textChanged.connect(self._read)

    @property
    def rules(self) -> tuple[Rule, ...] | None:
        """The rules; None if a line is invalid."""
        return self._rules

    def add(self, rules: tuple[Rule, ...]) -> None:
        """Append rules as lines."""
        before = self.text.toPlainText().rstrip()
        self.text.setPlainText("\n".join(part for part in (before, written(rules)) if part))

    def _read(self) -> None:
        before = self._rules
        try:
            self._rules = parse(self.text.toPlainText())
            self._note.set_text("")
        except BadInput as error:
            self._rules = None
            self._note.set_text(error.message, "bad")
        if self._rules != before:
            self.changed.emit()
