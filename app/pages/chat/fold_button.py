"""A button with an arrow that expands or collapses the content below it."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QPointF, QRect, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPolygonF
from PySide6.QtWidgets import QStyle, QStyleOptionToolButton, QStylePainter, QToolButton, QWidget

_ARROW: Final = 4.0
_PAD: Final = 4


class FoldButton(QToolButton):
    """A checkable button, checked while expanded; emits `toggled`."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setCheckable(True)
        self.setAutoRaise(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)

    def sizeHint(self) -> QSize:
        """Return the size of the arrow and the text."""
        metrics = self.fontMetrics()
        width = metrics.horizontalAdvance(self.text()) + 2 * _PAD + round(4 * _ARROW) + 2
        return QSize(width, metrics.height() + 2 * _PAD)

    def minimumSizeHint(self) -> QSize:
        """Return the size hint."""
        return self.sizeHint()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the button without the pressed look of a checked button.

        The arrow is painted here, as Fusion paints its own over the text in right-to-left layouts.
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
        """Return an arrow that points down if expanded, otherwise to the end of the line."""
        short, long = _ARROW * 0.6, _ARROW
        if self.isChecked():
            corners = ((-long, -short), (long, -short), (0.0, long * 0.7))
        else:
            corners = ((-short * way, -long), (-short * way, long), (long * 0.7 * way, 0.0))
        return QPolygonF([middle + QPointF(x, y) for x, y in corners])
