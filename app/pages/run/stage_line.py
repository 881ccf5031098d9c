"""The stages of a run as a line of steps: done, active or pending."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import QPointF, QRectF, QSize, Qt
from PySide6.QtGui import QFont, QFontMetricsF, QPainter, QPaintEvent, QPalette, QPen
from PySide6.QtWidgets import QSizePolicy, QWidget

from app.shared.run.record import OPTIONAL_STAGE, STAGES
from app.theme import Theme

_DOT = 16.0
_GAP = 8.0
_WIDEST = 760


class StageLine(QWidget):
    """The steps with their names; the end-to-end stage only in runs that have one."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        names = (self.tr("Prepare"), self.tr("Calibrate"), self.tr("Tune"), self.tr("End to end"), self.tr("Write"),
                 self.tr("Verify"))  # fmt: skip
        self._titles = dict(zip(STAGES, names, strict=True))
        self._stages: tuple[str, ...] = ()
        self._done: frozenset[str] = frozenset()
        self._on = ""
        self.setObjectName("stage_line")
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setMaximumWidth(_WIDEST)
        self.setAccessibleName(self.tr("Stages of the run"))
        theme.changed.connect(self.update)
        self.show_stage("", (), tuple(name for name in STAGES if name != OPTIONAL_STAGE))

    def show_stage(self, on: str, done: Sequence[str], stages: tuple[str, ...]) -> None:
        """Show the active stage `on`, "" for none, the finished stages `done`, and all `stages` of the run."""
        if (on, frozenset(done), stages) == (self._on, self._done, self._stages):
            return
        if stages != self._stages:
            self.updateGeometry()
        self._on, self._done, self._stages = on, frozenset(done), stages
        self.setAccessibleDescription(", ".join(f"{name}: {self._word(key)}" for key, name in self._steps()))
        self.update()

    def sizeHint(self) -> QSize:
        return QSize(_WIDEST, max(24, self.fontMetrics().height() + 8))

    def minimumSizeHint(self) -> QSize:
        metrics = self.fontMetrics()
        words = sum(metrics.horizontalAdvance(name) for _, name in self._steps())
        return QSize(words + int(len(self._stages) * (_DOT + 4 * _GAP)), self.sizeHint().height())

    def paintEvent(self, _event: QPaintEvent) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self.layoutDirection() == Qt.LayoutDirection.RightToLeft:
            painter.translate(self.width(), 0)
            painter.scale(-1, 1)
        bold = QFont(self.font())
        bold.setWeight(QFont.Weight.DemiBold)
        widths = [QFontMetricsF(bold).horizontalAdvance(name) for _, name in self._steps()]
        room = self.width() - 2 - sum(widths) - len(widths) * (_DOT + _GAP)
        line = max(_GAP, room / (len(widths) - 1)) - 2 * _GAP
        x, middle = 1.0, self.height() / 2
        for (key, name), width in zip(self._steps(), widths, strict=True):
            self._draw_dot(painter, QRectF(x, middle - _DOT / 2, _DOT, _DOT), key)
            x += _DOT + _GAP
            painter.setFont(bold if key == self._on else self.font())
            known = key == self._on or key in self._done
            painter.setPen(self.palette().color(QPalette.ColorRole.WindowText) if known else self._theme.color("muted"))
            self._draw_text(painter, QRectF(x, 0, width, self.height()), name)
            x += width + _GAP
            if key != self._stages[-1]:
                painter.setPen(QPen(self._theme.color("accent" if key in self._done else "line"), 1.5))
                painter.drawLine(QPointF(x, middle), QPointF(x + line, middle))
                x += line + _GAP

    def _draw_text(self, painter: QPainter, place: QRectF, text: str) -> None:
        """Draw text in a painter that may be mirrored: its position is mirrored, the letters are not."""
        flags = int(Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeft)
        if self.layoutDirection() == Qt.LayoutDirection.RightToLeft:
            painter.save()
            painter.translate(place.left() + place.right(), 0)
            painter.scale(-1, 1)
            painter.drawText(place, flags, text)
            painter.restore()
        else:
            painter.drawText(place, flags, text)

    def _draw_dot(self, painter: QPainter, place: QRectF, key: str) -> None:
        accent = self._theme.color("accent")
        if key in self._done:
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(accent)
            painter.drawEllipse(place)
            painter.setPen(QPen(self._theme.text_on(accent), 1.8))
            painter.drawPolyline(
                [place.center() + QPointF(dx, dy) for dx, dy in ((-3.6, 0.2), (-1.0, 2.8), (3.8, -2.6))]
            )
            return
        on = key == self._on
        painter.setPen(QPen(accent if on else self._theme.color("muted"), 2 if on else 1.2))
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.drawEllipse(place.adjusted(1, 1, -1, -1))
        if on:
            painter.setBrush(accent)
            painter.drawEllipse(place.adjusted(5, 5, -5, -5))

    def _steps(self) -> list[tuple[str, str]]:
        return [(key, self._titles[key]) for key in self._stages]

    def _word(self, key: str) -> str:
        if key in self._done:
            return self.tr("done")
        return self.tr("active") if key == self._on else self.tr("pending")
