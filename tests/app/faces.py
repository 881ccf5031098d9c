"""Fonts of common desktops, from a package and from this machine, for tests that measure layouts."""

from __future__ import annotations

from importlib import metadata
from typing import NamedTuple

from PySide6.QtGui import QFont, QFontDatabase
from PySide6.QtWidgets import QApplication

STANDARD = "Noto Sans"
"""The family that the tests' own package brings, and most Linux desktops have."""


class Face(NamedTuple):
    """A font family at a size in points."""

    family: str
    points: int


FACES = (Face(STANDARD, 10), Face("DejaVu Sans", 10), Face("Cantarell", 11), Face(STANDARD, 16))
"""Fonts of GNOME, KDE and older desktops in their default sizes, and one in a large size."""


def bring_standard() -> None:
    """Make the family `STANDARD` known to Qt from the package of the test extra."""
    if STANDARD in QFontDatabase.families():
        return
    files = metadata.files("fontpkg-noto-sans") or ()
    for file in files:
        if file.suffix == ".ttf":
            QFontDatabase.addApplicationFont(str(file.locate()))


def wear(application: QApplication, face: Face) -> None:
    """Set `face` as the font of the application."""
    font = QFont(application.font())
    font.setFamilies([face.family])
    font.setPointSize(face.points)
    application.setFont(font)
