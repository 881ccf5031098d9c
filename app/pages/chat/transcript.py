"""The messages of a conversation, one below the other, in a column of readable width.

A message that grows moves only what is below it, and the view follows the end only while the user is at the end.
Knows bubbles and their places; nothing of models or of what is said.
"""

from __future__ import annotations

from PySide6.QtCore import Qt, QTimer
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QFrame, QScrollArea, QStyle, QWidget

from app.pages.chat.message_view import COLUMNS, MessageView
from app.theme import Theme

MARGIN = 16
"""Pixels on both sides of the column, and above and below it."""
_GAP = 8
_NEAR = 8
"""Pixels from the end that still count as being at the end."""


class Transcript(QScrollArea):
    """A column of messages that scrolls."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._theme = theme
        self._messages: list[MessageView] = []
        self._column = QWidget()
        self._column.setAutoFillBackground(False)
        self._width = 0
        self._follow = True
        self.setWidget(self._column)
        self.setFrameShape(QFrame.Shape.NoFrame)
        self.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self.viewport().setAutoFillBackground(False)
        self.setAccessibleName(self.tr("Conversation"))
        self.setObjectName("transcript")
        bar = self.verticalScrollBar()
        bar.valueChanged.connect(self._note_place)
        bar.rangeChanged.connect(self._keep_at_end)
        # A row of bubbles is laid out again once the user stops for a moment, not at every pixel of a drag.
        self._settle = QTimer(self, singleShot=True, interval=30)
        self._settle.timeout.connect(self._fit_width)
        theme.changed.connect(self.restyle)

    @property
    def messages(self) -> list[MessageView]:
        """The bubbles, the first one first."""
        return list(self._messages)

    def add(self, mine: bool, text: str = "") -> MessageView:
        """A new bubble at the end."""
        view = MessageView(self._theme, mine, self._column)
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
        self._follow = True
        self._place_from(None)

    def to_end(self) -> None:
        """Go to the last line and follow it from now on."""
        self._follow = True
        self._keep_at_end()

    def restyle(self) -> None:
        """Take the colours of the theme as it is now."""
        for view in self._messages:
            view.restyle()

    def resizeEvent(self, event: QResizeEvent) -> None:
        """A new width: at once where there is little to lay out, else in a moment."""
        super().resizeEvent(event)
        if len(self._messages) <= 4:
            self._fit_width()
        else:
            self._settle.start()

    def _fit_width(self) -> None:
        if self._messages and self._room() != self._width:
            self._place_from(self._messages[0])

    def _place_from(self, first: MessageView | None) -> None:
        """Give places to `first` and what follows it; with None only the length of the column is set again."""
        if first is not None and first not in self._messages:
            return
        width = self._room()
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
        self._column.resize(width, y - _GAP + MARGIN)

    def _room(self) -> int:
        """Width without the scroll bar, there or not: lines must not break anew because it comes."""
        return self.width() - self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)

    def _note_place(self, value: int) -> None:
        self._follow = value >= self.verticalScrollBar().maximum() - _NEAR

    def _keep_at_end(self) -> None:
        if self._follow:
            bar = self.verticalScrollBar()
            bar.setValue(bar.maximum())


def column_width(widget: QWidget) -> int:
    """Width of a conversation where there is room: questions on the right reach beyond answers on the left."""
    return round(widget.fontMetrics().averageCharWidth() * COLUMNS * 1.4)


def _discard(view: MessageView) -> None:
    view.hide()
    view.deleteLater()
