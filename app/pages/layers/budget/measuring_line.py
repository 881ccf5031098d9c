"""A measurement on its way: how far, how long still, and a button that ends it. Fed with the events of the call."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app.widgets.elided_label import ElidedLabel
from core.events import Event, Log, Progress, Stage
from core.wording import time_range

if TYPE_CHECKING:
    from app.theme import Theme

_STEPS = 1000


class MeasuringLine(QWidget):
    """A progress bar with `Cancel` beside it, and a line of words.

    Signals:
        cancelled: the button was pressed.
    """

    cancelled = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._stage = ""
        self._bar = QProgressBar(self)
        self._bar.setTextVisible(False)
        self._bar.setAccessibleName(self.tr("Measuring the sensitivity"))
        self.cancel = QPushButton(self.tr("Cancel"), self)
        self.cancel.setObjectName("cancel_measuring")
        self._words = ElidedLabel(theme, role="muted", parent=self)
        self._words.setObjectName("measuring_words")
        line = QHBoxLayout()
        line.setSpacing(8)
        line.addWidget(self._bar, 1)
        line.addWidget(self.cancel)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(line)
        column.addWidget(self._words)
        self.cancel.clicked.connect(self.cancelled)

    def begin(self) -> None:
        """It has just begun, and nothing is known yet."""
        self._bar.setRange(0, 0)
        self._stage = self.tr("Fetching the model")
        self._words.setText(self.tr("Starting"))

    def follow(self, event: Event) -> None:
        """Take in what the call reports."""
        if isinstance(event, Stage):
            self._stage = self.tr("Measuring") if event.name == "analyse" else self.tr("Reading the text")
            self._bar.setRange(0, 0)
            self._words.setText(self._stage)
        elif isinstance(event, Progress):
            self._bar.setRange(0, _STEPS)
            self._bar.setValue(round(_STEPS * min(1.0, max(0.0, event.fraction))))
            left = ""
            if event.seconds_low >= 0 and event.fraction < 1:
                left = self.tr(", {} left").format(time_range(event.seconds_low, event.seconds_high))
            self._words.setText(f"{self._stage}, {event.fraction:.0%}{left}")
        elif isinstance(event, Log):
            self._words.setText(event.message)
