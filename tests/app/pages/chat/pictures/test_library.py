"""The pictures of a chat: copies, previews, the clipboard and saving."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtCore import QSize
from PySide6.QtGui import QGuiApplication, QImage
from pytestqt.qtbot import QtBot

from app.pages.chat.conversations.picture_files import PictureFiles, display_name
from app.pages.chat.pictures.library import PictureLibrary
from core.errors import BitwrightError
from tests.app.pages.chat.pictures.samples import image, picture, settle


@pytest.fixture
def library(qtbot: QtBot, tmp_path: Path) -> PictureLibrary:
    return PictureLibrary(PictureFiles(tmp_path / "copies"))


def attached(library: PictureLibrary, source: Any) -> tuple[list[str], list[BitwrightError]]:
    """The paths of the copies, and the reasons why there are none."""
    paths: list[str] = []
    errors: list[BitwrightError] = []
    library.attach(source, paths.append, errors.append)
    settle(library)
    return paths, errors


def test_an_attached_file_is_copied(library: PictureLibrary, tmp_path: Path) -> None:
    original = picture(tmp_path)
    (path,), errors = attached(library, original)
    assert (Path(path).parent, display_name(path), errors) == (tmp_path / "copies", "cat.png", [])
    assert Path(path).read_bytes() == Path(original).read_bytes()


def test_an_attached_image_becomes_a_file(library: PictureLibrary) -> None:
    (path,), _errors = attached(library, image())
    assert QImage(path).size() == QSize(40, 30)


def test_a_bad_file_is_not_copied(library: PictureLibrary, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("text")
    paths, (error,) = attached(library, str(tmp_path / "x.png"))
    assert (paths, "not a picture" in error.message) == ([], True)
    assert not (tmp_path / "copies").exists()


def test_an_attached_picture_has_its_preview_at_once(library: PictureLibrary, tmp_path: Path) -> None:
    (path,), _errors = attached(library, picture(tmp_path))
    preview = library.preview(path)
    assert preview is not None
    assert preview.image.size() == QSize(40, 30)


def test_another_preview_comes_later(library: PictureLibrary, tmp_path: Path, qtbot: QtBot) -> None:
    path = picture(tmp_path)
    with qtbot.waitSignal(library.ready) as caught:
        assert library.preview(path) is None
    assert caught.args == [path]
    assert library.preview(path) is not None


def test_a_picture_is_copied_to_the_clipboard_as_image_and_file(library: PictureLibrary, tmp_path: Path) -> None:
    path = picture(tmp_path)
    library.copy(path)
    settle(library)
    mime = QGuiApplication.clipboard().mimeData()
    assert mime is not None
    assert mime.imageData().size() == QSize(40, 30)
    assert [url.toLocalFile() for url in mime.urls()] == [path]


def test_a_picture_is_saved_as_it_is(library: PictureLibrary, tmp_path: Path) -> None:
    path = picture(tmp_path)
    library.save(path, str(tmp_path / "saved.png"))
    settle(library)
    assert (tmp_path / "saved.png").read_bytes() == Path(path).read_bytes()


def test_a_place_that_cannot_be_written_is_told(library: PictureLibrary, tmp_path: Path, qtbot: QtBot) -> None:
    with qtbot.waitSignal(library.failed) as caught:
        library.save(picture(tmp_path), str(tmp_path / "missing" / "saved.png"))
    assert caught.args is not None
    assert "cannot be written" in caught.args[0].message
