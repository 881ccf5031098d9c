"""The notice that the Layers page shows if there are no layers, with a button to continue.

The page decides on the action of the button.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.widgets.note import Note
from app.widgets.primary_button import make_primary
from app.widgets.tinted_label import TintedLabel

if TYPE_CHECKING:
    from app.shared.models.opened import OpenedModel
    from app.theme import Theme

_WIDTH = 66
"""Width of the text in average characters."""


class LayersNotice(QWidget):
    """A heading, a few lines and a button, in the middle of the page.

    Signals:
        pressed: The button was pressed.
    """

    pressed = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        middle = QWidget(self)
        self._title = TintedLabel(theme, bold=True, wrap=True, parent=middle)
        self._title.setObjectName("notice_title")
        font = self._title.font()
        font.setPointSizeF(font.pointSizeF() * 1.3)
        self._title.setFont(font)
        self._text = Note(theme, parent=middle)
        self._text.setObjectName("notice_text")
        self.button = QPushButton(middle)
        self.button.setObjectName("notice_button")
        make_primary(self.button, theme)
        self.button.clicked.connect(self.pressed)
        line = QHBoxLayout()
        line.addWidget(self.button)
        line.addStretch(1)
        column = QVBoxLayout(middle)
        column.setSpacing(8)
        column.addStretch(2)
        column.addWidget(self._title)
        column.addWidget(self._text)
        column.addSpacing(8)
        column.addLayout(line)
        column.addStretch(3)
        middle.setFixedWidth(_WIDTH * self.fontMetrics().averageCharWidth())
        row = QHBoxLayout(self)
        row.addStretch(1)
        row.addWidget(middle)
        row.addStretch(1)

    def show_missing(self, opened: OpenedModel | None, misfit: str) -> None:
        """Show why there are no layers: no model, an unsupported model, or a map that does not fit it."""
        if opened is None:
            self.show_message(
                self.tr("Layers of the model"),
                self.tr(
                    "Each layer is a cell that shows its number of bits. Some layers are more sensitive than "
                    "others; change the bits of every layer here and see the resulting size."
                ),
                self.tr("Select a model"),
            )
        elif not misfit:
            title = self.tr("This model cannot be quantized")
            self.show_message(title, opened.tree.refusal, self.tr("Select another model"))
        else:
            self.show_message(self.tr("The bits map does not fit this model"), misfit, self.tr("Reset the map"))

    def show_message(self, title: str, text: str, button: str) -> None:
        """Show a title, a text and the text of the button."""
        self._title.setText(title)
        self._text.set_text(text)
        self.button.setText(button)
