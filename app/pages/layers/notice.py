"""What the Layers page says while it has no layers to show, and the one button that helps.

Knows why a model may have none; not what the button does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.widgets.note import Note
from app.widgets.primary_button import make_primary
from app.widgets.tinted_label import TintedLabel

if TYPE_CHECKING:
    from app.shared.draft import OpenedModel
    from app.theme import Theme

_WIDTH = 66
"""Average characters of a line that reads well."""


class LayersNotice(QWidget):
    """A heading, a few lines and a button, in the middle of the page.

    Signals:
        pressed: the button was pressed.
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
        """Say why there are no layers: no model, one that has none, or a map that does not fit it."""
        if opened is None:
            self.show_message(
                self.tr("The layers of your model will be here"),
                self.tr(
                    "Each layer as a cell that shows how many bits it gets. Some layers bear fewer bits than others; "
                    "here you can see and change every one of them, and what that does to the size."
                ),
                self.tr("Pick a model"),
            )
        elif not misfit:
            title = self.tr("This model cannot be quantized")
            self.show_message(title, opened.tree.refusal, self.tr("Pick another model"))
        else:
            self.show_message(
                self.tr("The bits map does not fit this model"), misfit, self.tr("Start with a plain map")
            )

    def show_message(self, title: str, text: str, button: str) -> None:
        """Say why there is nothing to see, and what the button does about it."""
        self._title.setText(title)
        self._text.set_text(text)
        self.button.setText(button)
