"""The style of primary buttons, which have the accent color of the theme."""

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
"""The style sheet. It replaces the gradient of Fusion, which reduces the contrast of the text."""


def make_primary(button: QPushButton, theme: Theme) -> QPushButton:
    """Style a push button as primary, also when the theme changes; return the button."""
    if button.findChild(_Paint) is not None:
        return button
    button.setAutoDefault(True)
    font = button.font()
    font.setWeight(QFont.Weight.DemiBold)
    button.setFont(font)
    _Paint(button, theme).paint()
    return button


class _Paint(QObject):
    """A child object of a button that updates its style sheet, so that the connection ends with the button."""

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
