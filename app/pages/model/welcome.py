"""The empty state of the Model page: an explanation and a button."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from app.widgets.primary_button import make_primary

_WIDTH = 66
"""Line length in average characters, for readability."""


class ModelWelcome(QWidget):
    """A short text and a button.

    Signals:
        demo_wanted: the user wants to open the demo model.
    """

    demo_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        title = ElidedLabel(theme, self.tr("Quantize a language model"), scale=1.5, bold=True)
        text = Note(
            theme,
            self.tr(
                "Bitwright stores the weights of a model in 2, 3, 4 or 8 bits instead of 16, and tunes the rounding to "
                "preserve its quality. Select a model on the left, or start with the included demo model."
            ),
            parent=self,
        )
        text.setAlignment(Qt.AlignmentFlag.AlignTop)
        self.button = make_primary(QPushButton(self.tr("Use the demo model")), theme)
        self.button.setObjectName("use_demo")
        self.button.clicked.connect(self.demo_wanted)
        after = Note(theme, self.tr("135 million parameters. A run takes a few minutes."), parent=self)
        column = QVBoxLayout()
        column.setSpacing(8)
        column.addStretch(2)
        for widget in (title, text):
            column.addWidget(widget)
        line = QHBoxLayout()
        line.addWidget(self.button)
        line.addStretch(1)
        column.addLayout(line)
        column.addWidget(after)
        column.addStretch(3)
        middle = QWidget()
        middle.setLayout(column)
        middle.setMaximumWidth(_WIDTH * self.fontMetrics().averageCharWidth())
        row = QHBoxLayout(self)
        row.addStretch(1)
        row.addWidget(middle, 12)
        row.addStretch(1)
