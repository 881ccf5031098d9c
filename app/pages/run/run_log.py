"""The log lines of a run, and at its end the complete log file of its child process."""

from __future__ import annotations

import os
import time
from itertools import islice
from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtGui import QFontDatabase, QTextCursor
from PySide6.QtWidgets import QHBoxLayout, QPlainTextEdit, QVBoxLayout, QWidget

from app.shared.run.record import KEPT_LOGS, RunRecord
from app.theme import Theme
from app.widgets.tinted_label import TintedLabel
from core.events import Log
from core.jobs import store

_WINDOW = 1 << 16
_LONGEST = 600
_AT_ONCE = 200
"""Maximum number of lines per update: the layout of more takes longer than the interval between updates."""


class RunLog(QWidget):
    """Read-only lines, the newest last."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._record: RunRecord | None = None
        self._shown = 0
        self._lines = QPlainTextEdit()
        self._lines.setObjectName("run_log")
        self._lines.setReadOnly(True)
        self._lines.setUndoRedoEnabled(False)
        self._lines.setMaximumBlockCount(KEPT_LOGS)
        self._lines.setFont(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont))
        self._lines.setLineWrapMode(QPlainTextEdit.LineWrapMode.WidgetWidth)
        self._lines.setPlaceholderText(self.tr("The log is empty."))
        self._lines.setMinimumHeight(56)
        self._lines.setTabChangesFocus(True)
        self._lines.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse | Qt.TextInteractionFlag.TextSelectableByKeyboard
        )
        title = TintedLabel(theme, self.tr("&Log of this run"), bold=True)
        title.setBuddy(self._lines)
        self.setFocusProxy(self._lines)
        head = QHBoxLayout()
        head.addWidget(title)
        head.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(head)
        column.addWidget(self._lines, 1)

    def show_record(self, record: RunRecord, fresh: bool = False) -> None:
        """Append new lines; `fresh` clears the view for another run."""
        if fresh or record is not self._record:
            self._record, self._shown = record, 0
            self._lines.clear()
        new = record.logged - self._shown
        if new <= 0:
            return
        self._shown = record.logged
        told = min(new, len(record.logs), _AT_ONCE)
        lines = [_line(log) for log in islice(record.logs, len(record.logs) - told, None)]
        if told < new:
            lines.insert(0, self.tr("({count} lines omitted)").format(count=f"{new - told:,}"))
        self._lines.appendPlainText("\n".join(lines))

    def text(self) -> str:
        """All lines of the view."""
        return self._lines.toPlainText()

    def read_file(self) -> None:
        """Show the end of the child's log file, which contains the traceback of a crash."""
        job = self._record.job if self._record is not None else None
        text = "" if job is None else end_of(job / store.LOG)
        self._lines.setPlainText(text or self.tr("The log file is empty."))
        self._lines.moveCursor(QTextCursor.MoveOperation.End)


def end_of(path: Path) -> str:
    """Return the last 64 kB of a file as text, from the start of a line; "" if it cannot be read."""
    try:
        with path.open("rb") as stream:
            size = stream.seek(0, os.SEEK_END)
            stream.seek(max(0, size - _WINDOW))
            data = stream.read()
    except OSError:
        return ""
    if size > _WINDOW:
        data = data.partition(b"\n")[2] or data
    # progress bars overwrite their line
    return data.decode("utf-8", "replace").replace("\r\n", "\n").replace("\r", "\n").strip()


def _line(log: Log) -> str:
    clock = _clock(log.time)
    mark = "" if log.level == "info" else f"{log.level}: "
    text = " ".join(log.message.split())
    return f"{clock}  {mark}{text if len(text) <= _LONGEST else text[: _LONGEST - 3] + '...'}"


def _clock(when: float) -> str:
    try:
        return time.strftime("%H:%M:%S", time.localtime(when))
    except (OverflowError, ValueError, OSError):
        return "--:--:--"  # a malformed line may contain any number
