"""The preview of the first rows of a calibration text, as they are tokenized."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtGui import QTextCursor
from PySide6.QtWidgets import QPlainTextEdit, QWidget

_LINES = 9


class TextPreview(QPlainTextEdit):
    """Rows of plain text with their numbers; hidden if there are none."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("preview")
        self.setReadOnly(True)
        self.setTabChangesFocus(True)
        self.setAccessibleName(self.tr("First rows of the calibration text"))
        self.setFixedHeight(self.fontMetrics().lineSpacing() * _LINES + 2 * self.frameWidth() + 12)
        self.hide()

    def show_rows(self, rows: Sequence[str]) -> None:
        """Show these rows; an empty list hides the preview."""
        number = self.tr("Row {number}")
        parts = [f"{number.format(number=index)}\n{row.strip()}" for index, row in enumerate(rows, 1)]
        self.setPlainText("\n\n".join(parts))
        self.moveCursor(QTextCursor.MoveOperation.Start)
        self.setVisible(bool(rows))
