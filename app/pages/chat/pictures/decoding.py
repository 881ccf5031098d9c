"""Checks and decoding of picture files, for a background thread.

A file is checked as the model's process checks it, and decoded at the size at which it is shown. Depends on QtGui, but
not on widgets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QSize, Qt
from PySide6.QtGui import QImage, QImageIOHandler, QImageReader, QImageWriter

from app.pages.chat.conversations.picture_files import SUFFIXES
from core.errors import BadInput, BitwrightError, CorruptFile
from core.pictures.opening import MAX_EDGE, MAX_PIXELS, check_picture, thumbnail
from core.pictures.sources import name_of, read_picture

PREVIEW: Final = QSize(640, 320)
"""Size of previews in pixels: twice the largest size at which they are shown."""
PASTED: Final = "pasted picture.png"
"""Name of a picture from the clipboard."""

_FORMATS: Final = {name.upper(): name for name in SUFFIXES} | {"DIB": "bmp", "MPO": "jpeg"}
"""The format of `SUFFIXES` for each format of `core.pictures`."""
_OF_QT: Final = frozenset({b"png", b"jpeg", b"jpg", b"webp", b"gif", b"bmp", b"tiff", b"tif", b"ico", b"ppm", b"pgm"})
"""Formats that Qt decodes. Others that it knows, such as SVG and PDF, are not pictures for a model."""
_PNG_QUALITY: Final = 80
"""Weak compression: Qt's default takes seconds for a photo, for files that are a few percent smaller."""


QImageReader.setAllocationLimit(4 * MAX_PIXELS >> 20)  # MiB, with 4 bytes per pixel


@dataclass(frozen=True)
class Preview:
    """A picture at a small size.

    Attributes:
        image: the picture, a null image if there is a problem.
        size: size of the whole picture in pixels; nbytes: size of its file.
        problem: the reason why it cannot be shown, or "".
    """

    image: QImage = field(default_factory=QImage)
    size: QSize = field(default_factory=QSize)
    nbytes: int = 0
    problem: str = ""


def load_picture(path: str) -> tuple[bytes, str]:
    """Return the content and the format (one of SUFFIXES) of a picture file.

    Raises:
        BadInput, CorruptFile: it is not a complete picture in a supported format, or too large.
        MissingDependency: the library that opens pictures is not installed.
    """
    facts = check_picture(path)
    data = read_picture(path)
    format = _FORMATS[facts.format]
    if (format == "jpeg" and not _jpeg_ends(data)) or decode(path, PREVIEW).problem:
        raise CorruptFile(f"{name_of(path)} is damaged or incomplete.", "Use another copy of the picture.")
    return data, format


def png_of(image: QImage) -> bytes:
    """Return an image as the content of a PNG file.

    Raises:
        BadInput: it has no pixels, or too many.
    """
    if image.isNull() or image.width() * image.height() > MAX_PIXELS:
        raise BadInput("The clipboard contains no picture that can be attached.", "Save it to a file and attach that.")
    data = QByteArray()
    buffer = QBuffer(data)
    buffer.open(QIODevice.OpenModeFlag.WriteOnly)
    writer = QImageWriter(buffer, QByteArray(b"png"))
    writer.setQuality(_PNG_QUALITY)
    writer.write(image)
    return bytes(data.data())


def decode(path: str, limit: QSize | None = None) -> Preview:
    """Return a picture that fits into `limit`, or at its full size; pixels are not enlarged."""
    try:
        nbytes = Path(path).stat().st_size
    except FileNotFoundError:
        return Preview(problem="The file is missing.")
    except OSError as error:
        return Preview(problem=f"The file cannot be read: {error.strerror}.")
    reader = _reader(path)
    size = reader.size()
    if bytes(reader.format().data()) not in _OF_QT or size.width() * size.height() > MAX_PIXELS:
        return _decode_otherwise(path, limit, nbytes)
    image = _scaled(reader, limit)
    if image.isNull():
        return Preview(problem="The file is damaged.")
    return Preview(image, size.transposed() if _turned(reader) else size, nbytes)


def _decode_otherwise(path: str, limit: QSize | None, nbytes: int) -> Preview:
    """Decode a picture in a format that Qt does not have, such as AVIF."""
    try:
        facts = check_picture(path)
        edge = MAX_EDGE if limit is None else max(limit.width(), limit.height())
        image = QImage.fromData(thumbnail(path, edge))
    except BitwrightError:
        return Preview(problem="The file is not a picture that can be shown.")
    if limit is not None and (image.width() > limit.width() or image.height() > limit.height()):
        smooth = Qt.TransformationMode.SmoothTransformation
        image = image.scaled(limit, Qt.AspectRatioMode.KeepAspectRatio, smooth)
    return Preview(image, QSize(facts.width, facts.height), nbytes)


def _reader(path: str) -> QImageReader:
    """Return a reader that opens the file itself; handing over bytes would copy them while the GUI thread waits."""
    reader = QImageReader(path)
    reader.setDecideFormatFromContent(True)
    reader.setAutoTransform(True)
    return reader


def _scaled(reader: QImageReader, limit: QSize | None) -> QImage:
    size = reader.size()
    if limit is not None:
        room = limit.transposed() if _turned(reader) else limit  # the scaled size is that before the rotation
        if size.width() > room.width() or size.height() > room.height():
            fitted = size.scaled(room, Qt.AspectRatioMode.KeepAspectRatio).expandedTo(QSize(1, 1))
            reader.setScaledSize(fitted)
    return reader.read()


def _turned(reader: QImageReader) -> bool:
    """Return whether the orientation in the file swaps width and height."""
    return bool(reader.transformation() & QImageIOHandler.Transformation.TransformationRotate90)


def _jpeg_ends(data: bytes) -> bool:
    """Return whether the image data of a JPEG file has its end marker; Qt shows the missing part in grey."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != 0xDA:  # the segments before the image data
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return data.find(b"\xff\xd9", at) >= 0
