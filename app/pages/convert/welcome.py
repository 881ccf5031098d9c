"""What the Convert page says before there is a model: what it does, and the one button to begin with."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QPushButton, QWidget

from app.shared.models.choices import ModelChoice
from app.theme import Theme
from app.widgets.centred_column import centred_column
from app.widgets.note import Note
from app.widgets.primary_button import make_primary
from app.widgets.tinted_label import TintedLabel

_HEADING = 1.5
_WIDEST = 560


class ConvertWelcome(QWidget):
    """A few lines and a button: the newest finished model, or a folder.

    Signals:
        picked(str): convert this model.
        folder_wanted: let the user choose one.
    """

    picked = Signal(str)
    folder_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._newest: ModelChoice | None = None
        title = TintedLabel(theme, self.tr("Another format, without another run"), bold=True, scale=_HEADING)
        text = Note(
            theme,
            self.tr(
                "Pick a quantized model: one of yours, or one that somebody else made with AutoRound, GPTQ, AWQ or "
                "llama.cpp. A table says what it can become without changing a weight, what would add an error, and "
                "what is not possible, and why. It needs no graphics card and little memory."
            ),
            parent=self,
        )
        self._trouble = Note(theme, role="bad", parent=self)
        self._trouble.setObjectName("convert_trouble")
        self.button = make_primary(QPushButton(self), theme)
        self.button.setObjectName("convert_begin")
        self.button.clicked.connect(self._press)
        column = centred_column(self, _WIDEST)
        column.addWidget(self._trouble)
        column.addWidget(title)
        column.addWidget(text)
        column.addWidget(self.button, 0, Qt.AlignmentFlag.AlignLeft)
        self.show_newest(None)

    def show_newest(self, choice: ModelChoice | None) -> None:
        """Offer the model that was made last; None where there is none."""
        self._newest = choice
        words = self.tr("Convert {}").format(choice.label) if choice is not None else self.tr("Open a model folder")
        self.button.setText(words)

    def show_error(self, trouble: str) -> None:
        """Say why a model cannot be converted; "" for nothing."""
        self._trouble.set_text(trouble, "bad")

    def _press(self) -> None:
        if self._newest is not None:
            self.picked.emit(self._newest.name)
        else:
            self.folder_wanted.emit()
