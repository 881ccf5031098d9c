"""The empty state of the Convert page: an explanation and a button."""

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
    """A short text and a button for the newest finished model, or for a folder.

    Signals:
        picked(str): the user wants to convert this model.
        folder_wanted: the user wants to choose a folder.
    """

    picked = Signal(str)
    folder_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._newest: ModelChoice | None = None
        title = TintedLabel(theme, self.tr("Convert to another format"), bold=True, scale=_HEADING)
        text = Note(
            theme,
            self.tr(
                "Select a quantized model: one of yours, or one made with AutoRound, GPTQ, AWQ or llama.cpp. The table "
                "shows the formats it can be converted to without changing the weights, those that change them, and "
                "those that are not possible. A conversion needs no GPU and little memory."
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
        """Offer the newest finished model, or a folder if there is none."""
        self._newest = choice
        words = self.tr("Convert {}").format(choice.label) if choice is not None else self.tr("Open model folder")
        self.button.setText(words)

    def show_error(self, trouble: str) -> None:
        """Show the reason why a model cannot be converted; "" for none."""
        self._trouble.set_text(trouble, "bad")

    def _press(self) -> None:
        if self._newest is not None:
            self.picked.emit(self._newest.name)
        else:
            self.folder_wanted.emit()
