"""Fields that leave the mouse wheel to the page until they are clicked: scrolling past must not change a value."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject, Qt
from PySide6.QtWidgets import QWidget


class WheelGuard(QObject):
    """Watches one widget, whose child it becomes."""

    def __init__(self, widget: QWidget) -> None:
        super().__init__(widget)
        self._widget = widget
        widget.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        widget.installEventFilter(self)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Let the wheel through to the page where the widget has no focus."""
        if event.type() == QEvent.Type.Wheel and not self._widget.hasFocus():
            event.ignore()
            return True
        return False
