"""Computation of the contrast of colors."""

from __future__ import annotations

from PySide6.QtGui import QColor

from app.theme import luminance


def contrast(first: QColor, second: QColor) -> float:
    """Return the contrast of two colors, 1 to 21, as defined by WCAG."""
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)
