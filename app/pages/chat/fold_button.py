"""A line with an arrow that opens what is folded below it. Knows nothing of what that is."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QPointF, QRect, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPolygonF
from PySide6.QtWidgets import QStyle, QStyleOptionToolButton, QStylePainter, QToolButton, QWidget

_ARROW: Final = 4.0
_PAD: Final = 4


class FoldButton(QToolButton):
    """Checked while open; `toggled` tells."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.setAutoRaise(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def sizeHint(self) -> QSize:
        """Room for the arrow and the text."""
        metrics = self.fontMetrics()
        width = metrics.horizontalAdvance(self.text()) + 2 * _PAD + round(4 * _ARROW) + 2
        return QSize(width, metrics.height() + 2 * _PAD)

    def minimumSizeHint(self) -> QSize:
        """The same."""
        return self.sizeHint()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Without the look of a button that is held down: the arrow says enough.

        The arrow is drawn here, as Fusion lays its own over the text where the window runs from right to left.
        """
        painter, option = QStylePainter(self), QStyleOptionToolButton()
        self.initStyleOption(option)
        option.state &= ~QStyle.StateFlag.State_On
        option.text = ""
        painter.drawComplexControl(QStyle.ComplexControl.CC_ToolButton, option)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ink = self.palette().color(self.foregroundRole())
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(ink)
        right = self.isRightToLeft()
        x = self.width() - _PAD - _ARROW if right else _PAD + _ARROW
        painter.drawPolygon(self._arrow(QPointF(x, self.height() / 2), -1.0 if right else 1.0))
        painter.setPen(ink)
        beside = round(4 * _ARROW) + _PAD - 2
        room = QRect(0 if right else beside, 0, self.width() - beside, self.height())
        edge = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
        painter.drawText(room, edge | Qt.AlignmentFlag.AlignVCenter, self.text())

    def _arrow(self, middle: QPointF, way: float) -> QPolygonF:
        """Down while open, else where the text begins to be read."""
        short, long = _ARROW * 0.6, _ARROW
        if self.isChecked():
            corners = ((-long, -short), (long, -short), (0.0, long * 0.7))
        else:
            corners = ((-short * way, -long), (-short * way, long), (long * 0.7 * way, 0.0))
        return QPolygonF([middle + QPointF(x, y) for x, y in corners])
