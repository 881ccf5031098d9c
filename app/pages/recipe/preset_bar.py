"""Buttons to save the current recipe, to open one from a file, and to delete a saved one.

The name is entered in place.
"""

from __future__ import annotations

from collections.abc import Callable

from PySide6.QtCore import QEvent, QObject, Qt, Signal
from PySide6.QtGui import QKeyEvent
from PySide6.QtWidgets import QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.note import Note


class PresetBar(QWidget):
    """The buttons below the cards.

    Signals:
        keep: the name to save the recipe under.
        open: A recipe file is to be selected.
        remove: The selected user recipe is to be deleted.
        restore: The recipe deleted last is to be restored.
    """

    keep = Signal(str)
    open = Signal()
    remove = Signal()
    restore = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._keep = self._button(self.tr("Save recipe"), "keep", self._ask)
        self._name = QLineEdit(self)
        self._name.setObjectName("recipe-name")
        self._name.setPlaceholderText(self.tr("Name"))
        self._name.setAccessibleName(self.tr("Name of the recipe"))
        self._name.setMaximumWidth(240)
        self._name.returnPressed.connect(lambda: self.keep.emit(self._name.text()))
        self._name.textEdited.connect(self._typed)
        self._name.installEventFilter(self)
        self._save = self._button(self.tr("Save"), "keep-name", lambda: self.keep.emit(self._name.text()))
        self._open = self._button(self.tr("Open a recipe file"), "open-recipe", self.open.emit)
        self._remove = self._button(self.tr("Remove"), "remove-recipe", self.remove.emit)
        self._restore = self._button(self.tr("Undo"), "restore-recipe", self.restore.emit)
        self._note = Note(theme, parent=self)
        self._note.setObjectName("recipe-note")
        row = QHBoxLayout()
        row.setSpacing(8)
        for widget in (self._keep, self._name, self._save, self._open, self._remove, self._restore):
            row.addWidget(widget)
        row.addStretch(1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addWidget(self._note)
        self._asking(False)
        self._remove.hide()
        self._restore.hide()

    def show_message(self, text: str, role: str = "muted", *, undo: bool = False) -> None:
        """Show a message; with `undo` also a button to restore the deleted recipe."""
        self._note.set_text(text, role)
        self._restore.setVisible(undo)
        if role != "bad":
            self._asking(False)

    def set_removable(self, yes: bool) -> None:
        """Set whether the selected recipe can be deleted."""
        self._remove.setVisible(yes)

    def eventFilter(self, watched: QObject, event: QEvent) -> bool:
        """Handle Escape: close the name field."""
        if isinstance(event, QKeyEvent) and event.type() == QEvent.Type.KeyPress and event.key() == Qt.Key.Key_Escape:
            self._asking(False)
            self._note.set_text("")
            self._keep.setFocus()
            return True
        return False

    def _typed(self) -> None:
        self._note.set_text("")

    def _ask(self) -> None:
        self._asking(True)
        self._name.selectAll()
        self._name.setFocus()

    def _asking(self, yes: bool) -> None:
        self._keep.setVisible(not yes)
        self._name.setVisible(yes)
        self._save.setVisible(yes)

    def _button(self, text: str, name: str, act: Callable[[], object]) -> QPushButton:
        button = QPushButton(text, self)
        button.setObjectName(name)
        button.setAutoDefault(False)
        button.clicked.connect(lambda: act())
        return button
