"""The legend of the map: a field for each number of bits in use, or a color ramp with its ends.

Shows colors and texts that it is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from PySide6.QtCore import QRect, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from app.theme import Theme

_FIELD: Final = 12
_RAMP: Final = 96
_GAP: Final = 6


class MapLegend(QWidget):
    """The legend in one line."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._bits: list[tuple[int, str]] = []
        self._ends: tuple[str, str] | None = None
        self.setSizePolicy(QSizePolicy.Policy.Maximum, QSizePolicy.Policy.Fixed)
        self.setAccessibleName(self.tr("Legend"))
        theme.changed.connect(self.update)

    def show_bits(self, bits: Sequence[int]) -> None:
        """Show the colors of these numbers of bits."""
        self._bits, self._ends = [(number, str(number)) for number in bits], None
        self._renew(self.tr("A color for each number of bits: {}").format(", ".join(map(str, bits))))

    def show_ramp(self, low: str, high: str) -> None:
        """Show the color ramp from the smallest to the largest value."""
        self._bits, self._ends = [], (low, high)
        self._renew(self.tr("From dark blue, {0}, to yellow, {1}").format(low, high))

    def show_nothing(self) -> None:
        """Clear the legend."""
        self._bits, self._ends = [], None
        self._renew("")

    def sizeHint(self) -> QSize:
        """Return the size of the whole legend."""
        metrics = self.fontMetrics()
        if self._ends is not None:
            texts = sum(metrics.horizontalAdvance(text) for text in self._ends)
            return QSize(texts + _RAMP + 2 * _GAP, metrics.height())
        fields = sum(metrics.horizontalAdvance(text) + _FIELD + 3 * _GAP for _, text in self._bits)
        return QSize(fields, metrics.height())

    def minimumSizeHint(self) -> QSize:
        """Return a width of 0; the legend is painted only if it fits."""
        return QSize(0, self.sizeHint().height())

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint the fields or the ramp with their texts."""
        if self.width() < self.sizeHint().width():
            return
        painter = QPainter(self)
        painter.setPen(self.palette().color(QPalette.ColorRole.WindowText))
        top = (self.height() - _FIELD) // 2
        left = 0
        if self._ends is not None:
            left = self._paint_text(painter, 0, self._ends[0]) + _GAP
            for step in range(_RAMP):
                painter.fillRect(left + step, top, 1, _FIELD, self._theme.cividis(step / (_RAMP - 1)))
            self._paint_text(painter, left + _RAMP + _GAP, self._ends[1])
        for bits, text in self._bits:
            painter.fillRect(QRect(left, top, _FIELD, _FIELD), self._theme.bits_color(bits))
            left = self._paint_text(painter, left + _FIELD + _GAP, text) + 2 * _GAP
        painter.end()

    def _paint_text(self, painter: QPainter, left: int, text: str) -> int:
        width = self.fontMetrics().horizontalAdvance(text)
        flags = Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignVCenter
        painter.drawText(QRect(left, 0, width + 2, self.height()), flags, text)
        return left + width

    def _renew(self, text: str) -> None:
        self.setToolTip(text)
        self.setAccessibleDescription(text)
        self.updateGeometry()
        self.update()
