"""The overview of a model and its card, stacked or, if there is enough space, side by side."""

from __future__ import annotations

from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QSizePolicy, QVBoxLayout, QWidget

from app.pages.model.card_view import CardView
from app.pages.model.overview import ModelOverview
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel

QWIDGETSIZE_MAX = (1 << 24) - 1
"""Qt's QWIDGETSIZE_MAX, which PySide does not define."""
_SIDE_BY_SIDE = 130
"""Minimum width in average characters for the side-by-side layout."""
_OVERVIEW = 88
_CARD = 160
"""Maximum width of each part in average characters."""


class ModelDetails(QWidget):
    """The right side of the Model page when a model is open."""

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
            # Side by side, it takes the whole height; above the card, only what it needs.
            vertical = QSizePolicy.Policy.Expanding if wide else QSizePolicy.Policy.Maximum
            self.overview.setSizePolicy(QSizePolicy.Policy.Preferred, vertical)
            most = _OVERVIEW * self.fontMetrics().averageCharWidth() if wide else QWIDGETSIZE_MAX
            self.overview.setMaximumWidth(most)
