"""The messages of a conversation in a column of readable width.

A growing message moves only those below it, and the view follows the end only while the user is there.
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
    """A scrolling column of messages."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._messages: list[MessageView] = []
        self._width = 0
        self.setAccessibleName(self.tr("Conversation"))
        self.setObjectName("transcript")
        # The layout is repeated after a short pause, not for every step of a window resize.
        self._settle = QTimer(self, singleShot=True, interval=30)
        self._settle.timeout.connect(self._fit_width)
        theme.changed.connect(self.update_style)

    @property
    def messages(self) -> list[MessageView]:
        """The messages from first to last."""
        return list(self._messages)

    def add(self, mine: bool, text: str = "") -> MessageView:
        """Add a message at the end."""
        view = MessageView(self._theme, mine, self.ground)
        if text:
            view.set_text(text)
        self._messages.append(view)
        view.resized.connect(lambda: self._place_from(view))
        view.show()
        self._place_from(view)
        return view

    def remove_last(self) -> None:
        """Remove the last message."""
        if self._messages:
            _discard(self._messages.pop())
            self._place_from(None)

    def clear(self) -> None:
        """Remove all messages."""
        for view in self._messages:
            _discard(view)
        self._messages.clear()
        self.to_end()
        self._place_from(None)

    def update_style(self) -> None:
        """Apply the current colors of the theme."""
        for view in self._messages:
            view.update_style()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """Lay out for a new width: at once if that is fast, otherwise after a short pause."""
        super().resizeEvent(event)
        if len(self._messages) <= 4:
            self._fit_width()
        else:
            self._settle.start()

    def _fit_width(self) -> None:
        if self._messages and self.room != self._width:
            self._place_from(self._messages[0])

    def _place_from(self, first: MessageView | None) -> None:
        """Place `first` and the messages after it; with None, only update the height of the column."""
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
    """Return the maximum width of a conversation, with questions shifted to the right of answers."""
    return round(widget.fontMetrics().averageCharWidth() * COLUMNS * 1.4)


def _discard(view: MessageView) -> None:
    view.hide()
    view.deleteLater()
