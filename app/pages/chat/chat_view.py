"""The middle of the chat page: conversation, notice, composer and context meter, and their layout."""

from __future__ import annotations

from PySide6.QtCore import QEvent
from PySide6.QtWidgets import QHBoxLayout, QLayout, QStyle, QVBoxLayout, QWidget

from app.pages.chat.composer import Composer
from app.pages.chat.context_meter import ContextMeter
from app.pages.chat.conversation_view import ConversationView
from app.pages.chat.following_scroll import MARGIN
from app.pages.chat.notice import ChatNotice
from app.pages.chat.pictures.library import PictureLibrary
from app.pages.chat.transcript import column_width
from app.pages.chat.welcome import ChatWelcome
from app.shared.context import Context
from app.widgets.note import Note
from app.widgets.view_stack import ViewStack


class ChatView(QWidget):
    """A container of widgets, which its owner accesses directly."""

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        theme = context.theme
        self.welcome = ChatWelcome(theme, parent=self)
        self.pictures = PictureLibrary(parent=self)
        self.conversation = ConversationView(theme, self.pictures, self)
        self.notice = ChatNotice(theme, self)
        self.composer = Composer(theme, self.pictures, self)
        self.meter = ContextMeter(theme, self)
        self._slow = Note(
            theme,
            self.tr("A run is active. Both the run and the answers are slower."),
            role="warning",
            parent=self,
        )
        self._slow.setObjectName("slow")
        self._slow.hide()
        self._left_out = Note(theme, parent=self)
        self._left_out.setObjectName("pictures_left_out")
        self._stack = ViewStack(self)
        self._stack.add_scrolling(self.welcome)
        self._stack.addWidget(self.conversation)
        foot = QVBoxLayout()
        foot.setContentsMargins(0, 0, 0, 8)
        foot.setSpacing(8)
        for widget in (self.notice, self._slow, self._left_out, self.composer, self.meter):
            foot.addWidget(widget)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self._stack, 1)
        self._foot = self._centred(foot)
        self._leave_room()
        column.addLayout(self._foot)

    def _centred(self, inner: QLayout) -> QHBoxLayout:
        """Return `inner` in a row with the width of the message column, excluding the scroll bar."""
        box = QWidget(self)
        box.setLayout(inner)
        box.setMaximumWidth(column_width(self))
        row = QHBoxLayout()
        row.addWidget(box)
        return row

    def changeEvent(self, event: QEvent) -> None:
        """Update the margin of the scroll bar when the layout direction changes."""
        super().changeEvent(event)
        if event.type() == QEvent.Type.LayoutDirectionChange:
            self._leave_room()

    def _leave_room(self) -> None:
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        left, right = (bar, 0) if self.isRightToLeft() else (0, bar)
        self._foot.setContentsMargins(MARGIN + left, 0, MARGIN + right, 0)

    def show_empty(self, empty: bool) -> None:
        """Show the welcome instead of an empty conversation."""
        self._stack.setCurrentIndex(0 if empty else 1)

    def show_left_out(self, words: str) -> None:
        """Show that pictures of earlier messages are not sent; "" to hide the note."""
        self._left_out.set_text(words, "warning")

    def show_slow(self, slow: bool) -> None:
        """Show or hide the note that a run is active."""
        self._slow.setVisible(slow)
