"""The log panel above the status line: the newest 5000 lines of the program's and the run's log.

Lines are taken from a feed by a timer, a limited number at a time, and only while the panel is visible.
"""

from __future__ import annotations

from PySide6.QtCore import QTimer, Signal
from PySide6.QtGui import QFontDatabase, QGuiApplication, QHideEvent, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPlainTextEdit, QToolButton, QVBoxLayout, QWidget

from app.logs import MOST_LINES, LogFeed
from app.theme import Theme

_EVERY_MS = 200


class LogView(QWidget):
    """The log lines, with buttons to copy them and to close the panel.

    Signals:
        close_asked: the close button was pressed.
    """

    close_asked = Signal()

    def __init__(self, theme: Theme, feed: LogFeed, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("log_view")
        self._theme, self._feed = theme, feed
        self._lines = QPlainTextEdit()
        self._lines.setObjectName("log_lines")
        self._lines.setReadOnly(True)
        self._lines.setMaximumBlockCount(MOST_LINES)
        self._lines.setUndoRedoEnabled(False)
        self._lines.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self._lines.setPlaceholderText(self.tr("The log is empty."))
        title = QLabel(self.tr("&Log"))
        title.setBuddy(self._lines)
        self._copy = self._tool("log_copy", self.tr("Copy log"))
        self._copy.clicked.connect(self.copy)
        self._close = self._tool("log_close", self.tr("Close log"))
        self._close.clicked.connect(self.close_asked)
        head = QHBoxLayout()
        head.setContentsMargins(8, 4, 8, 4)
        head.addWidget(title)
        head.addStretch(1)
        head.addWidget(self._copy)
        head.addWidget(self._close)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(0)
        column.addLayout(head)
        column.addWidget(self._lines, 1)
        self._timer = QTimer(self)
        self._timer.setInterval(_EVERY_MS)
        self._timer.timeout.connect(self._take)
        theme.changed.connect(self._paint_new)
        self._paint_new()
        self.hide()

    def text(self) -> str:
        """All lines of the panel."""
        return self._lines.toPlainText()

    def copy(self) -> None:
        """Copy the whole log to the clipboard."""
        while self._take():
            pass
        QGuiApplication.clipboard().setText(self.text())

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        self._take()
        self._lines.verticalScrollBar().setValue(self._lines.verticalScrollBar().maximum())
        self._timer.start()

    def hideEvent(self, event: QHideEvent) -> None:
        super().hideEvent(event)
        self._timer.stop()

    def _take(self) -> bool:
        lines = self._feed.take()
        if lines:
            self._lines.appendPlainText("\n".join(lines))
        return bool(lines)

    def _tool(self, name: str, words: str) -> QToolButton:
        button = QToolButton()
        button.setObjectName(name)
        button.setAutoRaise(True)
        button.setAccessibleName(words)
        button.setToolTip(words)
        return button

    def _paint_new(self) -> None:
        self._copy.setIcon(self._theme.icon("copy"))
        self._close.setIcon(self._theme.icon("close"))
