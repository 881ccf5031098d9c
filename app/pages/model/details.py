"""The overview of a model and its card, one above the other or, where there is room, side by side."""

from __future__ import annotations

from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from app.pages.model.card_view import CardView
from app.pages.model.overview import ModelOverview
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel

QWIDGETSIZE_MAX = (1 << 24) - 1
"""Qt's own "no limit", which PySide does not know by name."""
_SIDE_BY_SIDE = 130
"""Average characters of width from which both have room beside each other."""
_OVERVIEW = 88
_CARD = 160
"""Average characters of width at which each stops growing."""


class ModelDetails(QWidget):
    """The right side of the Model page while there is a model."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.overview = ModelOverview(theme)
        self.card = CardView(theme)
        title = ElidedLabel(theme, self.tr("Model card"), bold=True)
        title.setBuddy(self.card)
        self._side = QWidget()
        side = QVBoxLayout(self._side)
        side.setContentsMargins(0, 0, 0, 0)
        side.setSpacing(8)
        side.addWidget(title)
        side.addWidget(self.card, 1)
        letter = self.fontMetrics().averageCharWidth()
        self.card.setMinimumHeight(4 * self.fontMetrics().lineSpacing())
        self._side.setMaximumWidth(_CARD * letter)
        self._box = QBoxLayout(QBoxLayout.Direction.TopToBottom, self)
        self._box.setContentsMargins(0, 0, 0, 0)
        self._box.setSpacing(16)
        self._box.addWidget(self.overview, 0)
        self._box.addWidget(self._side, 1)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        wide = self.width() >= _SIDE_BY_SIDE * self.fontMetrics().averageCharWidth()
        direction = QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom
        if self._box.direction() != direction:
            self._box.setDirection(direction)
            self._box.setStretch(0, 1 if wide else 0)
            # Beside the card it takes the whole height, above the card only what it needs.
            vertical = QSizePolicy.Policy.Expanding if wide else QSizePolicy.Policy.Maximum
            self.overview.setSizePolicy(QSizePolicy.Policy.Preferred, vertical)
            most = _OVERVIEW * self.fontMetrics().averageCharWidth() if wide else QWIDGETSIZE_MAX
            self.overview.setMaximumWidth(most)
