"""A bar that shows the range of a need against the free amount."""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QColor, QPainter, QPainterPath, QPaintEvent
from PySide6.QtWidgets import QSizePolicy, QWidget

if TYPE_CHECKING:
    from app.theme import Theme

HEIGHT = 8
_SLIVER = 3.0
"""Minimum width of the filled part in pixels, so that it is visible."""


class CostBar(QWidget):
    """The track is the free amount, or the need if that is larger, with a notch at the free amount.

    The solid part is the low end of the need, the pale part the range up to the high end.
    """

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._low = self._high = 0.0
        self._free: float | None = None
        self._role = "accent"
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme.changed.connect(self.update)

    def show_need(self, low: float, high: float, free: float | None, role: str) -> None:
        """Show a need in a color role of the theme; `free` is None if unknown."""
        self._low, self._high, self._free, self._role = low, high, free, role
        self.update()

    def shares(self) -> tuple[float, float, float]:
        """The positions of low end, high end and free amount on the track, from 0 to 1."""
        whole = max(self._high, self._free or 0.0)
        if whole <= 0:
            return 0.0, 0.0, 1.0
        return self._low / whole, self._high / whole, 1.0 if self._free is None else self._free / whole

    def sizeHint(self) -> QSize:
        return QSize(160, HEIGHT)

    def minimumSizeHint(self) -> QSize:
        return QSize(40, HEIGHT)

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.layoutDirection() == Qt.LayoutDirection.RightToLeft:
            painter.translate(self.width(), 0)
            painter.scale(-1, 1)
        width, height = float(self.width()), float(self.height())
        track = QPainterPath()
        track.addRoundedRect(QRectF(0, 0, width, height), height / 2, height / 2)
        painter.fillPath(track, self._theme.color("line"))
        low, high, free = self.shares()
        color = self._theme.color(self._role)
        pale = QColor(color)
        pale.setAlphaF(0.45)
        painter.setClipPath(track)
        start = max(_SLIVER, low * width) if self._high > 0 else 0.0
        painter.fillRect(QRectF(0, 0, start, height), color)
        painter.fillRect(QRectF(start, 0, max(0.0, high * width - start), height), pale)
        if free < 1:
            painter.fillRect(QRectF(free * width - 1, 0, 2, height), self.palette().windowText())
        painter.end()
