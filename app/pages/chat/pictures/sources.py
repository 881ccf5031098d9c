"""Pictures in dropped or copied data: files, or an image without a file."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from PySide6.QtCore import QMimeData
from PySide6.QtGui import QImage

from app.pages.chat.pictures.library import PictureSource

FILE_PATTERNS: Final = "*.png *.jpg *.jpeg *.jfif *.webp *.gif *.bmp *.tif *.tiff *.avif *.ppm *.ico"
"""Patterns of the supported files, for a file dialog."""
_NAMES: Final = {pattern[1:] for pattern in FILE_PATTERNS.split()} | {".heic", ".heif", ".jxl", ".svg"}
"""Suffixes that mean a picture, including those of formats that are refused with a reason."""


def has_pictures(mime: QMimeData) -> bool:
    """Return whether the data contain a picture; an image that comes with text is not meant."""
    if mime.hasUrls() and any(Path(path).suffix.lower() in _NAMES for path in _local_files(mime)):
        return True
    return mime.hasImage() and (mime.hasUrls() or not mime.hasText())


def sources_in(mime: QMimeData) -> list[PictureSource]:
    """Return the files, or else the image; all files, so that one that is no picture is refused with a reason."""
    files = _local_files(mime)
    if any(Path(path).suffix.lower() in _NAMES for path in files):
        return [*files]
    image = mime.imageData()
    return [image] if isinstance(image, QImage) else []


def _local_files(mime: QMimeData) -> list[str]:
    return [url.toLocalFile() for url in mime.urls() if url.isLocalFile()]
