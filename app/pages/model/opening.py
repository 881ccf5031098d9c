"""The Model page while a model is being opened: a progress bar and a Cancel button."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.transfer_bar import TransferBar

if TYPE_CHECKING:
    from core.events import Event

_WIDTH = 60
"""Maximum width of the bar in average characters."""


class ModelOpening(QWidget):
    """A progress bar in the centre.

    Signals:
        cancelled: the Cancel button was pressed.
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
        """Show that a model is being opened."""
        self.bar.begin(
            self.tr("Opening {0}").format(name),
            self.tr("Reading the names and shapes of its layers. The weights are not loaded."),
        )

    def follow(self, event: Event) -> None:
        """Show an event of the call."""
        self.bar.follow(event)

    def end(self) -> None:
        """Stop the progress bar."""
        self.bar.end()
