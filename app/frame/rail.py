"""The rail on the left: the pages in the order of the workflow, and the settings below them.

Marks the current page and the pages with news.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QPointF, QSize, Signal
from PySide6.QtGui import QPainter, QPaintEvent, QPalette, QResizeEvent
from PySide6.QtWidgets import QButtonGroup, QFrame, QMenu, QSizePolicy, QToolButton, QVBoxLayout, QWidget

from app.theme import Theme

_LEAST: Final = 88
_MARGIN: Final = 8
_DOT: Final = 4.0
_BAR: Final = 3


class Rail(QFrame):
    """A column of buttons, one per page, and the settings button.

    Signals:
        chosen: a page's button was pressed; the page's id.
    """

    chosen = Signal(str)

    def __init__(self, theme: Theme, pages: Sequence[tuple[str, str]], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.setObjectName("rail")
        self._theme = theme
        self._group = QButtonGroup(self)
        self._buttons: dict[str, _RailButton] = {}
        column = QVBoxLayout(self)
        column.setContentsMargins(_MARGIN, _MARGIN, _MARGIN, _MARGIN)
        column.setSpacing(4)
        for number, (page, title) in enumerate(pages, 1):
            button = _RailButton(theme, page, title)
            button.setObjectName(f"rail_{page}")
            button.setCheckable(True)
            button.setToolTip(f"{title} (Ctrl+{number})")
            button.clicked.connect(lambda _checked=False, page=page: self.chosen.emit(page))
            self._group.addButton(button)
            self._buttons[page] = button
            column.addWidget(button)
        column.addStretch(1)
        self._settings = _RailButton(theme, "settings", self.tr("Settings"))
        self._settings.setObjectName("rail_settings")
        self._settings.clicked.connect(self._open_menu)
        self._menu: QMenu | None = None
        column.addWidget(self._settings)
        widest = max(button.text_width() for button in (*self._buttons.values(), self._settings))
        self.setFixedWidth(max(_LEAST, widest + 2 * _MARGIN))
        theme.changed.connect(self._paint_new)
        self._paint_new()

    def set_menu(self, menu: QMenu) -> None:
        """Set the menu of the settings button."""
        self._menu = menu

    def show_page(self, page: str) -> None:
        """Mark the current page."""
        self._buttons[page].setChecked(True)

    def set_dot(self, page: str, shown: bool) -> None:
        """Show or hide the mark of a page with news."""
        self._buttons[page].set_dot(shown)

    def _open_menu(self) -> None:
        if self._menu is not None:
            self._menu.popup(self._settings.mapToGlobal(self._settings.rect().topRight()))

    def _paint_new(self) -> None:
        for button in (*self._buttons.values(), self._settings):
            button.tint()


class _RailButton(QToolButton):
    """An icon above its name, with a dot at the icon's corner if the page has news."""

    def __init__(self, theme: Theme, icon_name: str, title: str) -> None:
        super().__init__()
        self._icon_name, self._theme = icon_name, theme
        self._dot = False
        self._bar = QWidget(self)
        self._bar.setAutoFillBackground(True)
        self._bar.setBackgroundRole(QPalette.ColorRole.Window)
        self._bar.hide()
        self.toggled.connect(self._bar.setVisible)
        self.setText(title)
        self.setAutoRaise(True)
        self.setIconSize(QSize(24, 24))
        self.setProperty("toolButtonStyle", "ToolButtonTextUnderIcon")  # by name: see app.theme
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Fixed)
        self.setProperty("focusPolicy", "StrongFocus")

    def set_dot(self, shown: bool) -> None:
        self._dot = shown
        self.setAccessibleDescription(self.tr("Has updates") if shown else "")
        self.update()

    def tint(self) -> None:
        """Draw the icon and the mark of the current page in the colors of the theme."""
        self.setIcon(self._theme.icon(self._icon_name))
        palette = QPalette()
        palette.setColor(QPalette.ColorRole.Window, self._theme.color("accent"))
        self._bar.setPalette(palette)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        left = self.width() - _BAR if self.isRightToLeft() else 0
        self._bar.setGeometry(left, 8, _BAR, self.height() - 16)

    def sizeHint(self) -> QSize:
        return QSize(_LEAST - 2 * _MARGIN, max(56, super().sizeHint().height() + 4))

    def text_width(self) -> int:
        """Return the width that the name needs, in pixels."""
        return self.fontMetrics().horizontalAdvance(self.text()) + _MARGIN

    def paintEvent(self, event: QPaintEvent) -> None:
        super().paintEvent(event)
        if self._dot:
            painter = QPainter(self)
            painter.setRenderHint(QPainter.RenderHint.Antialiasing)
            painter.setPen(self._theme.color("accent"))
            painter.setBrush(self._theme.color("accent"))
            painter.drawEllipse(QPointF(self.width() / 2 + 14, 12), _DOT, _DOT)
