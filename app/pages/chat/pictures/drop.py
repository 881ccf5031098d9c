"""Pictures that are dropped anywhere on a chat."""

from __future__ import annotations

from PySide6.QtCore import QEvent, QObject
from PySide6.QtGui import QDropEvent
from PySide6.QtWidgets import QWidget

from app.pages.chat.composer import Composer
from app.pages.chat.pictures.sources import has_pictures, sources_in


class PictureDrop(QObject):
    """A filter that attaches pictures dropped on `target` to `composer`; other data are left to the window."""

    def __init__(self, target: QWidget, composer: Composer) -> None:
        super().__init__(target)
        self._composer = composer
        target.setAcceptDrops(True)
        target.installEventFilter(self)

    def eventFilter(self, _watched: QObject, event: QEvent) -> bool:
        """Accept drags with pictures, and attach what is dropped."""
        if event.type() == QEvent.Type.DragLeave:
            self._composer.set_dropping(False)
        if not isinstance(event, QDropEvent):
            return False
        if event.type() == QEvent.Type.Drop:
            self._composer.set_dropping(False)
            event.acceptProposedAction()
            self._composer.attach(sources_in(event.mimeData()))
        elif has_pictures(event.mimeData()):
            self._composer.set_dropping(True)
            event.acceptProposedAction()
        else:
            event.ignore()
        return True
