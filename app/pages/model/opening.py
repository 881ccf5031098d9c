"""What the Model page shows while a model is being opened: which one, what is being done, and a way out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.transfer_bar import TransferBar

if TYPE_CHECKING:
    from core.events import Event

_WIDTH = 60
"""Average characters of the bar's width at most."""


class ModelOpening(QWidget):
    """A progress bar in the middle.

    Signals:
        cancelled: the user does not want it any more.
    """

    cancelled = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.bar = TransferBar(theme)
        self.bar.cancelled.connect(self.cancelled)
        self.bar.setMaximumWidth(_WIDTH * self.fontMetrics().averageCharWidth())
        column = QVBoxLayout(self)
        column.addStretch(2)
        row = QHBoxLayout()
        row.addStretch(1)
        row.addWidget(self.bar, 4)
        row.addStretch(1)
        column.addLayout(row)
        column.addStretch(3)

    def begin(self, name: str) -> None:
        """A model is being opened from now on."""
        self.bar.begin(
            self.tr("Opening {0}").format(name),
            self.tr("Reading names and shapes of its layers. The weights stay where they are."),
        )

    def follow(self, event: Event) -> None:
        """Take in what the call reports."""
        self.bar.follow(event)

    def end(self) -> None:
        """It is open, or it failed."""
        self.bar.end()
