"""Places and pictures of a painted bits map, for its tests."""

from __future__ import annotations

from PySide6.QtCore import QPoint
from PySide6.QtGui import QImage

from app.pages.layers.map.bits_map import BitsMapView


def centre(view: BitsMapView, row: int, column: int) -> QPoint:
    """Return the centre of a cell, in the coordinates of the viewport."""
    assert view.pixels is not None
    return view.pixels.rect(row, column).center() - view.offset


def picture(view: BitsMapView) -> QImage:
    """Return what the viewport shows."""
    return view.viewport().grab().toImage()
