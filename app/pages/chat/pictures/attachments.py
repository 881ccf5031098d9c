"""The pictures of a message that is being written: a row of tiles above the text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from PySide6.QtCore import QEvent, Qt, Signal
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QWidget

from app.pages.chat.conversations.picture_files import display_name
from app.pages.chat.pictures.flow import flow
from app.pages.chat.pictures.library import PictureLibrary, PictureSource
from app.pages.chat.pictures.tile import PictureTile
from app.theme import Theme
from app.widgets.announcement import announce
from core.errors import BadInput, BitwrightError

MOST_PICTURES: Final = 8
"""Maximum number of pictures of a message."""
TILE: Final = 64


class Attachments(QWidget):
    """Tiles of the attached pictures, hidden if there are none.

    Signals:
        changed: pictures were attached or removed, or began to be.
        edited: the user attached or removed pictures.
        failed(object): a picture was not attached; the `BitwrightError` with the reason.
        emptied: the user removed the last picture.
    """

    changed = Signal()
    edited = Signal()
    failed = Signal(object)
    emptied = Signal()

    def __init__(self, theme: Theme, library: PictureLibrary, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme, self._library = theme, library
        self._tiles: list[PictureTile] = []
        self.setObjectName("attachments")
        self.setAccessibleName(self.tr("Attached pictures"))
        self.hide()

    @property
    def pictures(self) -> tuple[str, ...]:
        """The paths of the pictures that are attached completely."""
        return tuple(tile.path for tile in self._tiles if tile.path)

    @property
    def pending(self) -> bool:
        """Return whether a picture is still being checked and copied."""
        return any(not tile.path for tile in self._tiles)

    @property
    def tiles(self) -> list[PictureTile]:
        """The tiles from first to last."""
        return list(self._tiles)

    def set_pictures(self, paths: Sequence[str]) -> None:
        """Replace all pictures by copies that were made earlier."""
        for tile in self._tiles:
            _discard(tile)
        self._tiles = []
        for path in paths:
            self._add(path)
        self._lay_out()
        self.changed.emit()

    def attach(self, sources: Sequence[PictureSource]) -> None:
        """Attach pictures. One that cannot be attached, or is one too many, is reported."""
        self.edited.emit()
        room = MOST_PICTURES - len(self._tiles)
        for source in sources[:room]:
            tile = self._add("")
            self._library.attach(source, partial(self._attached, tile), partial(self._refused, tile))
        self._lay_out()
        self.changed.emit()
        if len(sources) > room:
            words = self.tr("A message can have at most {count} pictures.").format(count=MOST_PICTURES)
            self.failed.emit(BadInput(words, self.tr("Send the others with another message.")))

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay out for the new width."""
        super().resizeEvent(event)
        self._lay_out()

    def changeEvent(self, event: QEvent) -> None:
        """Lay out again when the layout direction changes."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.LayoutDirectionChange:
            self._lay_out()

    def _add(self, path: str) -> PictureTile:
        tile = PictureTile(self._theme, self._library, path, TILE, square=True, parent=self)
        tile.removed.connect(lambda: self._remove(tile))
        self._tiles.append(tile)
        tile.show()
        return tile

    def _attached(self, tile: PictureTile, path: str) -> None:
        if tile not in self._tiles:  # removed meanwhile
            return
        if path in self.pictures:
            self._drop(tile)
        else:
            tile.set_path(path)
            announce(self, self.tr("{name} is attached").format(name=display_name(path)))
        self.changed.emit()

    def _refused(self, tile: PictureTile, error: BitwrightError) -> None:
        if tile in self._tiles:
            self._drop(tile)
            self.changed.emit()
            self.failed.emit(error)

    def _remove(self, tile: PictureTile) -> None:
        """Remove a picture for the user; the focus goes to the next one."""
        place = self._tiles.index(tile)
        self._drop(tile)
        self.edited.emit()
        if self._tiles:
            self._tiles[min(place, len(self._tiles) - 1)].setFocus(Qt.FocusReason.OtherFocusReason)
        else:
            self.emptied.emit()
        self.changed.emit()

    def _drop(self, tile: PictureTile) -> None:
        self._tiles.remove(tile)
        _discard(tile)
        self._lay_out()

    def _lay_out(self) -> None:
        places, size = flow(
            [tile.size() for tile in self._tiles], max(TILE, self.width()), mirrored=self.isRightToLeft()
        )
        for tile, place in zip(self._tiles, places, strict=True):
            tile.move(place.topLeft())
        self.setFixedHeight(size.height())
        self.setVisible(bool(self._tiles))


def _discard(tile: PictureTile) -> None:
    tile.hide()
    tile.deleteLater()
