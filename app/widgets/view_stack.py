"""A stack of views whose minimum height does not depend on their content."""

from __future__ import annotations

from PySide6.QtWidgets import QStackedWidget, QWidget

from app.widgets.bare_scroll import BareScroll


class ViewStack(QStackedWidget):
    """A stack whose minimum height does not grow with the texts in its views.

    With a large font the views scroll, and the widgets below the stack remain in the window.
    """

    def hasHeightForWidth(self) -> bool:
        """Return False; otherwise the preferred height of the highest view becomes the minimum height of the stack."""
        return False

    def add_scrolling(self, view: QWidget) -> None:
        """Add a view inside a scroll area."""
        area = BareScroll(self)
        area.setWidget(view)
        area.setWidgetResizable(True)
        view.setAutoFillBackground(False)
        self.addWidget(area)
