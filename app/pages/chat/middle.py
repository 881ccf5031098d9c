"""The middle of the chat page: whom one talks to, the conversation, a notice and the composer, and their layout."""

from __future__ import annotations

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QHBoxLayout, QLayout, QPushButton, QStackedWidget, QStyle, QVBoxLayout, QWidget

from app.context import Context
from app.pages.chat.composer import Composer
from app.pages.chat.conversation_view import ConversationView
from app.pages.chat.notice import ChatNotice
from app.pages.chat.transcript import MARGIN, column_width
from app.pages.chat.welcome import ChatWelcome
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note


class ChatMiddle(QWidget):
    """Puts widgets together; the page works with them directly.

    Signals:
        save_asked: the conversation should be saved.
        clear_asked: a new conversation should begin.
    """

    save_asked = Signal()
    clear_asked = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        theme = context.theme
        self._title = ElidedLabel(parent=self)
        font = self._title.font()
        font.setWeight(font.Weight.DemiBold)
        self._title.setFont(font)
        self._save = QPushButton(self.tr("Save as Markdown\N{HORIZONTAL ELLIPSIS}"), self)
        self._save.setObjectName("save")
        self._save.clicked.connect(self.save_asked)
        self._clear = QPushButton(self.tr("Clear"), self)
        self._clear.setObjectName("clear")
        self._clear.setToolTip(self.tr("Begin a new conversation"))
        self._clear.clicked.connect(self.clear_asked)
        self.welcome = ChatWelcome(theme, self)
        self.conversation = ConversationView(theme, self)
        self.notice = ChatNotice(theme, self)
        self.composer = Composer(theme, self)
        self._slow = Note(
            theme,
            self.tr("A quantization is running: both it and the answers will be slow."),
            role="warning",
            parent=self,
        )
        self._slow.setObjectName("slow")
        self._slow.hide()
        self._stack = QStackedWidget(self)
        self._stack.addWidget(self.welcome)
        self._stack.addWidget(self.conversation)
        head, foot = QHBoxLayout(), QVBoxLayout()
        head.setContentsMargins(0, 8, 0, 0)
        head.setSpacing(8)
        head.addWidget(self._title, 1)
        head.addWidget(self._save)
        head.addWidget(self._clear)
        foot.setContentsMargins(0, 0, 0, 16)
        foot.setSpacing(8)
        for widget in (self.notice, self._slow, self.composer):
            foot.addWidget(widget)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addLayout(self._centred(head))
        column.addWidget(self._stack, 1)
        column.addLayout(self._centred(foot))

    def _centred(self, inner: QLayout) -> QHBoxLayout:
        """`inner` above or below the bubbles, exactly as wide as their column; they have a scroll bar beside them."""
        box = QWidget(self)
        box.setLayout(inner)
        box.setMaximumWidth(column_width(self))
        bar = self.style().pixelMetric(QStyle.PixelMetric.PM_ScrollBarExtent)
        row = QHBoxLayout()
        row.setContentsMargins(MARGIN, 0, MARGIN + bar, 0)
        row.addWidget(box)
        return row

    def set_title(self, title: str, detail: str) -> None:
        """Whom one talks to; `detail` is in the tooltip."""
        self._title.say(title, detail)

    def show_empty(self, empty: bool, busy: bool) -> None:
        """The welcome while nothing was said; saving and clearing where there is something to save or clear."""
        self._stack.setCurrentWidget(self.welcome if empty else self.conversation)
        for button in (self._save, self._clear):
            button.setEnabled(not empty and not busy)
            button.setVisible(not empty)

    def show_slow(self, slow: bool) -> None:
        """Say that a run of this machine takes its share."""
        self._slow.setVisible(slow)
