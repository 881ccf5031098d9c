"""Base class of the empty states of the Chat page: a title, a hint, example messages, and a button to get a model."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.note import Note
from app.widgets.primary_button import make_primary
from app.widgets.tinted_label import TintedLabel


class ExampleWelcome(QWidget):
    """A title, a hint, a button for each example message, and a button to get a model.

    Args:
        prefix: The prefix of the object names of the buttons.

    Signals:
        chosen(str): The example message that the user selected.
        model_asked: The user wants to get a model.
    """

    chosen = Signal(str)
    model_asked = Signal()

    def __init__(self, theme: Theme, prefix: str = "", parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = TintedLabel(theme, bold=True, scale=1.5, wrap=True, parent=self)
        self.title.setObjectName(f"{prefix}welcome_title")
        self.title.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self.hint = Note(theme, parent=self)
        self.hint.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        examples = self.examples()
        self._examples = [QPushButton(text, self) for text in examples]
        width = max(button.sizeHint().width() for button in self._examples) + 24
        self._get = make_primary(QPushButton(self.tr("Select a model"), self), theme)
        self._get.setObjectName(f"{prefix}get_model")
        self._get.clicked.connect(self.model_asked)
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(8)
        column.addStretch(2)
        column.addWidget(self.title)
        column.addWidget(self.hint)
        column.addSpacing(16)
        for number, (button, text) in enumerate(zip(self._examples, examples, strict=True)):
            button.setObjectName(f"{prefix}example_{number}")
            button.setMinimumSize(width, 36)
            button.clicked.connect(lambda _checked=False, text=text: self.chosen.emit(text))
            column.addWidget(button, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addWidget(self._get, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(3)

    def examples(self) -> Sequence[str]:
        """Return the example messages."""
        raise NotImplementedError

    def show_buttons(self, *, examples: bool, get: bool) -> None:
        """Show or hide the example messages and the button to get a model."""
        for button in self._examples:
            button.setVisible(examples)
        self._get.setVisible(get)
