"""The settings beside a conversation: a narrow column that scrolls where the window is low.

Knows its width and its looks, not what is set in it.
"""

from __future__ import annotations

from PySide6.QtWidgets import QStyle, QWidget

from app.widgets.bare_scroll import BareScroll

WIDTH = 304


class SideColumn(BareScroll):
    """A scroll area of one width, which `hold` is told what it holds."""

    def hold(self, inner: QWidget) -> None:
        """Show `inner`, as wide as the column and on the ground of the page."""
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFixedWidth(WIDTH)
        inner.setAutoFillBackground(False)

    def fit_width(self) -> None:
        """Become wider where what is held has to be, and narrow again where it need not."""
        inner = self.widget()
        if inner is not None:
            bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
            self.setFixedWidth(max(WIDTH, inner.minimumSizeHint().width() + bar))
