"""The grounds of a conversation, mixed from the palette and the theme so that they follow light and dark."""

from __future__ import annotations

from PySide6.QtGui import QColor, QPalette

from app.theme import Theme, mixed


def bubble_color(theme: Theme, palette: QPalette, mine: bool) -> QColor:
    """The ground of a message: a breath of the accent for the user's own, the surface for the model's."""
    if mine:
        return mixed(palette.color(QPalette.ColorRole.Window), theme.color("accent"), 0.22 if theme.dark else 0.14)
    return theme.color("surface")


def code_color(theme: Theme, palette: QPalette) -> QColor:
    """The ground of code inside a message."""
    return mixed(theme.color("surface"), palette.color(QPalette.ColorRole.Text), 0.06)
