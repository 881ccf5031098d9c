"""Pictures in dropped and copied data."""

from __future__ import annotations

import pytest
from PySide6.QtCore import QMimeData, QUrl
from PySide6.QtGui import QImage

from app.pages.chat.pictures.sources import has_pictures, sources_in
from tests.app.pages.chat.pictures.samples import image


def files(*names: str) -> QMimeData:
    mime = QMimeData()
    mime.setUrls([QUrl.fromLocalFile(f"/home/me/{name}") for name in names])
    return mime


def test_files_are_taken_by_their_names() -> None:
    assert sources_in(files("a.PNG", "b.jpeg")) == ["/home/me/a.PNG", "/home/me/b.jpeg"]


def test_a_file_that_is_no_picture_comes_along_to_be_refused() -> None:
    assert sources_in(files("a.png", "notes.txt")) == ["/home/me/a.png", "/home/me/notes.txt"]


@pytest.mark.parametrize("name", ["model.gguf", "recipe.json", "folder"])
def test_other_files_are_left_to_the_window(name: str) -> None:
    assert not has_pictures(files(name))


def test_an_image_without_a_file_is_taken() -> None:
    mime = QMimeData()
    mime.setImageData(image())
    (found,) = sources_in(mime)
    assert isinstance(found, QImage)
    assert has_pictures(mime)


def test_of_text_with_its_image_the_text_is_meant() -> None:
    mime = QMimeData()
    mime.setImageData(image())
    mime.setText("a table")
    assert not has_pictures(mime)


def test_an_image_dragged_from_a_web_page_is_taken() -> None:
    mime = QMimeData()
    mime.setImageData(image())
    mime.setUrls([QUrl("https://example.org/cat.png")])
    assert has_pictures(mime)
    assert len(sources_in(mime)) == 1


def test_a_link_alone_is_left_to_the_window() -> None:
    mime = QMimeData()
    mime.setUrls([QUrl("https://example.org/cat.png")])
    assert not has_pictures(mime)
