"""A framed message with the reason why a model cannot be quantized."""

from __future__ import annotations

from PySide6.QtCore import QRectF, Qt, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note

_ICON = 24


class Refusal(QWidget):
    """A heading and the reason, beside a warning sign; hidden without a reason.

    Signals:
        convert_wanted: the user wants to convert the model.
    """

    convert_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("refusal")
        self._theme = theme
        self._sign = QLabel()
        self._sign.setAccessibleName(self.tr("Warning"))
        heading = ElidedLabel(theme, self.tr("This model cannot be quantized"), bold=True)
        self._reason = Note(theme, role="bad", parent=self)
        self._reason.setObjectName("reason")
        words = QVBoxLayout()
        words.setSpacing(4)
        words.addWidget(heading)
        words.addWidget(self._reason)
        row = QHBoxLayout(self)
        row.setContentsMargins(12, 8, 12, 8)
        row.setSpacing(12)
        row.addWidget(self._sign, 0, Qt.AlignmentFlag.AlignTop)
        row.addLayout(words, 1)
        self.convert = QPushButton(self.tr("Convert model"))
        self.convert.setObjectName("convert_it")
        self.convert.setToolTip(self.tr("Show the formats that this model can be converted to"))
        self.convert.clicked.connect(self.convert_wanted)
        row.addWidget(self.convert)
        theme.changed.connect(self._tint)
        self._tint()
        self.hide()

    def show_reason(self, text: str, *, quantized: bool = False) -> None:
        """Show the reason, "" to hide the frame. A model that is already quantized can be converted."""
        self.convert.setVisible(quantized)
        self._reason.set_text(text, "bad")
        self.setVisible(bool(text))

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        painter.setPen(QPen(self._theme.color("bad"), 1))
        painter.setBrush(self._theme.color("surface"))
        painter.drawRoundedRect(QRectF(self.rect()).adjusted(0.5, 0.5, -0.5, -0.5), 4, 4)
        painter.end()

    def _tint(self) -> None:
        self._sign.setPixmap(self._theme.icon("warning", "bad").pixmap(_ICON, _ICON))
        self.update()
