"""The progress of a call: title, progress bar, rate or remaining time, and a button to cancel it.

Updated by the events of the call.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QHBoxLayout, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app.widgets.elided_label import ElidedLabel
from app.widgets.transfer import Transfer
from core.events import Event, Log, Progress, Stage
from core.wording import time_range

if TYPE_CHECKING:
    from app.theme import Theme

_STEPS = 1000


class TransferBar(QWidget):
    """A title, a progress bar with `Cancel` beside it, and a line of figures or log messages.

    Args:
        stages: The titles of the stages of the call by name; stages without a title leave it unchanged.

    Signals:
        cancelled: The button was pressed.
    """

    cancelled = Signal()

    def __init__(
        self,
        theme: Theme,
        parent: QWidget | None = None,
        *,
        stages: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(parent)
        self._stages = stages or {}
        self._clock = clock
        self._transfer: Transfer | None = None
        self._news = self._share = ""
        self._title = ElidedLabel(theme, middle=True)
        self._bar = QProgressBar()
        self._bar.setTextVisible(False)
        self._figures = ElidedLabel(theme, role="muted")
        self._figures.setObjectName("figures")
        self.cancel = QPushButton(self.tr("Cancel"))
        self.cancel.setObjectName("cancel")
        self.cancel.clicked.connect(self.cancelled)
        line = QHBoxLayout()
        line.setSpacing(8)
        line.addWidget(self._bar, 1)
        line.addWidget(self.cancel)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addWidget(self._title)
        column.addLayout(line)
        column.addWidget(self._figures)
        # The rate must also be updated if no events arrive.
        self._tick = QTimer(self, interval=1000)
        self._tick.timeout.connect(self._refresh)

    def begin(self, title: str, note: str = "", *, total: int | None = None) -> None:
        """Show the start of a call; with `total` (bytes, 0 for unknown) show the figures of a download."""
        self._transfer = None if total is None else Transfer(total, self._clock())
        self._show_title(title, note)
        if total is not None:
            self._tick.start()

    def follow(self, event: Event) -> None:
        """Update the bar by an event of the call."""
        if isinstance(event, Stage):
            if event.name in self._stages:
                self._show_title(self._stages[event.name], "")
        elif isinstance(event, Progress):
            self._bar.setRange(0, _STEPS)
            self._bar.setValue(round(_STEPS * min(1.0, max(0.0, event.fraction))))
            if self._transfer is not None:
                self._transfer.arrived(event.fraction, event.time, event.seconds_low, event.seconds_high)
            left = ", " + self.tr("{} left").format(time_range(event.seconds_low, event.seconds_high))
            self._share = f"{event.fraction:.0%}" + (left if 0 <= event.seconds_low <= event.seconds_high else "")
            self._refresh()
        elif isinstance(event, Log):
            self._news = event.message
            self._refresh()

    def end(self) -> None:
        """Reset the bar after the end of the call."""
        self._tick.stop()
        self._transfer = None
        self._bar.setRange(0, _STEPS)
        self._bar.setValue(0)

    def _show_title(self, title: str, note: str) -> None:
        self._title.setText(title)
        self._bar.setAccessibleName(title)
        self._bar.setRange(0, 0)
        self._news, self._share = note, ""
        self._refresh()

    def _refresh(self) -> None:
        if self._transfer is not None:
            self._figures.setText(self._transfer.text(self._clock()))
        else:
            self._figures.setText(". ".join(filter(None, (self._share, self._news))))
