"""The column of settings beside a conversation, which scrolls if the window is low."""

from __future__ import annotations

from PySide6.QtWidgets import QStyle, QWidget

from app.widgets.bare_scroll import BareScroll

WIDTH = 304


class SideColumn(BareScroll):
    """A scroll area of fixed width. Its content is set by `hold`."""

    def hold(self, inner: QWidget) -> None:
        """Show `inner` with the width of the column and the background of the page."""
        self.setWidget(inner)
        self.setWidgetResizable(True)
        self.setFixedWidth(WIDTH)
        inner.setAutoFillBackground(False)

    def fit_width(self) -> None:
        """Widen the column if the content requires it, or restore the normal width."""
        inner = self.widget()
        if inner is not None:
            bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
            self.setFixedWidth(max(WIDTH, inner.minimumSizeHint().width() + bar))
