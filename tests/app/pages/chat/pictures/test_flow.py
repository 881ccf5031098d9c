"""Rows of tiles."""

from __future__ import annotations

from PySide6.QtCore import QPoint, QSize

from app.pages.chat.pictures.flow import GAP, flow


def test_tiles_fill_a_row_and_go_on_in_the_next() -> None:
    places, size = flow([QSize(40, 30), QSize(40, 20), QSize(40, 10)], 100)
    assert [place.topLeft() for place in places] == [QPoint(0, 0), QPoint(40 + GAP, 0), QPoint(0, 30 + GAP)]
    assert size == QSize(80 + GAP, 40 + GAP)


def test_a_wide_tile_has_a_row_of_its_own() -> None:
    places, _size = flow([QSize(10, 10), QSize(200, 10), QSize(10, 10)], 100)
    assert len({place.y() for place in places}) == 3


def test_a_mirrored_row_begins_at_the_right() -> None:
    places, _size = flow([QSize(40, 30), QSize(20, 30)], 100, mirrored=True)
    assert [place.x() for place in places] == [60, 60 - 20 - GAP]


def test_no_tiles_need_no_room() -> None:
    assert flow([], 100) == ([], QSize(0, 0))
