"""The layout of tiles in rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from PySide6.QtCore import QRect, QSize

GAP: Final = 8


def flow(sizes: Sequence[QSize], width: int, *, mirrored: bool = False) -> tuple[list[QRect], QSize]:
    """Return the place of each tile in rows of at most `width` pixels, and the size of all.

    A tile that is wider than a row has a row of its own. `mirrored` begins each row at the right.
    """
    places: list[QRect] = []
    x = y = high = wide = 0
    for size in sizes:
        if x and x + size.width() > width:
            x, y, high = 0, y + high + GAP, 0
        places.append(QRect(x, y, size.width(), size.height()))
        x += size.width() + GAP
        wide, high = max(wide, x - GAP), max(high, size.height())
    if mirrored:
        places = [QRect(width - place.x() - place.width(), place.y(), *place.size().toTuple()) for place in places]
    return places, QSize(wide, y + high)
