"""Checks of picture files, and decoding at a limited size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, features
from PySide6.QtCore import QSize
from PySide6.QtGui import QImage

from app.pages.chat.pictures.decoding import decode, load_picture, png_of
from core.errors import BadInput, CorruptFile
from core.pictures.sources import MAX_BYTES
from tests.app.pages.chat.pictures.samples import bomb, image, picture

TURNED = bytes.fromhex("ffe10022457869660000 49492a0008000000 0100 120103000100000006000000 00000000".replace(" ", ""))
"""An Exif segment which says that the picture is to be turned by 90 degrees."""


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.png", "png"), ("a.jpg", "jpeg"), ("a.webp", "webp"), ("a.bmp", "bmp"), ("a.tiff", "tiff"), ("a.ppm", "ppm")],
)
def test_the_format_is_told_by_the_content(tmp_path: Path, name: str, format: str) -> None:
    path = Path(picture(tmp_path, name))
    renamed = path.rename(tmp_path / "other.gif")
    assert load_picture(str(renamed))[1] == format


def text_as_png(folder: Path) -> str:
    path = folder / "text.png"
    path.write_text("hello")
    return str(path)


def empty(folder: Path) -> str:
    path = folder / "empty.png"
    path.touch()
    return str(path)


def half(name: str) -> Callable[[Path], str]:
    def made(folder: Path) -> str:
        path = Path(picture(folder, name, 400, 300))
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        return str(path)

    return made


def drawing(folder: Path) -> str:
    path = folder / "drawing.svg"
    path.write_text('<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>')
    return str(path)


def huge(folder: Path) -> str:
    path = folder / "huge.png"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    return str(path)


def missing(folder: Path) -> str:
    return str(folder / "missing.png")


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (text_as_png, "text.png is not a picture that can be opened"),
        (empty, "empty.png is empty"),
        (half("half.png"), "half.png is damaged or incomplete"),
        (half("half.jpg"), "half.jpg is damaged or incomplete"),
        (half("half.webp"), "half.webp is damaged"),
        (drawing, "drawing.svg is not a picture that can be opened: it is an SVG drawing"),
        (bomb, "bomb.png has too many pixels"),
        (huge, "huge.png has more than 64 MB"),
        (str, "is a folder"),
        (missing, "There is no picture .*missing.png"),
    ],
)
def test_a_file_that_is_no_picture_is_refused(tmp_path: Path, made: Callable[[Path], str], words: str) -> None:
    with pytest.raises((BadInput, CorruptFile), match=words):
        load_picture(made(tmp_path))


def avif(folder: Path, data_bytes: int | None = None) -> str:
    """The path of a picture in a format that Qt does not have."""
    path = folder / "a.avif"
    Image.new("RGB", (400, 100), "orange").save(path)
    if data_bytes is not None:
        path.write_bytes(path.read_bytes()[:data_bytes])
    return str(path)


@pytest.mark.skipif(not features.check("avif"), reason="this build of Pillow has no AVIF")
def test_a_format_that_qt_does_not_have_is_shown(tmp_path: Path) -> None:
    path = avif(tmp_path)
    found = decode(path, QSize(200, 80))
    assert (found.image.size(), found.size) == (QSize(200, 50), QSize(400, 100))
    assert load_picture(path)[1] == "avif"


@pytest.mark.skipif(not features.check("avif"), reason="this build of Pillow has no AVIF")
def test_a_damaged_one_of_such_a_format_is_refused(tmp_path: Path) -> None:
    with pytest.raises((BadInput, CorruptFile)):
        load_picture(avif(tmp_path, 250))


def test_what_follows_a_picture_in_its_file_does_not_matter(tmp_path: Path) -> None:
    path = Path(picture(tmp_path, "a.jpg"))
    path.write_bytes(path.read_bytes() + bytes(100))
    assert load_picture(str(path))[1] == "jpeg"


def test_a_large_picture_is_decoded_small(tmp_path: Path) -> None:
    found = decode(picture(tmp_path, width=400, height=100), QSize(200, 80))
    assert (found.image.size(), found.size) == (QSize(200, 50), QSize(400, 100))


def test_a_small_picture_is_not_enlarged(tmp_path: Path) -> None:
    assert decode(picture(tmp_path), QSize(200, 200)).image.size() == QSize(40, 30)


def test_a_picture_is_turned_as_its_camera_says(tmp_path: Path) -> None:
    path = Path(picture(tmp_path, "a.jpg", 400, 100))
    data = path.read_bytes()
    path.write_bytes(data[:2] + TURNED + data[2:])
    found = decode(str(path), QSize(200, 200))
    assert (found.image.size(), found.size) == (QSize(50, 200), QSize(100, 400))


@pytest.mark.parametrize("made", [text_as_png, bomb, half("half.png"), missing])
def test_what_cannot_be_shown_has_a_reason(tmp_path: Path, made: Callable[[Path], str]) -> None:
    found = decode(made(tmp_path))
    assert (found.image.isNull(), found.problem.endswith(".")) == (True, True)


def test_an_image_becomes_a_file() -> None:
    assert QImage.fromData(png_of(image())).size() == QSize(40, 30)


def test_an_empty_clipboard_image_is_refused() -> None:
    with pytest.raises(BadInput, match="no picture"):
        png_of(QImage())
