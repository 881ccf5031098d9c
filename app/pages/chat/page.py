"""The chat page: a conversation with one model, a comparison of two models, and the saved conversations.

Saves the current conversation. The chat itself is in `app.pages.chat.single_model` and `app.pages.chat.comparison`.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QAction, QHideEvent, QKeyEvent, QKeySequence, QShowEvent
from PySide6.QtWidgets import QHBoxLayout, QVBoxLayout, QWidget

from app.pages.chat.composer import ATTACH_KEYS, Composer
from app.pages.chat.conversations import import_export
from app.pages.chat.conversations.conversation import Conversation
from app.pages.chat.conversations.drawer import Drawer
from app.pages.chat.conversations.store import ConversationStore
from app.pages.chat.single_model import SingleModelChat
from app.pages.chat.top_bar import DRAWER_KEYS, NEW_KEYS, ONE, TWO, TopBar
from app.shared.context import Context
from app.widgets.view_stack import ViewStack
from core.errors import BitwrightError

REQUEST = "chat/model"
"""Key of the state in which other pages store the model to chat with, before they show this page."""
_DRAWER = "chat/drawer"
_ROOMY = 1100
"""Page width in pixels from which the drawer is open by default."""


class ChatPage(QWidget):
    """The saved conversations on the left, and the chat with one or two models.

    Signals:
        dot_changed: `dot` may have changed.
    """

    page_id = "chat"
    dot_changed = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = self.tr("Chat")
        self._context = context
        self._dot = self._seen = False
        self._comparison: QWidget | None = None
        self.store = ConversationStore(parent=self)
        self.single = SingleModelChat(context, self)
        self._bar = TopBar(context.theme, self)
        self._drawer = Drawer(context.theme, self.store, self)
        self._stack = ViewStack(self)
        self._stack.addWidget(self.single)
        row = QHBoxLayout()
        row.setSpacing(0)
        row.addWidget(self._drawer)
        row.addWidget(self._stack, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self._bar)
        column.addLayout(row, 1)
        self._connect()
        self._add_actions()
        self._drawer.setVisible(False)
        self._drawer.show_current(self.single.conversation.id)
        self._update()

    def _connect(self) -> None:
        bar, single, store, drawer = self._bar, self.single, self.store, self._drawer
        bar.drawer_toggled.connect(self._show_drawer)
        bar.drawer.clicked.connect(lambda shown: self._context.state.set_value(_DRAWER, shown))
        bar.mode_chosen.connect(self.show_mode)
        bar.export_asked.connect(self._export)
        bar.new_asked.connect(self.new_conversation)
        single.changed.connect(self._update)
        single.modified.connect(lambda: store.save_later(single.conversation))
        single.answered.connect(self._on_answered)
        single.new_asked.connect(self.new_conversation)
        drawer.picked.connect(self._open)
        drawer.deleted.connect(self._on_deleted)
        drawer.import_asked.connect(self._import)
        store.opened.connect(self.show_conversation)
        store.failed.connect(self._on_store_failed)
        store.renamed.connect(self._take_title)

    def _add_actions(self) -> None:
        self._action(self.tr("New conversation"), NEW_KEYS, self._new_by_key)
        self._action(self.tr("Attach pictures"), ATTACH_KEYS, self.attach_pictures)
        self._action(self.tr("Select another model"), "Ctrl+Shift+M", self.pick_model)
        self._action(self.tr("Show or hide conversations"), DRAWER_KEYS, self._bar.drawer.click)
        self._action(self.tr("Search conversations"), "Ctrl+Shift+F", self.search)

    def _action(self, text: str, keys: str, act: Callable[[], object]) -> None:
        action = QAction(text, self)
        action.setShortcut(QKeySequence(keys))
        action.setShortcutContext(Qt.ShortcutContext.WindowShortcut)  # not active while the page is hidden
        action.triggered.connect(lambda _checked=False: act())
        self.addAction(action)

    # --- interface for the window ---

    def dot(self) -> bool:
        """Return whether an answer has arrived since the page was last visible."""
        return self._dot

    def open_model(self, name: str) -> None:
        """Select the model `name`; load it at once if the run of this window has just made it."""
        record = self._context.runs.record
        if record is not None and record.spec is not None and record.spec.output == name:
            # a run with several formats has a subfolder for each
            name = str(record.spec.output_of(record.spec.formats[0]))
        self.show_mode(ONE)
        self.single.open_folder(name)
        if record is not None and record.state == "done" and self.single.session.state == "idle":
            self.single.answering.load()
        self.single.chat_view.composer.setFocus()

    def showEvent(self, event: QShowEvent) -> None:
        """Update the models and open the model that another page stored; open the drawer if there is space."""
        super().showEvent(event)
        if not self._seen:
            self._seen = True
            self.store.reload()
            self._bar.drawer.setChecked(self._context.state.value(_DRAWER, self.width() >= _ROOMY))
        self._set_dot(False)
        self.single.selection.refresh()
        self.single.selection.rescan()
        wanted = self._context.state.value(REQUEST, "")
        if wanted:
            self._context.state.set_value(REQUEST, "")
            self.open_model(wanted)

    def hideEvent(self, event: QHideEvent) -> None:
        """Save at once, as the window may be about to close."""
        super().hideEvent(event)
        self.store.flush()

    def keyPressEvent(self, event: QKeyEvent) -> None:
        """Handle Esc, which stops an activity; otherwise pass it to the window."""
        if (
            event.key() == Qt.Key.Key_Escape
            and self._stack.currentWidget() is self.single
            and self.single.handle_escape()
        ):
            event.accept()
        else:
            super().keyPressEvent(event)

    # --- user actions ---

    def send(self, text: str, pictures: tuple[str, ...] = ()) -> None:
        """Send a message to the selected model and load it if needed."""
        self.single.send(text, pictures)

    def show_mode(self, mode: str) -> None:
        """Show the chat with one model, or the comparison, which is created on first use."""
        if mode == TWO:
            self.single.unload_if_idle()  # first: the comparison measures the free memory
        if mode == TWO and self._comparison is None:
            module = importlib.import_module("app.pages.chat.comparison.view")
            comparison = module.ComparisonView(self._context)
            comparison.answered.connect(self._on_answered)
            self._stack.addWidget(comparison)
            self._comparison = comparison
        two = mode == TWO and self._comparison is not None
        self._stack.setCurrentWidget(self._comparison if two and self._comparison is not None else self.single)
        self._bar.show_mode(TWO if two else ONE)
        self._drawer.setVisible(not two and self._bar.drawer.isChecked())

    def new_conversation(self) -> None:
        """Start a new conversation; the previous one stays in the list."""
        if not self.single.view.answering:
            self.show_conversation(Conversation())
            self.single.chat_view.composer.setFocus()

    def _new_by_key(self) -> None:
        if self._stack.currentWidget() is self.single:
            self.new_conversation()

    def show_conversation(self, conversation: Conversation) -> None:
        """Show a conversation; the previous one is saved."""
        self.store.flush()
        self.single.show_conversation(conversation)
        self._drawer.show_current(conversation.id)

    def _open(self, identity: str) -> None:
        """Open a saved conversation. The current one is newer than its file and is not read again."""
        if identity == self.single.conversation.id:
            self.store.stay()
        else:
            self.store.open(identity)

    def pick_model(self) -> None:
        """Open the list of models."""
        self.show_mode(ONE)
        self.single.panel.models.open_list()

    def attach_pictures(self) -> None:
        """Let the user choose pictures for the message to one model or to both."""
        shown = self._stack.currentWidget()
        composer = shown.findChild(Composer) if shown is not None else None
        if composer is not None:
            composer.choose_pictures()

    def search(self) -> None:
        """Open the drawer with the focus in its search field."""
        self.show_mode(ONE)
        self._bar.drawer.setChecked(True)
        self._drawer.search()

    def save_to(self, path: str) -> None:
        """Write the conversation to a file: JSON for `.json`, otherwise Markdown."""
        single = self.single
        import_export.export(
            single.conversation,
            single.conversation.model or single.selection.label,
            single.panel.system,
            path,
            self.store,
            self._context,
            self._export,
        )

    def import_from(self, path: str) -> None:
        """Read a conversation from a JSON file, save it and show it."""
        import_export.import_file(path, self.store, self._context, self._take_imported, self._import)

    def _take_imported(self, conversation: Conversation) -> None:
        self.show_mode(ONE)
        self.store.save_later(conversation)
        self.show_conversation(conversation)

    def _export(self) -> None:
        import_export.choose_export_path(self, self.single.conversation.name, self.save_to)

    def _import(self) -> None:
        import_export.choose_import_path(self, self.import_from)

    def _show_drawer(self, shown: bool) -> None:
        self._drawer.setVisible(shown and self._stack.currentWidget() is self.single)

    # --- reactions ---

    def _on_answered(self) -> None:
        self.store.flush()
        if not self.isVisible():
            self._set_dot(True)

    def _on_deleted(self, identity: str) -> None:
        if identity == self.single.conversation.id:
            self.show_conversation(Conversation())

    def _on_store_failed(self, error: BitwrightError) -> None:
        self._context.report(error, None)

    def _take_title(self, identity: str, title: str) -> None:
        """Update the title of the current conversation after it was renamed in the list."""
        if identity == self.single.conversation.id:
            self.single.conversation.title = title
            self._update()

    def _update(self) -> None:
        """Update the bar at the top."""
        empty = not len(self.single.conversation)
        busy = self.single.session.state == "answering"
        self._bar.show_conversation("" if empty else self.single.conversation.name, empty, busy)

    def _set_dot(self, dot: bool) -> None:
        if dot != self._dot:
            self._dot = dot
            self.dot_changed.emit()
