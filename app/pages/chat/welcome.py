"""The chat page before the first message: what will be here, and three questions to begin with."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QLabel, QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.note import Note
from app.widgets.primary_button import make_primary


class ChatWelcome(QWidget):
    """A title, a sentence and buttons.

    Signals:
        chosen(str): the user wants to ask this.
        model_asked: there is no model, and the user wants to get one.
    """

    chosen = Signal(str)
    model_asked = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._title = QLabel(self)
        self._title.setObjectName("welcome_title")
        font = self._title.font()
        font.setPointSizeF(font.pointSizeF() * 1.5)
        font.setWeight(font.Weight.DemiBold)
        self._title.setFont(font)
        self._title.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._title.setWordWrap(True)
        self._title.setTextFormat(Qt.TextFormat.PlainText)
        self._hint = Note(theme, parent=self)
        self._hint.setAlignment(Qt.AlignmentFlag.AlignHCenter)
        self._questions: list[QPushButton] = []
        column = QVBoxLayout(self)
        column.setContentsMargins(24, 24, 24, 24)
        column.setSpacing(8)
        column.addStretch(2)
        column.addWidget(self._title)
        column.addWidget(self._hint)
        column.addSpacing(16)
        for number, question in enumerate(self._examples()):
            button = QPushButton(question, self)
            button.setObjectName(f"example_{number}")
            button.setMinimumHeight(36)
            button.clicked.connect(lambda _checked=False, text=question: self.chosen.emit(text))
            column.addWidget(button, 0, Qt.AlignmentFlag.AlignHCenter)
            self._questions.append(button)
        width = max(button.sizeHint().width() for button in self._questions) + 24
        for button in self._questions:
            button.setMinimumWidth(width)
        self._get = make_primary(QPushButton(self.tr("Pick a model"), self), theme)
        self._get.setObjectName("get_model")
        self._get.clicked.connect(self.model_asked)
        column.addWidget(self._get, 0, Qt.AlignmentFlag.AlignHCenter)
        column.addStretch(3)

    def set_model(self, label: str, loaded: bool) -> None:
        """Say who will answer; "" where there is no model at all."""
        if label:
            self._title.setText(self.tr("Talk to {model}").format(model=label))
            self._hint.set_text(
                self.tr("Everything stays on this machine.")
                if loaded
                else self.tr("It loads with your first message or when you press Load. It stays on this machine.")
            )
        else:
            self._title.setText(self.tr("Talk to your model"))
            self._hint.set_text(self.tr("A model that you quantized, or any model you pick, answers here."))
        for button in self._questions:
            button.setVisible(bool(label))
        self._get.setVisible(not label)

    def _examples(self) -> tuple[str, ...]:
        return (
            self.tr("What is the capital of France?"),
            self.tr("Write a haiku about small things."),
            self.tr("Explain recursion to a child."),
        )
