"""The coloured button: there is one at the top of the window, and one at the end of each page.

Knows the accent colour and nothing of what the button does.
"""

from __future__ import annotations

from PySide6.QtCore import QObject
from PySide6.QtGui import QFont, QPalette
from PySide6.QtWidgets import QPushButton

from app.theme import Theme, mixed

_SHAPE = """
QPushButton {{
    background: {ground}; color: {text}; border: 2px solid {ground}; border-radius: 5px; padding: 4px 14px;
}}
QPushButton:hover {{ background: {hover}; border-color: {hover}; }}
QPushButton:pressed {{ background: {pressed}; border-color: {pressed}; }}
QPushButton:focus {{ border-color: {ring}; }}
QPushButton:disabled {{ background: {off}; color: {off_text}; border-color: {off}; }}
"""
"""The colours are the theme's. Fusion would lay a gradient over them, on which text can no longer be read well."""


def make_primary(button: QPushButton, theme: Theme) -> QPushButton:
    """Fill a push button with the accent colour, now and whenever the theme changes; returns the button."""
    if button.findChild(_Paint) is not None:
        return button
    button.setAutoDefault(True)
    font = button.font()
    font.setWeight(QFont.Weight.DemiBold)
    button.setFont(font)
    _Paint(button, theme).paint()
    return button


class _Paint(QObject):
    """Lives and dies with its button, so that the theme never calls a button that is gone."""

    def __init__(self, button: QPushButton, theme: Theme) -> None:
        super().__init__(button)
        self._button, self._theme = button, theme
        theme.changed.connect(self.paint)

    def paint(self) -> None:
        palette = QPalette()
        accent = self._theme.color("accent")
        text = self._theme.text_on(accent)
        off_text = palette.color(QPalette.ColorGroup.Disabled, QPalette.ColorRole.ButtonText)
        shape = _SHAPE.format(
            ground=accent.name(),
            text=text.name(),
            hover=mixed(accent, text, 0.1).name(),
            pressed=mixed(accent, text, 0.2).name(),
            ring=palette.color(QPalette.ColorRole.WindowText).name(),
            off=palette.color(QPalette.ColorRole.Midlight).name(),
            off_text=off_text.name(),
        )
        self._button.setStyleSheet(shape)
