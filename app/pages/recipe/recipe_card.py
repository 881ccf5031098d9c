"""A recipe as a card with its purpose, time and stages. One of several cards is selected.

Behaves like a radio button.
"""

from __future__ import annotations

from PySide6.QtCore import QRect, QRectF, Qt
from PySide6.QtGui import QPainter, QPaintEvent, QPalette, QPen
from PySide6.QtWidgets import (
    QAbstractButton,
    QHBoxLayout,
    QSizePolicy,
    QStyle,
    QVBoxLayout,
    QWidget,
)

from app.theme import Theme, mixed
from app.widgets.tinted_label import TintedLabel

_EDGE = 12
_RING = 14
_LEAST_WIDTH = 200


class RecipeCard(QAbstractButton):
    """A card, with the interface of a button."""

    def __init__(self, theme: Theme, title: str, purpose: str, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme, self._purpose = theme, purpose
        self.setAccessibleName(title)
        self.setCheckable(True)
        self.setAutoExclusive(True)
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAttribute(Qt.WidgetAttribute.WA_Hover)
        self.setMinimumWidth(_LEAST_WIDTH)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Preferred)
        self._title = TintedLabel(
            theme, title.replace("-", "\N{NON-BREAKING HYPHEN}"), bold=True, wrap=True, parent=self
        )
        self._mark = TintedLabel(theme, self.tr("modified"), role="accent", parent=self)
        self._mark.hide()
        self._aim = TintedLabel(theme, purpose, wrap=True, parent=self)
        self._time = TintedLabel(theme, role="muted", wrap=True, parent=self)
        self._stages = TintedLabel(theme, role="muted", wrap=True, parent=self)
        for label in (self._title, self._mark, self._aim, self._time, self._stages):
            label.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        head = QHBoxLayout()
        head.setSpacing(8)
        head.addWidget(self._title, 1)
        head.addWidget(self._mark, 0, Qt.AlignmentFlag.AlignTop)
        column = QVBoxLayout(self)
        column.setContentsMargins(_EDGE + _RING + 8, _EDGE, _EDGE, _EDGE)
        column.setSpacing(4)
        column.addLayout(head)
        column.addWidget(self._aim)
        column.addStretch(1)
        column.addWidget(self._time)
        column.addWidget(self._stages)
        theme.changed.connect(self.update)

    @property
    def modified(self) -> bool:
        """Return whether the card is marked as modified."""
        return not self._mark.isHidden()

    def set_texts(self, purpose: str, time: str, stages: str, *, modified: bool) -> None:
        """Set the texts for purpose, time and stages, and whether the parameters were modified."""
        for label, text in ((self._aim, purpose), (self._time, time), (self._stages, stages)):
            if label.text() != text:
                label.setText(text)
        self._time.setVisible(bool(time))
        self._mark.setVisible(modified)
        mark = self.tr("Modified.") if modified else ""
        told = "".join(f"{text}. " for text in (time, stages) if text)
        self.setAccessibleDescription(f"{purpose} {told}{mark}".strip())

    def texts(self) -> tuple[str, str, str]:
        """Return the shown purpose, time and stages."""
        return self._aim.text(), self._time.text(), self._stages.text()

    def paintEvent(self, event: QPaintEvent) -> None:
        """Paint background, border (thick if selected), radio indicator and focus ring."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        ground, line = self._theme.color("surface"), self._theme.color("line")
        accent = self._theme.color("accent")
        if self.isChecked():
            ground, line = mixed(ground, accent, 0.08), accent
        elif self.underMouse():
            line = self._theme.color("muted")
        width = 2.0 if self.isChecked() else 1.0
        box = QRectF(self.rect()).adjusted(width / 2, width / 2, -width / 2, -width / 2)
        painter.setPen(QPen(line, width))
        painter.setBrush(ground)
        painter.drawRoundedRect(box, 6, 6)
        if self.hasFocus():
            painter.setBrush(Qt.BrushStyle.NoBrush)
            painter.setPen(QPen(self.palette().color(QPalette.ColorRole.WindowText), 1, Qt.PenStyle.DotLine))
            painter.drawRoundedRect(box.adjusted(3, 3, -3, -3), 4, 4)
        self._paint_indicator(painter)
        painter.end()

    def _paint_indicator(self, painter: QPainter) -> None:
        """Paint the radio indicator; that of the style has too little contrast on a dark card."""
        height = self._title.fontMetrics().height()
        place = QRect(_EDGE, _EDGE + max(0, (height - _RING) // 2), _RING, _RING)
        place = QStyle.visualRect(self.layoutDirection(), self.rect(), place)
        color = self._theme.color("accent" if self.isChecked() else "muted")
        ring = QRectF(place).adjusted(1, 1, -1, -1)
        painter.setBrush(Qt.BrushStyle.NoBrush)
        painter.setPen(QPen(color, 1.5))
        painter.drawEllipse(ring)
        if self.isChecked():
            painter.setPen(Qt.PenStyle.NoPen)
            painter.setBrush(color)
            painter.drawEllipse(ring.adjusted(3, 3, -3, -3))
