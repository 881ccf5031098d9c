"""The errors of the layers of a block with plain rounding and with the start, as one bar for each kind of layer.

Depends on the errors and colors only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from PySide6.QtCore import QRectF, QSize, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPalette
from PySide6.QtWidgets import QFrame, QScrollArea, QSizePolicy, QVBoxLayout, QWidget

from app.shared.run.record import StartErrors
from app.theme import Theme, mixed
from app.widgets.tinted_label import TintedLabel
from core.wording import percentage

_PAD = 12
_BAR = 12
_HIGHEST_ROW = 44
_ARROW = " \N{RIGHTWARDS ARROW} "
_WIDEST_FIGURE = "0.00 %"


@dataclass(frozen=True)
class LayerRow:
    """A kind of layer: its name, and its errors; None while its start is not found."""

    kind: str
    errors: StartErrors | None

    @property
    def text(self) -> str:
        """The errors before and after, for example `12 % -> 4.3 %`; "" while they are unknown."""
        if self.errors is None:
            return ""
        return f"{percentage(self.errors.before)}{_ARROW}{percentage(self.errors.after)}"


class LayerErrors(QWidget):
    """The bars, with an explanation below."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.theme = theme
        self._bars = _Bars(theme)
        scroll = QScrollArea()
        scroll.setFrameShape(QFrame.Shape.NoFrame)
        scroll.setWidgetResizable(True)
        scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        scroll.setFocusPolicy(Qt.FocusPolicy.NoFocus)
        scroll.setWidget(self._bars)
        for widget in (scroll.viewport(), self._bars):  # both would paint the color of the window over the panel
            widget.setAutoFillBackground(False)
        words = self.tr(
            "Error of each layer\N{RIGHT SINGLE QUOTATION MARK}s outputs on the calibration text, relative to the"
            " outputs: plain rounding \N{RIGHTWARDS ARROW} start."
        )
        self._explanation = TintedLabel(theme, words, role="muted", wrap=True)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(scroll, 1)
        column.addWidget(self._explanation)
        self.setAccessibleName(self.tr("Errors of the layers"))

    def hasHeightForWidth(self) -> bool:
        """Return False: the bars use the available height."""
        return False

    @property
    def rows(self) -> tuple[LayerRow, ...]:
        """The shown kinds of layers."""
        return self._bars.rows

    def show_errors(self, kinds: Sequence[str], errors: Mapping[str, StartErrors]) -> None:
        """Show the kinds of layers in this order, and then those of `errors` that are not among them."""
        names = dict.fromkeys([*kinds, *errors])
        self._bars.show_rows(tuple(LayerRow(kind, errors.get(kind)) for kind in names))
        self.setAccessibleDescription(", ".join(f"{row.kind}: {row.text}" for row in self.rows if row.text))


class _Bars(QWidget):
    """The painted rows; all bars have the scale of the largest error."""

    def __init__(self, theme: Theme) -> None:
        super().__init__()
        self._theme = theme
        self.rows: tuple[LayerRow, ...] = ()
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        theme.changed.connect(self.update)

    def show_rows(self, rows: tuple[LayerRow, ...]) -> None:
        if rows != self.rows:
            if len(rows) != len(self.rows):
                self.updateGeometry()
            self.rows = rows
            self.setMinimumHeight(len(rows) * self._lowest_row())
            self.update()

    def sizeHint(self) -> QSize:
        return QSize(320, len(self.rows) * (self._lowest_row() + 8))

    def paintEvent(self, _event: QPaintEvent) -> None:
        if not self.rows:
            return
        painter = QPainter(self)
        metrics = self.fontMetrics()
        figures = metrics.horizontalAdvance(f"{_WIDEST_FIGURE}{_ARROW}{_WIDEST_FIGURE}")
        names = 2 + max(metrics.horizontalAdvance(row.kind) for row in self.rows)
        names = min(names, max(80, self.width() // 3))
        bar = self.width() - names - figures - 2 * _PAD
        height = min(float(_HIGHEST_ROW), self.height() / len(self.rows))
        errors = [row.errors.before for row in self.rows if row.errors is not None]
        largest = max((max(0.0, error) for error in errors if math.isfinite(error)), default=0.0) or 1.0
        right = self.layoutDirection() == Qt.LayoutDirection.RightToLeft
        for number, row in enumerate(self.rows):
            top = number * height
            places = [
                QRectF(0, top, names, height),
                QRectF(names + _PAD, top + (height - _BAR) / 2, bar, _BAR),
                QRectF(names + bar + 2 * _PAD, top, figures, height),
            ]
            if right:
                places = [QRectF(self.width() - place.right(), *_rest(place)) for place in places]
            self._draw(painter, row, places, largest, right)

    def _draw(self, painter: QPainter, row: LayerRow, places: list[QRectF], largest: float, right: bool) -> None:
        name, bar, figures = places
        accent, surface = self._theme.color("accent"), self._theme.color("surface")
        middle = int(Qt.AlignmentFlag.AlignVCenter)
        text = self.palette().color(QPalette.ColorRole.WindowText)
        painter.setPen(text if row.errors is not None else self._theme.color("muted"))
        side = Qt.AlignmentFlag.AlignRight if right else Qt.AlignmentFlag.AlignLeft
        elided = self.fontMetrics().elidedText(row.kind, Qt.TextElideMode.ElideMiddle, int(name.width()))
        painter.drawText(name, int(side) | middle, elided)
        if row.errors is None:
            line = QRectF(bar.left(), bar.center().y(), bar.width(), 1)
            painter.fillRect(line, self._theme.color("line"))
            return
        other = Qt.AlignmentFlag.AlignLeft if right else Qt.AlignmentFlag.AlignRight
        painter.drawText(figures, int(other) | middle, row.text)
        for error, color in ((row.errors.before, mixed(surface, accent, 0.35)), (row.errors.after, accent)):
            share = min(1.0, max(0.0, error / largest)) if math.isfinite(error) else 1.0
            width = bar.width() * share
            left = bar.right() - width if right else bar.left()
            painter.fillRect(QRectF(left, bar.top(), width, bar.height()), color)

    def _lowest_row(self) -> int:
        return self.fontMetrics().height() + 6


def _rest(place: QRectF) -> tuple[float, float, float]:
    return place.top(), place.width(), place.height()
