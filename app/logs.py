"""Buffer between Python's logging, in any thread, and the log view. Depends on QtCore only."""

from __future__ import annotations

import logging
import time
from collections import deque
from typing import Final

from PySide6.QtCore import QMessageLogContext, QtMsgType, qInstallMessageHandler

MOST_LINES: Final = 5000
_LEVELS: Final = {
    QtMsgType.QtDebugMsg: logging.DEBUG,
    QtMsgType.QtInfoMsg: logging.INFO,
    QtMsgType.QtWarningMsg: logging.WARNING,
    QtMsgType.QtCriticalMsg: logging.ERROR,
    QtMsgType.QtFatalMsg: logging.CRITICAL,
}
_qt = logging.getLogger("qt")


class LogFeed(logging.Handler):
    """A logging handler that keeps the newest 5000 lines until they are taken."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self._lines: deque[str] = deque(maxlen=MOST_LINES)

    def emit(self, record: logging.LogRecord) -> None:
        """Format a record and keep it. Called in any thread, so it touches no widget."""
        try:
            self.add(record.levelname.lower(), self.format(record), record.created)
        except Exception:  # noqa: BLE001 - required by logging: a bad record must not end the program
            self.handleError(record)

    def add(self, level: str, text: str, when: float | None = None) -> None:
        """Add a message with the time of day, and with its level unless that is `info`."""
        clock = time.strftime("%H:%M:%S", time.localtime(when))
        mark = "" if level == "info" else f"{level}: "
        self._lines.append(f"{clock}  {mark}{text.rstrip()}")

    def take(self, most: int = 500) -> list[str]:
        """Remove and return the oldest lines, at most `most` of them."""
        taken: list[str] = []
        while self._lines and len(taken) < most:
            taken.append(self._lines.popleft())
        return taken


def listen(feed: LogFeed) -> None:
    """Send Python's log records and warnings, and Qt's messages, to `feed`."""
    root = logging.getLogger()
    root.addHandler(feed)
    for name in ("app", "core"):
        logging.getLogger(name).setLevel(logging.INFO)
    logging.captureWarnings(capture=True)
    qInstallMessageHandler(_from_qt)


def _from_qt(kind: QtMsgType, context: QMessageLogContext, message: str) -> None:
    category = context.category or ""
    _qt.log(_LEVELS.get(kind, logging.WARNING), "%s", f"{category}: {message}" if category != "default" else message)
