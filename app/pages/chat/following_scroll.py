"""A column that grows at its end, and a view that goes along with it only while the user is at the end.

Knows how long the column is and what part of it is seen; what lies on it, and where, is for others to say.
"""

from __future__ import annotations

from PySide6.QtWidgets import QStyle, QWidget

from app.widgets.bare_scroll import BareScroll

MARGIN = 16
"""Pixels on both sides of the column, and above and below it."""
_NEAR = 8
"""Pixels from the end that still count as being at the end."""


class FollowingScroll(BareScroll):
    """A scroll area whose `ground` holds the column; who lays it out gives `ground` its size."""

    def __init__(self, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.ground = QWidget()
        self._follow = True
        self.setWidget(self.ground)
        bar = self.verticalScrollBar()
        bar.valueChanged.connect(self._note_place)
        bar.rangeChanged.connect(self._keep_at_end)

    @property
    def following(self) -> bool:
        """Whether the view is at the end and goes along with it."""
        return self._follow

    @property
    def room(self) -> int:
        """Width without the scroll bar, there or not: lines must not break anew because it comes."""
        return self.width() - self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)

    def to_end(self) -> None:
        """Go to the last line and follow it from now on."""
        self._follow = True
        self._keep_at_end()

    def stay_at(self, value: int) -> None:
        """Leave the end and show what is `value` pixels down."""
        self._follow = False
        self.verticalScrollBar().setValue(value)

    def _note_place(self, value: int) -> None:
        self._follow = value >= self.verticalScrollBar().maximum() - _NEAR

    def _keep_at_end(self) -> None:
        if self._follow:
            bar = self.verticalScrollBar()
            bar.setValue(bar.maximum())
