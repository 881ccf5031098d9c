"""The comparison before its first question: what will be here, and three questions that show differences well."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel


class ComparisonWelcome(QWidget):
    """A title, a sentence and buttons.

    Signals:
        chosen(str): the user wants to ask both this.
        model_asked: there is no model, and the user wants to get one.
    """

    chosen = Signal(str)
    model_asked = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        title = TintedLabel(theme, self.tr("Ask two models the same question"), bold=True, scale=1.5, parent=self)
        title.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        title.setWordWrap(True)
        self._hint = Note(theme, parent=self)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._buttons = [QPushButton(question, self) for question in self._examples()]
        width = max(button.sizeHint().width() for button in self._buttons) + 24
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(8)
        column.addStretch(2)
        column.addWidget(title)
        column.addWidget(self._hint)
        column.addSpacing(16)
        for number, button in enumerate(self._buttons):
            button.setObjectName(f"comparison_example_{number}")
            button.setMinimumHeight(36)
            button.setMinimumWidth(width)
            button.clicked.connect(lambda _checked=False, number=number: self.chosen.emit(self._examples()[number]))
            column.addWidget(button, 0, Qt.AlignmentFlag.AlignHCenter)
        self._get = QPushButton(self.tr("Pick a model"), self)
        self._get.setObjectName("comparison_get_model")
        self._get.clicked.connect(self.model_asked)
        column.addWidget(self._get, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(3)
        self.set_ready(False, True)

    def set_ready(self, ready: bool, any_model: bool) -> None:
        """Say what to do first.

        Args:
            ready: two models are picked.
            any_model: there is a model to pick at all.
        """
        if ready:
            self._hint.set_text(
                self.tr(
                    "Such as the original and what you made of it. Both get the same seed; where they differ is marked."
                )
            )
        elif any_model:
            self._hint.set_text(self.tr("Pick a model for A and one for B above."))
        else:
            self._hint.set_text(
                self.tr("There is no model to compare yet: pick one and quantize it, or open a folder above.")
            )
        for button in self._buttons:
            button.setVisible(ready)
        self._get.setVisible(not any_model)

    def _examples(self) -> tuple[str, ...]:
        return (
            self.tr("What is the capital of France, and what is it known for?"),
            self.tr("List the first ten prime numbers and explain why 1 is not one."),
            self.tr("Write a short poem about the sea."),
        )
