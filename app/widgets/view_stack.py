"""Several views of which one is shown, in whatever height is left to them. Knows nothing of what they show."""

from __future__ import annotations

from PySide6.QtWidgets import QStackedWidget, QWidget

from app.widgets.bare_scroll import BareScroll


class ViewStack(QStackedWidget):
    """A stack whose least height does not grow with the texts in its views.

    So a large font cannot push what stands below the stack out of the window; the views scroll instead.
    """

    def hasHeightForWidth(self) -> bool:
        """Return False: otherwise the preferred height of the highest view becomes the least height of the stack."""
        return False

    def add_scrolling(self, view: QWidget) -> None:
        """Add a view that does not scroll by itself."""
        area = BareScroll(self)
        area.setWidget(view)
        area.setWidgetResizable(True)
        view.setAutoFillBackground(False)
        self.addWidget(area)
