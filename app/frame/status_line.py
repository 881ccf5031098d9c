"""The line at the bottom of the window: activity, memory, and the button of the log.

The memory of this process and its children is measured every two seconds.
"""

from __future__ import annotations

from PySide6.QtCore import QTimer, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QToolButton, QWidget

from app.widgets.elided_label import ElidedLabel
from core.wording import human

_MEMORY_MS = 2000
_SAID_MS = 8000


class StatusLine(QFrame):
    """Text on the left, memory and the log's button on the right.

    A message is shown for some seconds; then the activity is shown again.

    Signals:
        log_toggled: the log's button was pressed; whether the log should be visible.
    """

    log_toggled = Signal(bool)

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("status_line")
        self._running = {"run": "", "calls": ""}
        self._said = ""
        self._text = ElidedLabel()
        self._text.setObjectName("status_text")
        self._memory = ElidedLabel()
        self._memory.setObjectName("status_memory")
        self._memory.setToolTip(self.tr("Memory used by Bitwright and its child processes, and total memory"))
        self._log = QToolButton()
        self._log.setObjectName("status_log")
        self._log.setText(self.tr("Log"))
        self._log.setToolTip(self.tr("Show or hide the log"))
        self._log.setCheckable(True)
        self._log.setAutoRaise(True)
        self._log.setProperty("arrowType", "UpArrow")  # by name: see app.theme
        self._log.setProperty("toolButtonStyle", "ToolButtonTextBesideIcon")
        self._log.toggled.connect(self._toggled)
        row = QHBoxLayout(self)
        row.setContentsMargins(16, 2, 8, 2)
        row.setSpacing(24)
        row.addWidget(self._text, 1)
        row.addWidget(self._memory)
        row.addWidget(self._log)
        self._forget = QTimer(self)
        self._forget.setSingleShot(True)
        self._forget.setInterval(_SAID_MS)
        self._forget.timeout.connect(self._forgotten)
        self._measure = QTimer(self)
        self._measure.setInterval(_MEMORY_MS)
        self._measure.timeout.connect(self.measure)

    def show_message(self, text: str) -> None:
        """Show a message for some seconds and announce it to a screen reader."""
        self._said = text
        self._refresh()
        if text:
            self._forget.start()
            from app.widgets.announcement import (
                announce,  # late: a large import, not needed before the first paint
            )

            announce(self, text)

    def set_running(self, source: str, text: str) -> None:
        """Set the activity of the `run` or the `calls`, "" for none; the run takes precedence."""
        self._running[source] = text
        self._refresh()

    def set_log_shown(self, shown: bool) -> None:
        """Set the state of the log's button."""
        self._log.setChecked(shown)

    def start_measuring(self) -> None:
        """Show the memory, now and every two seconds."""
        self.measure()
        self._measure.start()

    def measure(self) -> None:
        """Show the memory in use now."""
        self._memory.setText(self.tr("RAM {used} of {total}").format(used=human(_used()), total=human(_total())))

    def _toggled(self, shown: bool) -> None:
        self._log.setProperty("arrowType", "DownArrow" if shown else "UpArrow")
        self.log_toggled.emit(shown)

    def _forgotten(self) -> None:
        self._said = ""
        self._refresh()

    def _refresh(self) -> None:
        self._text.setText(self._said or self._running["run"] or self._running["calls"] or self.tr("Ready"))


def _used() -> int:
    """Return the bytes in memory of this process and all its children; skip one that ends meanwhile."""
    import psutil

    me = psutil.Process()
    used = 0
    for process in (me, *me.children(recursive=True)):
        try:
            used += process.memory_info().rss
        except psutil.Error:
            continue
    return used


def _total() -> int:
    import psutil

    return int(psutil.virtual_memory().total)
