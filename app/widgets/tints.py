"""Background colors of a conversation, mixed from the palette and the theme."""

from __future__ import annotations

from PySide6.QtGui import QColor, QPalette

from app.theme import Theme, mixed


def bubble_color(theme: Theme, palette: QPalette, mine: bool) -> QColor:
    """Return the background of a message: slightly accented for the user, the surface color for the model."""
    if mine:
        return mixed(palette.color(QPalette.ColorRole.Window), theme.color("accent"), 0.22 if theme.dark else 0.14)
    return theme.color("surface")


def code_color(theme: Theme, palette: QPalette) -> QColor:
    """Return the background of code inside a message."""
    return mixed(theme.color("surface"), palette.color(QPalette.ColorRole.Text), 0.06)
