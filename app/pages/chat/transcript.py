"""The messages of a conversation, one below the other, in a column of readable width.

A message that grows moves only what is below it, and the view follows the end only while the user is at the end.
Knows bubbles and their places; nothing of models or of what is said.
"""

from __future__ import annotations

from PySide6.QtCore import QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QWidget

from app.pages.chat.following_scroll import MARGIN, FollowingScroll
from app.pages.chat.message_view import COLUMNS, MessageView
from app.theme import Theme

_GAP = 8


class Transcript(FollowingScroll):
    """A column of messages that scrolls."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._messages: list[MessageView] = []
        self._width = 0
        self.setAccessibleName(self.tr("Conversation"))
        self.setObjectName("transcript")
        # A row of bubbles is laid out again once the user stops for a moment, not at every pixel of a drag.
        self._settle = QTimer(self, singleShot=True, interval=30)
        self._settle.timeout.connect(self._fit_width)
        theme.changed.connect(self.update_style)

    @property
    def messages(self) -> list[MessageView]:
        """The bubbles, the first one first."""
        return list(self._messages)

    def add(self, mine: bool, text: str = "") -> MessageView:
        """A new bubble at the end."""
        view = MessageView(self._theme, mine, self.ground)
        if text:
            view.set_text(text)
        self._messages.append(view)
        view.resized.connect(lambda: self._place_from(view))
        view.show()
        self._place_from(view)
        return view

    def remove_last(self) -> None:
        """Take the last bubble away."""
        if self._messages:
            _discard(self._messages.pop())
            self._place_from(None)

    def clear(self) -> None:
        """Take all bubbles away."""
        for view in self._messages:
            _discard(view)
        self._messages.clear()
        self.to_end()
        self._place_from(None)

    def update_style(self) -> None:
        """Take the colours of the theme as it is now."""
        for view in self._messages:
            view.update_style()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """A new width: at once where there is little to lay out, else in a moment."""
        super().resizeEvent(event)
        if len(self._messages) <= 4:
            self._fit_width()
        else:
            self._settle.start()

    def _fit_width(self) -> None:
        if self._messages and self.room != self._width:
            self._place_from(self._messages[0])

    def _place_from(self, first: MessageView | None) -> None:
        """Give places to `first` and what follows it; with None only the length of the column is set again."""
        if first is not None and first not in self._messages:
            return
        width = self.room
        start = len(self._messages) if first is None else self._messages.index(first)
        if width != self._width:
            start, self._width = 0, width
        row = min(width - 2 * MARGIN, column_width(self))
        left = (width - row) // 2
        y = MARGIN if start == 0 else self._messages[start - 1].geometry().bottom() + 1 + _GAP
        for view in self._messages[start:]:
            height = view.place(row)
            view.setGeometry(left, y, row, height)
            y += height + _GAP
        self.ground.resize(width, y - _GAP + MARGIN)


def column_width(widget: QWidget) -> int:
    """Width of a conversation where there is room: questions on the right reach beyond answers on the left."""
    return round(widget.fontMetrics().averageCharWidth() * COLUMNS * 1.4)


def _discard(view: MessageView) -> None:
    view.hide()
    view.deleteLater()
