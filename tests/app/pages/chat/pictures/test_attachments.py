"""The pictures of a message that is being written."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QAbstractButton
from pytestqt.qtbot import QtBot

from app.pages.chat.conversations.picture_files import display_name
from app.pages.chat.pictures.attachments import MOST_PICTURES, Attachments
from app.pages.chat.pictures.library import PictureLibrary
from app.theme import Theme
from tests.app.find import find
from tests.app.pages.chat.pictures.samples import picture, settle
from tests.app.reading_aloud import unnamed, unreachable


@pytest.fixture
def library(qtbot: QtBot) -> PictureLibrary:
    return PictureLibrary()


@pytest.fixture
def row(theme: Theme, library: PictureLibrary, qtbot: QtBot) -> Attachments:
    row = Attachments(theme, library)
    qtbot.addWidget(row)
    row.resize(300, 64)
    return row


@pytest.fixture
def two(row: Attachments, library: PictureLibrary, tmp_path: Path) -> Attachments:
    row.attach([picture(tmp_path, "a.png", color="red"), picture(tmp_path, "b.png", color="green")])
    settle(library)
    return row


def names(row: Attachments) -> list[str]:
    return [display_name(path) for path in row.pictures]


def test_pictures_keep_the_order_in_which_they_were_attached(two: Attachments) -> None:
    assert names(two) == ["a.png", "b.png"]
    assert two.isVisible()


def test_a_picture_counts_when_it_is_copied(row: Attachments, library: PictureLibrary, tmp_path: Path) -> None:
    row.attach([picture(tmp_path)])
    assert (row.pending, row.pictures) == (True, ())
    settle(library)
    assert (row.pending, len(row.pictures)) == (False, 1)


def test_the_same_picture_is_attached_once(two: Attachments, library: PictureLibrary, tmp_path: Path) -> None:
    two.attach([str(tmp_path / "a.png")])
    settle(library)
    assert names(two) == ["a.png", "b.png"]


def test_a_bad_file_is_told_and_leaves(two: Attachments, library: PictureLibrary, tmp_path: Path, qtbot: QtBot) -> None:
    (tmp_path / "x.png").touch()
    with qtbot.waitSignal(two.failed) as caught:
        two.attach([str(tmp_path / "x.png")])
        settle(library)
    assert caught.args is not None
    assert caught.args[0].message == "x.png is empty."
    assert names(two) == ["a.png", "b.png"]


def test_one_too_many_is_told(row: Attachments, library: PictureLibrary, tmp_path: Path, qtbot: QtBot) -> None:
    many = [picture(tmp_path, f"{number}.png", 20 + number) for number in range(MOST_PICTURES + 1)]
    with qtbot.waitSignal(row.failed) as caught:
        row.attach(many)
    settle(library)
    assert caught.args is not None
    assert "at most 8 pictures" in caught.args[0].message
    assert len(row.pictures) == MOST_PICTURES


def test_the_button_of_a_tile_removes_it(two: Attachments) -> None:
    find(two.tiles[0], QAbstractButton, "remove_picture").click()
    assert names(two) == ["b.png"]


def test_delete_removes_a_picture_and_moves_to_the_next(two: Attachments, qtbot: QtBot) -> None:
    two.tiles[0].setFocus()
    qtbot.keyClick(two.tiles[0], Qt.Key.Key_Delete)
    assert names(two) == ["b.png"]
    assert two.tiles[0].hasFocus()


def test_a_picture_removed_while_it_was_copied_does_not_come_back(
    row: Attachments, library: PictureLibrary, tmp_path: Path
) -> None:
    row.attach([picture(tmp_path)])
    row.tiles[0].removed.emit()
    settle(library)
    assert (row.pictures, row.tiles) == ((), [])


def test_tiles_that_do_not_fit_go_on_below(row: Attachments, library: PictureLibrary, tmp_path: Path) -> None:
    row.attach([picture(tmp_path, f"{number}.png", 20 + number) for number in range(6)])
    settle(library)
    assert row.height() == 2 * 64 + 8


def test_everything_has_a_name_and_is_reached_by_tab(two: Attachments) -> None:
    assert (unnamed(two), unreachable(two)) == ([], [])
