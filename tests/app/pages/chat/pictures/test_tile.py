"""Tiles: size, names, keys and the menu; the picture at window size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PySide6.QtCore import QSize, Qt
from PySide6.QtWidgets import QAbstractButton, QWidget
from pytestqt.qtbot import QtBot

from app.pages.chat.pictures.library import PictureLibrary
from app.pages.chat.pictures.tile import WIDEST, PictureTile
from app.pages.chat.pictures.viewer import PictureViewer
from app.theme import Theme
from tests.app.find import find
from tests.app.pages.chat.pictures.samples import picture, settle

MakeTile = Callable[..., PictureTile]


@pytest.fixture
def library(qtbot: QtBot) -> PictureLibrary:
    return PictureLibrary()


@pytest.fixture
def ground(qtbot: QtBot) -> QWidget:
    ground = QWidget()
    qtbot.addWidget(ground)
    ground.resize(400, 300)
    ground.show()
    return ground


@pytest.fixture
def tile_of(theme: Theme, library: PictureLibrary, ground: QWidget) -> MakeTile:
    """A function that shows a picture in a tile."""

    def made(path: str, *, square: bool = False) -> PictureTile:
        tile = PictureTile(theme, library, path, 64 if square else 160, square=square, parent=ground)
        settle(library)
        tile.show()
        return tile

    return made


@pytest.mark.parametrize(
    ("size", "shown"),
    [
        ((1600, 800), (320, 160)), ((400, 800), (80, 160)), ((2000, 100), (WIDEST, 48)), ((100, 60), (100, 60)),
        ((8, 8), (48, 48)),
    ],
)  # fmt: skip
def test_a_picture_fits_its_tile(
    tile_of: MakeTile, tmp_path: Path, size: tuple[int, int], shown: tuple[int, int]
) -> None:
    assert tile_of(picture(tmp_path, "a.png", *size)).size() == QSize(*shown)


def test_a_tile_shows_its_picture(tile_of: MakeTile, tmp_path: Path) -> None:
    tile = tile_of(picture(tmp_path, "a.png", 400, 400, "#ff0000"))
    assert tile.grab().toImage().pixelColor(80, 80).name() == "#ff0000"


def test_a_square_tile_shows_the_middle(tile_of: MakeTile, tmp_path: Path) -> None:
    tile = tile_of(picture(tmp_path, "a.png", 900, 100, "#ff0000"), square=True)
    assert tile.size() == QSize(64, 64)
    assert tile.grab().toImage().pixelColor(8, 56).name() == "#ff0000"


def test_a_tile_is_described(tile_of: MakeTile, tmp_path: Path) -> None:
    tile = tile_of(picture(tmp_path, "cat.png", 200, 100))
    assert tile.accessibleName() == "Picture cat.png, 200 \N{MULTIPLICATION SIGN} 100 pixels"
    assert tile.toolTip().startswith("cat.png\n200 \N{MULTIPLICATION SIGN} 100 pixels, ")


def test_a_missing_picture_is_named(tile_of: MakeTile, tmp_path: Path) -> None:
    tile = tile_of(str(tmp_path / "cat.png"))
    assert tile.toolTip() == "cat.png\nThe file is missing."
    assert not any(action.isEnabled() for action in tile.menu().actions())


def test_a_preview_that_comes_later_changes_the_size(
    theme: Theme, library: PictureLibrary, ground: QWidget, tmp_path: Path, qtbot: QtBot
) -> None:
    tile = PictureTile(theme, library, picture(tmp_path, "a.png", 500, 300), 160, parent=ground)
    with qtbot.waitSignal(tile.resized):
        settle(library)


@pytest.mark.parametrize("key", [Qt.Key.Key_Return, Qt.Key.Key_Space])
def test_a_key_opens_the_picture_and_esc_closes_it(
    tile_of: MakeTile, library: PictureLibrary, ground: QWidget, tmp_path: Path, qtbot: QtBot, key: Qt.Key
) -> None:
    tile = tile_of(picture(tmp_path, "a.png", 800, 200))
    tile.setFocus()
    qtbot.keyClick(tile, key)
    viewer = find(ground, PictureViewer)
    settle(library)
    assert (viewer.size(), viewer.picture.size()) == (ground.size(), QSize(352, 88))
    qtbot.keyClick(viewer, Qt.Key.Key_Escape)
    assert not viewer.isVisible()
    assert tile.hasFocus()


def test_an_open_picture_follows_the_window(tile_of: MakeTile, ground: QWidget, tmp_path: Path, qtbot: QtBot) -> None:
    tile_of(picture(tmp_path, "a.png", 800, 200)).click()
    viewer = find(ground, PictureViewer)
    ground.resize(600, 400)
    qtbot.waitUntil(lambda: viewer.picture.width() == 552)
    assert viewer.size() == ground.size()


def test_tab_stays_in_an_open_picture(tile_of: MakeTile, ground: QWidget, tmp_path: Path, qtbot: QtBot) -> None:
    tile_of(picture(tmp_path)).click()
    viewer = find(ground, PictureViewer)
    close = find(viewer, QAbstractButton, "close_picture")
    qtbot.keyClick(viewer, Qt.Key.Key_Tab)
    assert close.hasFocus()
    qtbot.keyClick(close, Qt.Key.Key_Tab)
    assert viewer.hasFocus()


def test_the_menu_offers_to_copy_and_to_save(tile_of: MakeTile, tmp_path: Path) -> None:
    words = [action.text() for action in tile_of(picture(tmp_path)).menu().actions()]
    assert words == ["Open", "Copy picture", "Save as\N{HORIZONTAL ELLIPSIS}"]
