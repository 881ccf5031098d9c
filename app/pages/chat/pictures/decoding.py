"""Checks and decoding of picture files, for a background thread.

A picture is decoded at the size at which it is shown, and never one whose header announces more than MOST_PIXELS.
Depends on QtGui, but not on widgets.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from PySide6.QtCore import QBuffer, QByteArray, QIODevice, QSize, Qt
from PySide6.QtGui import QImage, QImageIOHandler, QImageReader, QImageWriter

from app.pages.chat.conversations.picture_files import MOST_BYTES, SUFFIXES
from core.errors import BadInput
from core.wording import human

MOST_PIXELS: Final = 64_000_000
"""Maximum number of pixels; Qt needs 4 bytes for each, and refuses more than 256 MB."""
PREVIEW: Final = QSize(640, 320)
"""Size of previews in pixels: twice the largest size at which they are shown."""
PASTED: Final = "pasted picture.png"
"""Name of a picture from the clipboard."""

_FORMATS: Final = {b"jpg": "jpeg", b"jfif": "jpeg", b"tif": "tiff"} | {name.encode(): name for name in SUFFIXES}
_SUPPORTED: Final = "Supported are PNG, JPEG, WebP, GIF, BMP and TIFF."
_AGAIN: Final = "Attach another copy of it."
_PNG_QUALITY: Final = 80
"""Weak compression: Qt's default takes seconds for a photo, for files that are a few percent smaller."""


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


def read_picture(path: Path) -> tuple[bytes, str]:
    """Return the content and the format (one of SUFFIXES) of a picture file.

    Raises:
        BadInput: it is not a complete picture in a supported format, or too large.
    """
    name = path.name
    try:
        if not path.is_file():
            raise BadInput(f"{name} is not a file.", _SUPPORTED)
        with path.open("rb") as stream:
            data = stream.read(MOST_BYTES + 1)
    except OSError as error:
        raise BadInput(f"{name} cannot be read: {error.strerror}.", "Check its permissions.") from error
    if not data:
        raise BadInput(f"{name} is empty.", _AGAIN)
    if len(data) > MOST_BYTES:
        words = f"{name} is larger than {human(MOST_BYTES)}, the limit for a picture."
        raise BadInput(words, "Save it with less detail.")
    reader = _reader(str(path))
    format = _format(reader)
    if not format:
        raise BadInput(f"{name} is not a picture in a supported format.", _SUPPORTED)
    size = reader.size()
    if size.width() * size.height() > MOST_PIXELS:
        million = size.width() * size.height() / 1e6
        raise BadInput(
            f"{name} has {million:,.0f} million pixels, the limit is {MOST_PIXELS // 1_000_000}.", "Make it smaller."
        )
    complete = size.isValid() and (format != "jpeg" or _jpeg_ends(data))
    if not complete or _scaled(reader, PREVIEW).isNull():
        raise BadInput(f"{name} is damaged or incomplete.", _AGAIN)
    return data, format


def png_of(image: QImage) -> bytes:
    """Return an image as the content of a PNG file.

    Raises:
        BadInput: it has no pixels, or too many.
    """
    if image.isNull() or image.width() * image.height() > MOST_PIXELS:
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
    if not _format(reader) or size.width() * size.height() > MOST_PIXELS:
        return Preview(problem="The file is not a picture that can be shown.")
    image = _scaled(reader, limit)
    if image.isNull():
        return Preview(problem="The file is damaged.")
    return Preview(image, size.transposed() if _turned(reader) else size, nbytes)


def _reader(path: str) -> QImageReader:
    """Return a reader that opens the file itself; handing over bytes would copy them while the GUI thread waits."""
    reader = QImageReader(path)
    reader.setDecideFormatFromContent(True)
    reader.setAutoTransform(True)
    return reader


def _format(reader: QImageReader) -> str:
    return _FORMATS.get(bytes(reader.format().data()), "")


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
