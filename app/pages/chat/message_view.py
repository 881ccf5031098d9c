"""A message as a bubble: the user's on the right, the model's on the left, with parts of prose and code.

Pictures are above the text. Reasoning before an answer is a collapsed line at the top. The transcript sets the width
and asks for the height.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise

from PySide6.QtCore import QRect, QRectF, Qt, QTimer, Signal
from PySide6.QtGui import QFontDatabase, QFontInfo, QGuiApplication, QPainter, QPaintEvent, QPen
from PySide6.QtWidgets import QWidget

from app.pages.chat.message_footer import MessageFooter
from app.pages.chat.pictures.flow import flow
from app.pages.chat.pictures.library import PictureLibrary
from app.pages.chat.pictures.tile import PictureTile
from app.pages.chat.prose_view import ProseView
from app.pages.chat.thinking_view import ThinkingView
from app.theme import Theme
from app.widgets.code_view import CodeView
from app.widgets.markdown import MessagePart, TextStyle, clean, split
from app.widgets.tints import bubble_color, code_color

COLUMNS = 88
"""Maximum line length in average characters, about 70 characters of code."""
FLUSH_MS = 50
"""Minimum interval between updates of streamed text."""
ONE_HIGH = 160
SEVERAL_HIGH = 112
"""Maximum height of one picture, and of each of several."""
_PAD = 12
_GAP = 8
_RADIUS = 10


class MessageView(QWidget):
    """A bubble and the row below it.

    Signals:
        resized: its height changed.
    """

    resized = Signal()

    def __init__(self, theme: Theme, mine: bool, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme, self._mine = theme, mine
        self._text = ""
        self._parts: list[MessagePart] = []
        self._views: list[ProseView | CodeView] = []
        self._thinking: ThinkingView | None = None
        self._tiles: list[PictureTile] = []
        self._marked = False
        self._bubble = QRect()
        self._row = 0
        self._flush = QTimer(self, singleShot=True, interval=FLUSH_MS)
        self._flush.timeout.connect(self._show_parts)
        self.footer = MessageFooter(theme, mine, self)
        self.footer.copy_asked.connect(self._to_clipboard)
        self.setAccessibleName(self.tr("Your message") if mine else self.tr("Answer"))
        self.setObjectName("message_mine" if mine else "message_model")

    @property
    def text(self) -> str:
        """The complete text so far, including pieces that are not shown yet."""
        return self._text

    @property
    def mine(self) -> bool:
        """Return whether it is the user's message."""
        return self._mine

    @property
    def thinking(self) -> ThinkingView | None:
        """The collapsed reasoning, or None."""
        return self._thinking

    @property
    def pictures(self) -> list[PictureTile]:
        """The tiles of its pictures."""
        return list(self._tiles)

    def set_pictures(self, paths: Sequence[str], library: PictureLibrary) -> None:
        """Show pictures above the text."""
        high = ONE_HIGH if len(paths) == 1 else SEVERAL_HIGH
        for path in paths:
            tile = PictureTile(self._theme, library, path, high, parent=self)
            tile.resized.connect(self.resized)
            tile.show()
            self._tiles.append(tile)
        self._order_tabs()
        self.resized.emit()

    def set_marked(self, marked: bool) -> None:
        """Draw a border around the message that is being edited."""
        if marked != self._marked:
            self._marked = marked
            self.update()

    def set_thinking(self, text: str, seconds: float, going: bool) -> None:
        """Show the reasoning; `going` while it continues, for `seconds` so far."""
        if self._thinking is None:
            if not text.strip():
                return
            self._thinking = ThinkingView(self._theme, self)
            self._thinking.resized.connect(self.resized)
            self._thinking.show()
            self._order_tabs()
            self.resized.emit()
        self._thinking.set_duration(seconds, going)
        self._thinking.set_text(text, self._look())

    def set_text(self, text: str) -> None:
        """Show a complete message."""
        self._text = text
        self._flush.stop()
        self._show_parts()
        for view in self._views:
            if isinstance(view, CodeView):
                view.color()

    def append(self, piece: str) -> None:
        """Append a piece of streamed text; it is shown within FLUSH_MS."""
        self._text += piece
        if not self._flush.isActive():
            self._flush.start()

    def finish(self) -> None:
        """Show the rest of a streamed message."""
        self.set_text(self._text)

    def update_style(self) -> None:
        """Apply the current colors of the theme."""
        for part, view in zip(self._parts, self._views, strict=True):
            if isinstance(view, CodeView):
                view.update_style()
            elif not self._mine:
                view.show_markdown(part.text, self._look())
        if self._thinking is not None:
            self._thinking.set_text(self._thinking.text, self._look())
            self._thinking.update_style()
        self.footer.update_style()
        self.update()

    def place(self, width: int) -> int:
        """Lay out in a row of `width` pixels and return the height."""
        inner = max(80, min(self.fontMetrics().averageCharWidth() * COLUMNS, width - 2 * _PAD))
        heights = [view.height_at(inner) for view in self._views]
        sizes = [tile.size() for tile in self._tiles]
        if self._mine and (self._views or sizes):
            # A short question gets a small bubble. An answer has a fixed width, so that it is stable while it grows.
            inner = min(inner, max([flow(sizes, inner)[1].width(), *(view.natural_width() for view in self._views)]))
            heights = [view.height_at(inner) for view in self._views]
        right = self._mine != (self.layoutDirection() == Qt.LayoutDirection.RightToLeft)
        left = width - inner - 2 * _PAD if right else 0
        y = _PAD
        if self._thinking is not None:
            folded = self._thinking.height_at(inner)
            self._thinking.setGeometry(left + _PAD, y, inner, folded)
            y += folded + _GAP
        if sizes:
            places, size = flow(sizes, inner, mirrored=self.isRightToLeft())
            for tile, place in zip(self._tiles, places, strict=True):
                tile.move(left + _PAD + place.x(), y + place.y())
            y += size.height() + _GAP
        for view, height in zip(self._views, heights, strict=True):
            view.setGeometry(left + _PAD, y, inner, height)
            y += height + _GAP
        if self._empty:
            y += self.fontMetrics().height() + _GAP
        self._bubble = QRect(left, 0, inner + 2 * _PAD, y - _GAP + _PAD)
        self._row = width
        self.place_footer()
        self.update()
        return self.footer.geometry().bottom() + 1

    def place_footer(self) -> None:
        """Lay out the row below the bubble after its buttons changed."""
        hint = self.footer.sizeHint()
        # the buttons may be wider than the bubble of a short question; the caption of an answer is elided
        width = min(self._row, max(self._bubble.width(), hint.width())) if self._mine else self._bubble.width()
        right = self._mine != (self.layoutDirection() == Qt.LayoutDirection.RightToLeft)
        left = self._bubble.right() + 1 - width if right else self._bubble.left()
        self.footer.setGeometry(left, self._bubble.height() + 2, width, hint.height())

    def paintEvent(self, _event: QPaintEvent) -> None:
        """Paint the bubble, with three dots until the first word."""
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if self._marked:
            painter.setPen(QPen(self._theme.color("accent"), 2))
        else:
            painter.setPen(Qt.PenStyle.NoPen if self._mine else self._theme.color("line"))
        painter.setBrush(bubble_color(self._theme, self.palette(), self._mine))
        painter.drawRoundedRect(QRectF(self._bubble).adjusted(0.5, 0.5, -0.5, -0.5), _RADIUS, _RADIUS)
        if self._empty:
            painter.setPen(self._theme.color("muted"))
            painter.drawText(
                self._bubble.adjusted(_PAD, 0, -_PAD, 0), Qt.AlignmentFlag.AlignVCenter, "\N{HORIZONTAL ELLIPSIS}"
            )

    @property
    def _empty(self) -> bool:
        return not self._views and not self._tiles and self._thinking is None

    def _show_parts(self) -> None:
        began = time.monotonic()
        parts = split(clean(self._text))
        for index, part in enumerate(parts):
            if index >= len(self._parts) or part != self._parts[index]:
                self._show_part(index, part)
        while len(self._views) > len(parts):
            _discard(self._views.pop())
        for view in self._views[len(self._parts) - 1 : -1]:
            if isinstance(view, CodeView):
                view.color()  # complete, as another part follows
        if len(parts) != len(self._parts):
            self._order_tabs()
        self._parts = parts
        self.resized.emit()
        # A slow layout is repeated less often, so that the window stays responsive.
        self._flush.setInterval(max(FLUSH_MS, round(4000 * (time.monotonic() - began))))

    def _show_part(self, index: int, part: MessagePart) -> None:
        wanted = CodeView if part.code else ProseView
        view = self._views[index] if index < len(self._views) else None
        if view is not None and not isinstance(view, wanted):
            _discard(view)
            view = None
        if view is None:
            view = CodeView(self._theme, self) if part.code else ProseView(self)
            self._views[index : index + 1] = [view]
            view.show()
        if isinstance(view, CodeView):
            view.show_code(part.text, part.language)
        else:
            view.setAccessibleName(self.accessibleName())
            if self._mine:
                view.show_plain(part.text.strip("\n"))
            else:
                view.show_markdown(part.text, self._look())

    def _order_tabs(self) -> None:
        chain: list[QWidget] = self._thinking.focus_widgets() if self._thinking is not None else []
        chain += self._tiles
        for view in self._views:
            chain += view.focus_widgets() if isinstance(view, CodeView) else [view]
        chain += self.footer.focus_widgets()
        for first, second in pairwise(chain):
            QWidget.setTabOrder(first, second)

    def _look(self) -> TextStyle:
        theme = self._theme
        mono = QFontInfo(QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)).family()
        return TextStyle(
            link=theme.color("accent"),
            code=code_color(theme, self.palette()),
            line=theme.color("line"),
            mono=mono,
        )

    def _to_clipboard(self) -> None:
        QGuiApplication.clipboard().setText(clean(self._text))


def _discard(view: QWidget) -> None:
    view.hide()
    view.deleteLater()
