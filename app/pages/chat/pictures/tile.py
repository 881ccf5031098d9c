"""A small picture: a button that shows it at window size, with a context menu."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QRect, QSize, Qt, Signal
from PySide6.QtGui import QContextMenuEvent, QKeyEvent, QPainter, QPainterPath, QPaintEvent, QPen, QPixmap
from PySide6.QtWidgets import QAbstractButton, QFileDialog, QMenu, QWidget

from app.pages.chat.conversations.picture_files import display_name
from app.pages.chat.pictures.decoding import Preview
from app.pages.chat.pictures.library import PictureLibrary
from app.pages.chat.pictures.viewer import PictureViewer
from app.theme import Theme
from core.wording import human

WIDEST: Final = 320
"""Maximum width of a tile in pixels."""
SMALLEST: Final = 48
_RADIUS: Final = 6


class PictureTile(QAbstractButton):
    """A picture with rounded corners; a frame with the name of a file that cannot be shown.

    Args:
        path: path of the picture; "" while it is being attached.
        height: maximum height in pixels.
        square: show the middle of the picture as a square, with a button to remove it.

    Signals:
        resized: its size changed.
        removed: the user wants to remove the picture; only for square tiles.
    """

    resized = Signal()
    removed = Signal()

    def __init__(
        self,
        theme: Theme,
        library: PictureLibrary,
        path: str,
        height: int,
        *,
        square: bool = False,
        parent: QWidget | None = None,
    ) -> None:
        super().__init__(parent)
        self._theme, self._library = theme, library
        self._height, self._square = height, square
        self._path = ""
        self._preview: Preview | None = None
        self._pixmap = QPixmap()
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.PointingHandCursor)
        self.setObjectName("picture")
        self._remove = self._make_remove() if square else None
        self.clicked.connect(self._open)
        library.ready.connect(self._on_ready)
        theme.changed.connect(self.update_style)
        self.set_path(path)

    @property
    def path(self) -> str:
        """The path of the picture, "" while it is being attached."""
        return self._path

    @property
    def problem(self) -> str:
        """The reason why the picture cannot be shown, or ""."""
        return self._preview.problem if self._preview is not None else ""

    def set_path(self, path: str) -> None:
        """Show a picture."""
        self._path = path
        self._preview = self._library.preview(path) if path else None
        self._describe()
        self.setFixedSize(self._wanted_size())
        self.update()

    def focus_widgets(self) -> list[QWidget]:
        """Return the widgets that take the focus, in reading order."""
        return [self] if self._remove is None else [self, self._remove]

    def update_style(self) -> None:
        """Apply the current colors of the theme."""
        self.update()

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the picture, or the name of one that cannot be shown, and a frame for the focus."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        frame = self.rect().toRectF().adjusted(0.5, 0.5, -0.5, -0.5)
        shape = QPainterPath()
        shape.addRoundedRect(frame, _RADIUS, _RADIUS)
        painter.fillPath(shape, self._theme.color("surface"))
        painter.save()
        painter.setClipPath(shape)
        if self._preview is not None and not self._preview.problem:
            pixmap = self._scaled()
            painter.drawPixmap(self._middle(pixmap), pixmap)
        else:
            self._paint_words(painter)
        painter.restore()
        if self.hasFocus():
            painter.setPen(QPen(self._theme.color("accent"), 2))
            frame.adjust(0.5, 0.5, -0.5, -0.5)
        else:
            painter.setPen(self._theme.color("accent" if self.underMouse() else "line"))
        painter.drawRoundedRect(frame, _RADIUS, _RADIUS)

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Open with Enter, remove with Delete."""
        if event.key() in (Qt.Key.Key_Return, Qt.Key.Key_Enter):
            self.click()
        elif self._square and event.key() in (Qt.Key.Key_Delete, Qt.Key.Key_Backspace):
            self.removed.emit()
        else:
            super().keyPressEvent(event)

    def contextMenuEvent(self, event: QContextMenuEvent) -> None:
        """Show what can be done with the picture."""
        self.menu().popup(event.globalPos())

    def menu(self) -> QMenu:
        """Return a new context menu."""
        menu = QMenu(self)
        menu.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        fine = self._preview is not None and not self.problem
        actions = [
            (self.tr("Open"), self._open),
            (self.tr("Copy picture"), lambda: self._library.copy(self._path)),
            (self.tr("Save as\N{HORIZONTAL ELLIPSIS}"), self._save_as),
        ]
        for text, act in actions:
            menu.addAction(text, act).setEnabled(fine)
        if self._square:
            menu.addSeparator()
            menu.addAction(self.tr("Remove"), self.removed.emit)
        return menu

    def _open(self) -> None:
        if self._preview is not None and not self.problem:
            PictureViewer(self._theme, self._library, self._path, self.window()).present()

    def _save_as(self) -> None:
        dialog = QFileDialog(self, self.tr("Save picture"))
        dialog.setAcceptMode(QFileDialog.AcceptMode.AcceptSave)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.selectFile(display_name(self._path))
        dialog.fileSelected.connect(lambda target: self._library.save(self._path, target))
        dialog.open()

    def _on_ready(self, path: str) -> None:
        if path == self._path and self._preview is None:
            before = self.size()
            self.set_path(path)
            if self.size() != before:
                self.resized.emit()

    def _describe(self) -> None:
        name = display_name(self._path) if self._path else self.tr("Picture that is being attached")
        preview = self._preview
        if preview is None:
            told, spoken = name, name
        elif preview.problem:
            told, spoken = f"{name}\n{preview.problem}", f"{name}. {preview.problem}"
        else:
            size = self.tr("{width} \N{MULTIPLICATION SIGN} {height} pixels").format(
                width=preview.size.width(), height=preview.size.height()
            )
            told, spoken = f"{name}\n{size}, {human(preview.nbytes)}", f"{name}, {size}"
        self.setToolTip(told)
        self.setAccessibleName(self.tr("Picture {name}").format(name=spoken) if self._path else spoken)
        if self._remove is not None:
            words = self.tr("Remove {name}").format(name=name)
            self._remove.setToolTip(self.tr("{action} (Delete)").format(action=words))
            self._remove.setAccessibleName(words)

    def _wanted_size(self) -> QSize:
        if self._square:
            return QSize(self._height, self._height)
        preview = self._preview
        if preview is None or preview.problem:
            return QSize(self._height * 4 // 3, min(self._height, 96))
        size, room = preview.size, QSize(WIDEST, self._height)
        if size.width() > room.width() or size.height() > room.height():
            size = size.scaled(room, Qt.AspectRatioMode.KeepAspectRatio)
        return size.expandedTo(QSize(SMALLEST, SMALLEST))

    def _scaled(self) -> QPixmap:
        """Return the picture in the pixels of the screen; a square shows its middle."""
        ratio = self.devicePixelRatioF()
        wanted = self.size() * ratio
        if self._preview is not None and (self._pixmap.isNull() or self._pixmap.devicePixelRatio() != ratio):
            whole = QPixmap.fromImage(self._preview.image)
            smaller = whole.width() < wanted.width() and whole.height() < wanted.height()
            if not smaller:
                mode = Qt.AspectRatioMode
                kept = mode.KeepAspectRatioByExpanding if self._square else mode.KeepAspectRatio
                whole = whole.scaled(wanted, kept, Qt.TransformationMode.SmoothTransformation)
            self._pixmap = whole
            self._pixmap.setDevicePixelRatio(ratio)
        return self._pixmap

    def _middle(self, pixmap: QPixmap) -> QRect:
        size = pixmap.deviceIndependentSize().toSize()
        place = QRect(0, 0, size.width(), size.height())
        place.moveCenter(self.rect().center())
        return place

    def _paint_words(self, painter: QPainter) -> None:
        room = self.rect().adjusted(8, 8, -8, -8)
        painter.setPen(self._theme.color("muted"))
        if self._preview is None:
            painter.drawText(room, Qt.AlignmentFlag.AlignCenter, "\N{HORIZONTAL ELLIPSIS}")
            return
        icon, line = self._theme.icon("warning", "warning"), self.fontMetrics().lineSpacing()
        if self._square:
            icon.paint(painter, room)
            return
        top = room.center().y() - (24 + 2 * line) // 2
        icon.paint(painter, QRect(room.center().x() - 10, top, 20, 20))
        for number, text in enumerate((display_name(self._path), self.problem)):
            words = self.fontMetrics().elidedText(text, Qt.TextElideMode.ElideMiddle, room.width())
            place = QRect(room.left(), top + 24 + number * line, room.width(), line)
            painter.drawText(place, Qt.AlignmentFlag.AlignCenter, words)

    def _make_remove(self) -> _RemoveButton:
        button = _RemoveButton(self._theme, self)
        button.setGeometry(self._height - 23, 3, 20, 20)
        button.clicked.connect(self.removed)
        return button


class _RemoveButton(QAbstractButton):
    """A cross on a disc, visible on every picture."""

    def __init__(self, theme: Theme, parent: QWidget) -> None:
        super().__init__(parent)
        self._theme = theme
        self.setObjectName("remove_picture")
        self.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.setCursor(Qt.CursorShape.ArrowCursor)

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the disc with a frame in the accent color under the pointer and with the focus."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        marked = self.hasFocus() or self.underMouse()
        painter.setPen(QPen(self._theme.color("accent" if marked else "line"), 2 if self.hasFocus() else 1))
        painter.setBrush(self._theme.color("surface"))
        painter.drawEllipse(self.rect().toRectF().adjusted(1, 1, -1, -1))
        self._theme.icon("close").paint(painter, self.rect().adjusted(4, 4, -4, -4))
