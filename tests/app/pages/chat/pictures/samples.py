"""Small picture files, good and bad ones, and waiting for what is done with them in the background."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

from PySide6.QtCore import QCoreApplication
from PySide6.QtGui import QColor, QImage

from app.pages.chat.pictures.library import PictureLibrary


def image(width: int = 40, height: int = 30, color: str = "orange") -> QImage:
    """An image in one color, with a corner in another one."""
    made = QImage(width, height, QImage.Format.Format_RGB32)
    made.fill(QColor(color))
    made.setPixelColor(0, 0, QColor("blue"))
    return made


def picture(folder: Path, name: str = "cat.png", width: int = 40, height: int = 30, color: str = "orange") -> str:
    """The path of a new picture file in the format of its suffix."""
    path = folder / name
    assert image(width, height, color).save(str(path))
    return str(path)


def bomb(folder: Path) -> str:
    """The path of a small PNG file that announces 3,600 million pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    path = folder / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    return str(path)


def settle(library: PictureLibrary) -> None:
    """Until everything that was started is done, and what it led to as well."""
    for _ in range(2):
        library.wait()
        QCoreApplication.processEvents()
