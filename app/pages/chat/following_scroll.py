"""A scroll area whose content grows at the end, and which follows the end only while the user is there."""

from __future__ import annotations

from PySide6.QtWidgets import QStyle, QWidget

from app.widgets.bare_scroll import BareScroll

MARGIN = 16
"""Margins of the column in pixels."""
_NEAR = 8
"""Distance from the end in pixels that counts as being at the end."""


class FollowingScroll(BareScroll):
    """A scroll area with the column in `ground`. Its owner sets the size of `ground`."""

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
        """Return whether the view is at the end and follows it."""
        return self._follow

    @property
    def room(self) -> int:
        """Width without the scroll bar, visible or not, so that its appearance does not wrap lines again."""
        return self.width() - self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)

    def to_end(self) -> None:
        """Scroll to the end and follow it."""
        self._follow = True
        self._keep_at_end()

    def stay_at(self, value: int) -> None:
        """Stop following and scroll to `value` pixels."""
        self._follow = False
        self.verticalScrollBar().setValue(value)

    def _note_place(self, value: int) -> None:
        self._follow = value >= self.verticalScrollBar().maximum() - _NEAR

    def _keep_at_end(self) -> None:
        if self._follow:
            bar = self.verticalScrollBar()
            bar.setValue(bar.maximum())
