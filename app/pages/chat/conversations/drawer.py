"""The drawer on the left of the chat page: saved conversations to search, open, rename, delete and import.

Shows the content of `ConversationStore`; its owner opens and imports conversations.
"""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import QModelIndex, Qt, Signal
from PySide6.QtGui import QAction, QKeySequence
from PySide6.QtWidgets import (
    QAbstractItemView,
    QFrame,
    QHBoxLayout,
    QLineEdit,
    QListView,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.pages.chat.conversations.drawer_list import ConversationDelegate, ConversationTable
from app.pages.chat.conversations.files import matching
from app.pages.chat.conversations.store import ConversationStore
from app.theme import Theme
from app.widgets.note import Note

WIDTH: Final = 232


class Drawer(QFrame):
    """A column with a search field, the list, and the actions.

    Signals:
        picked(str): the user selected the conversation of this id.
        deleted(str): the user deleted the conversation of this id.
        import_asked: the user wants to import a conversation.
    """

    picked = Signal(str)
    deleted = Signal(str)
    import_asked = Signal()

    def __init__(self, theme: Theme, store: ConversationStore, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._store = store
        self._shown = ""
        self._search = QLineEdit(self)
        self._search.setObjectName("conversation_search")
        self._search.setPlaceholderText(self.tr("Search conversations"))
        self._search.setAccessibleName(self.tr("Search conversations"))
        self._search.setClearButtonEnabled(True)
        self._search.textChanged.connect(self._fill)
        self._search.returnPressed.connect(self._pick_first)
        self._rows = ConversationTable(self)
        self._rows.renamed.connect(store.rename)
        self._list = self._make_list(theme)
        self._empty = Note(theme, parent=self)
        self._empty.setObjectName("conversations_empty")
        self._broken = Note(theme, parent=self)
        self._broken.setObjectName("conversations_broken")
        self._gone = Note(theme, parent=self)
        self._gone.setObjectName("conversation_gone")
        self._undo = self._button("undo_delete", self.tr("Undo"), self.tr("Restore the conversation"), store.undo)
        self._rename = self._button(
            "rename_talk", self.tr("Rename"), self.tr("Rename the conversation (F2)"), self.rename
        )
        self._delete = self._button(
            "delete_talk", self.tr("Delete"), self.tr("Delete the conversation (Del)"), self.delete
        )
        self._import = self._button(
            "import_talk", self.tr("Import\N{HORIZONTAL ELLIPSIS}"), self.tr("Import a conversation from a JSON file"),
            self.import_asked.emit,
        )  # fmt: skip
        self._lay_out()
        self.setFixedWidth(WIDTH)
        self.setAccessibleName(self.tr("Saved conversations"))
        store.changed.connect(self._fill)
        self._fill()

    def _make_list(self, theme: Theme) -> QListView:
        view = QListView(self)
        view.setObjectName("talks")
        view.setAccessibleName(self.tr("Saved conversations"))
        view.setModel(self._rows)
        view.setItemDelegate(ConversationDelegate(theme, view))
        view.setFrameShape(QFrame.Shape.NoFrame)
        view.setUniformItemSizes(True)
        view.setMouseTracking(True)
        view.viewport().setAutoFillBackground(False)
        view.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        view.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)  # F2 is an action, which is also in the menu
        view.setVerticalScrollMode(QAbstractItemView.ScrollMode.ScrollPerPixel)
        view.clicked.connect(self._pick)
        view.activated.connect(self._pick)
        view.selectionModel().currentChanged.connect(self._update_buttons)
        for text, key, act in (
            (self.tr("Rename the selected conversation"), Qt.Key.Key_F2, self.rename),
            (self.tr("Delete the selected conversation"), Qt.Key.Key_Delete, self.delete),
        ):
            action = QAction(text, view)
            action.setShortcut(QKeySequence(key))
            action.setShortcutContext(Qt.ShortcutContext.WidgetShortcut)
            action.triggered.connect(lambda _checked=False, act=act: act())
            view.addAction(action)
        view.setContextMenuPolicy(Qt.ContextMenuPolicy.ActionsContextMenu)
        return view

    def _lay_out(self) -> None:
        gone, foot = QHBoxLayout(), QHBoxLayout()
        gone.addWidget(self._gone, 1)
        gone.addWidget(self._undo)
        foot.setSpacing(4)
        for button in (self._rename, self._delete, self._import):
            foot.addWidget(button, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(8, 8, 8, 16)
        column.setSpacing(8)
        column.addWidget(self._search)
        column.addWidget(self._empty)
        column.addWidget(self._list, 1)
        column.addWidget(self._broken)
        column.addLayout(gone)
        column.addLayout(foot)

    def show_current(self, identity: str) -> None:
        """Mark the current conversation."""
        self._shown = identity
        self._list.setCurrentIndex(self._rows.place(identity))
        self._update_buttons()

    def search(self) -> None:
        """Set the focus to the search field."""
        self._search.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self._search.selectAll()

    def rename(self) -> None:
        """Edit the name of the selected conversation in place."""
        index = self._list.currentIndex()
        if index.isValid():
            self._list.setFocus(Qt.FocusReason.OtherFocusReason)
            self._list.edit(index)

    def delete(self) -> None:
        """Delete the selected conversation."""
        identity = self._current()
        if identity:
            self._store.delete(identity)
            self.deleted.emit(identity)

    def _current(self) -> str:
        row = self._list.currentIndex().row()
        return self._rows.rows[row].id if 0 <= row < len(self._rows.rows) else ""

    def _pick_first(self) -> None:
        if self._rows.rows:
            self._list.setCurrentIndex(self._rows.index(0))
            self._pick(self._rows.index(0))

    def _pick(self, index: QModelIndex) -> None:
        identity = self._rows.rows[index.row()].id
        if identity != self._shown:
            self._store.clear_undo()
        self.picked.emit(identity)

    def _fill(self) -> None:
        picked = self._current() or self._shown
        listing, text = self._store.listing, self._search.text()
        self._rows.show(matching(listing.summaries, text))
        self._list.setCurrentIndex(self._rows.place(picked))
        if self._rows.rows:
            self._empty.set_text("")
        elif text.strip():
            self._empty.set_text(self.tr("No matching conversations."))
        else:
            self._empty.set_text(self.tr("Your conversations appear here."))
        self._broken.set_text(self._broken_words(len(listing.broken)), "warning")
        self._broken.setToolTip("\n".join([self._store.folder, *(f"{name}: {why}" for name, why in listing.broken)]))
        gone = self._store.deleted
        self._gone.set_text(self.tr("Deleted: {name}").format(name=gone.name) if gone is not None else "")
        self._undo.setVisible(gone is not None)
        self._update_buttons()

    def _broken_words(self, count: int) -> str:
        if count == 1:
            return self.tr("One conversation cannot be read. Its file is kept.")
        many = self.tr("{count} conversations cannot be read. Their files are kept.")
        return many.format(count=count) if count else ""

    def _update_buttons(self, *_: object) -> None:
        picked = bool(self._current())
        self._rename.setEnabled(picked)
        self._delete.setEnabled(picked)

    def _button(self, name: str, text: str, tip: str, act: object) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(name)
        button.setToolTip(tip)
        button.clicked.connect(lambda: act())  # type: ignore[operator] # called without the button's state
        return button
