"""Two small curves over the prompt length: the speed of prefill and of decode.

Painted directly, as a plotting library takes half a second to import.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import log2

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPen, QPolygonF
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.theme import Theme
from core.inference.figures import SpeedRow
from core.wording import figure

_HEIGHT = 192
_DOT = 3.0


class BenchPlot(QWidget):
    """The two curves; hidden by its owner while there are no rows."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._rows: tuple[SpeedRow, ...] = ()
        self.setObjectName("bench_plot")
        self.setAccessibleName(self.tr("Speed by prompt length"))
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        theme.changed.connect(self.update)

    def sizeHint(self) -> QSize:
        """Return the preferred size; the width expands."""
        return QSize(200, _HEIGHT)

    def show_rows(self, rows: Sequence[SpeedRow]) -> None:
        """Show a measurement."""
        self._rows = tuple(rows)
        if rows:
            words = self.tr("Prefill {first} to {last} tokens per second, decode {slow} to {fast}")
            prefill, decode = (
                [row.prefill_tokens_per_second for row in rows],
                [row.decode_tokens_per_second for row in rows],
            )
            self.setAccessibleDescription(
                words.format(
                    first=figure(min(prefill)),
                    last=figure(max(prefill)),
                    slow=figure(min(decode)),
                    fast=figure(max(decode)),
                )
            )
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint both curves, each from 0 to its own maximum."""
        if not self._rows:
            return
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        line = painter.fontMetrics().height()
        half = (self.height() - line) / 2
        self._curve(
            painter,
            QRectF(0, 0, self.width(), half),
            self.tr("Prefill"),
            "accent",
            lambda row: row.prefill_tokens_per_second,
        )
        self._curve(
            painter,
            QRectF(0, half, self.width(), half),
            self.tr("Decode"),
            "good",
            lambda row: row.decode_tokens_per_second,
        )
        painter.setPen(self._theme.color("muted"))
        bottom = QRectF(0, self.height() - line, self.width(), line)
        for row, x in zip(self._rows, self._places(), strict=True):
            painter.drawText(_around(x, bottom, 64), Qt.AlignmentFlag.AlignCenter, f"{row.prompt_tokens:,}")

    def _curve(
        self, painter: QPainter, room: QRectF, title: str, role: str, value: Callable[[SpeedRow], float]
    ) -> None:
        theme, metrics = self._theme, painter.fontMetrics()
        values = [value(row) for row in self._rows]
        most = max(values) or 1.0
        top = room.top() + 2 * metrics.height() + 8
        base = room.bottom() - 6
        painter.setPen(theme.color("muted"))
        painter.drawText(room, Qt.AlignmentFlag.AlignLeft | Qt.AlignmentFlag.AlignTop, title + self.tr(", tokens/s"))
        painter.setPen(theme.color("line"))
        painter.drawLine(QPointF(0, base), QPointF(self.width(), base))
        points = [QPointF(x, base - (base - top) * each / most) for x, each in zip(self._places(), values, strict=True)]
        color = theme.color(role)
        painter.setPen(QPen(color, 2))
        painter.drawPolyline(QPolygonF(points))
        painter.setPen(Qt.PenStyle.NoPen)
        painter.setBrush(color)
        for point in points:
            painter.drawEllipse(point, _DOT, _DOT)
        painter.setPen(self.palette().color(self.foregroundRole()))
        for point, each in zip(points, values, strict=True):
            label = _around(point.x(), QRectF(0, point.y() - metrics.height() - 3, self.width(), metrics.height()), 56)
            painter.drawText(label, Qt.AlignmentFlag.AlignCenter, figure(each))

    def _places(self) -> list[float]:
        """Return the x positions of the lengths on a logarithmic scale."""
        margin = 32.0
        steps = [log2(row.prompt_tokens) for row in self._rows]
        low, span = steps[0], steps[-1] - steps[0]
        room = self.width() - 2 * margin
        return [margin + (room * (step - low) / span if span else room / 2) for step in steps]


def _around(x: float, room: QRectF, width: float) -> QRectF:
    """Return a rectangle of `width` around `x`, moved inside `room`."""
    left = min(max(room.left(), x - width / 2), room.right() - width)
    return QRectF(left, room.top(), width, room.height())
