"""A picture at the size of the window, above everything else. Esc, its button or a click closes it."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QEvent, QObject, QRect, QSize, Qt, QTimer
from PySide6.QtGui import QColor, QKeyEvent, QMouseEvent, QPainter, QPaintEvent, QPixmap, QResizeEvent
from PySide6.QtWidgets import QToolButton, QWidget
from shiboken6 import isValid

from app.pages.chat.conversations.picture_files import display_name
from app.pages.chat.pictures.decoding import Preview
from app.pages.chat.pictures.library import PictureLibrary
from app.theme import Theme
from core.wording import human

_MARGIN: Final = 24
_BAR: Final = 32
_SETTLE_MS: Final = 60
_SHADE: Final = QColor(16, 17, 19, 250)
_WORDS: Final = QColor("#e8eaee")


class PictureViewer(QWidget):
    """An overlay over the whole window `parent`. It is deleted when it is closed."""

    def __init__(self, theme: Theme, library: PictureLibrary, path: str, parent: QWidget) -> None:
        super().__init__(parent)
        self._library, self._path, self._ground = library, path, parent
        self._preview: Preview | None = library.preview(path)
        self._pixmap = QPixmap()
        self._before: QWidget | None = None
        self.setObjectName("picture_viewer")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setAccessibleName(self.tr("Picture {name}").format(name=display_name(path)))
        self._close = QToolButton(self)
        self._close.setObjectName("close_picture")
        self._close.setText(self.tr("Close"))
        self._close.setToolTip(self.tr("Close (Esc)"))
        self._close.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self._close.clicked.connect(self.dismiss)
        # The picture is decoded again after a short pause, not for every step of a window resize.
        self._settle = QTimer(self, singleShot=True, interval=_SETTLE_MS)
        self._settle.timeout.connect(self._decode)
        parent.installEventFilter(self)

    @property
    def picture(self) -> QPixmap:
        """The picture as it is painted; a null pixmap until it is decoded."""
        return self._pixmap

    def present(self) -> None:
        """Show the picture with the focus."""
        self._before = self.window().focusWidget()
        self.setGeometry(self._ground.rect())
        self.show()
        self.raise_()
        self.setFocus(Qt.FocusReason.OtherFocusReason)
        self._settle.stop()
        self._decode()

    def dismiss(self) -> None:
        """Close and restore the focus."""
        if self.isHidden():
            return
        self.hide()
        if self._before is not None and isValid(self._before):
            self._before.setFocus(Qt.FocusReason.OtherFocusReason)
        self.deleteLater()

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Follow the size of the window."""
        if event.type() == QEvent.Type.Resize and watched is self._ground:
            self.setGeometry(self._ground.rect())
        return super().eventFilter(watched, event)

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay out, and decode the picture for the new size."""
        super().resizeEvent(event)
        hint = self._close.sizeHint()
        left = _MARGIN if self.isRightToLeft() else self.width() - _MARGIN - hint.width()
        self._close.setGeometry(left, (_BAR + _MARGIN - hint.height()) // 2, hint.width(), hint.height())
        self._settle.start()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Close with Esc; no key reaches the window below."""
        if event.key() in (Qt.Key.Key_Escape, Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Space):
            self.dismiss()
        event.accept()

    def mousePressEvent(self, event: QMouseEvent) -> None:
        """Close with a click."""
        event.accept()
        self.dismiss()

    def focusNextPrevChild(self, _next: bool) -> bool:
        """Keep the focus here: the widgets below are hidden."""
        (self if self._close.hasFocus() else self._close).setFocus(Qt.FocusReason.TabFocusReason)
        return True

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the picture in the middle, and its name and size above it."""
        painter = QPainter(self)
        painter.fillRect(self.rect(), _SHADE)
        painter.setRenderHint(QPainter.RenderHint.SmoothPixmapTransform)
        painter.setPen(_WORDS)
        bar = QRect(_MARGIN, 0, self.width() - 2 * _MARGIN - self._close.width() - 16, _BAR + _MARGIN)
        if self.isRightToLeft():
            bar.moveRight(self.width() - _MARGIN)
        words = self.fontMetrics().elidedText(self._title(), Qt.TextElideMode.ElideMiddle, bar.width())
        painter.drawText(bar, Qt.AlignmentFlag.AlignVCenter | Qt.AlignmentFlag.AlignLeading, words)
        if not self._pixmap.isNull():
            painter.drawPixmap(self._place(), self._pixmap)

    def _title(self) -> str:
        name, preview = display_name(self._path), self._preview
        if preview is None or preview.problem:
            return name
        size = f"{preview.size.width()} \N{MULTIPLICATION SIGN} {preview.size.height()}"
        return f"{name}   {size}   {human(preview.nbytes)}"

    def _room(self) -> QRect:
        return self.rect().adjusted(_MARGIN, _BAR + _MARGIN, -_MARGIN, -_MARGIN)

    def _place(self) -> QRect:
        """Return where the picture is painted, scaled if it was decoded for a larger window."""
        room, size = self._room(), self._pixmap.deviceIndependentSize().toSize()
        if size.width() > room.width() or size.height() > room.height():
            size = size.scaled(room.size(), Qt.AspectRatioMode.KeepAspectRatio)
        place = QRect(0, 0, size.width(), size.height())
        place.moveCenter(room.center())
        return place

    def _decode(self) -> None:
        limit: QSize = self._room().size() * self.devicePixelRatioF()
        if not limit.isEmpty():
            self._library.fit(self._path, limit, self._show)

    def _show(self, preview: Preview) -> None:
        if isValid(self) and not preview.problem:
            self._preview = preview
            self._pixmap = QPixmap.fromImage(preview.image)
            self._pixmap.setDevicePixelRatio(self.devicePixelRatioF())
            self.update()
