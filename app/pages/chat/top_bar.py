"""The bar at the top of the chat page: conversations, mode, title, export and new conversation."""

from __future__ import annotations

from typing import Final

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QFrame, QHBoxLayout, QPushButton, QToolButton, QWidget

from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.segmented import Option, Segmented
from app.widgets.shortcut_keys import shown_keys

ONE: Final = "one"
TWO: Final = "two"
DRAWER_KEYS: Final = "Ctrl+Shift+H"
NEW_KEYS: Final = "Ctrl+N"


class TopBar(QFrame):
    """Buttons and a title.

    Signals:
        drawer_toggled(bool): the saved conversations should be shown or hidden.
        mode_chosen(str): ONE model or TWO.
        export_asked: the conversation should be exported.
        new_asked: a new conversation should be started.
    """

    drawer_toggled = Signal(bool)
    mode_chosen = Signal(str)
    export_asked = Signal()
    new_asked = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.drawer = QToolButton(self)
        self.drawer.setObjectName("drawer")
        self.drawer.setText(self.tr("Conversations"))
        self.drawer.setCheckable(True)
        self.drawer.setAutoRaise(True)
        self.drawer.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        self.drawer.setToolTip(
            self.tr("Show or hide saved conversations ({keys})").format(keys=shown_keys(DRAWER_KEYS))
        )
        self.drawer.toggled.connect(self.drawer_toggled)
        self._mode = Segmented(
            theme,
            (
                Option(ONE, self.tr("One model")),
                Option(TWO, self.tr("Compare two"), tip=self.tr("Send the same message to two models")),
            ),
            self,
        )
        self._mode.setObjectName("chat_mode")
        self._mode.set_value(ONE)
        self._mode.chosen.connect(lambda mode: self.mode_chosen.emit(mode))
        self._title = ElidedLabel(bold=True, parent=self)
        self._title.setObjectName("conversation_title")
        self._export = QPushButton(self.tr("Export\N{HORIZONTAL ELLIPSIS}"), self)
        self._export.setObjectName("export")
        self._export.setToolTip(self.tr("Save the conversation as Markdown or JSON"))
        self._export.clicked.connect(self.export_asked)
        self._new = QPushButton(self.tr("New conversation"), self)
        self._new.setObjectName("new_talk")
        self._new.setToolTip(
            self.tr("Start a new conversation; the current one is saved ({keys})").format(keys=shown_keys(NEW_KEYS))
        )
        self._new.clicked.connect(self.new_asked)
        row = QHBoxLayout(self)
        row.setContentsMargins(8, 8, 16, 0)
        row.setSpacing(8)
        row.addWidget(self.drawer)
        row.addWidget(self._mode)
        row.addSpacing(8)
        row.addWidget(self._title, 1)
        row.addWidget(self._export)
        row.addWidget(self._new)

    def show_mode(self, mode: str) -> None:
        """Show the mode; a comparison has no saved conversations."""
        self._mode.set_value(mode)
        self.drawer.setVisible(mode == ONE)
        for widget in (self._title, self._export, self._new):
            widget.setVisible(mode == ONE)

    def show_conversation(self, name: str, empty: bool, busy: bool) -> None:
        """Show the title of the conversation, and enable its actions."""
        self._title.set_text(name)
        for button in (self._export, self._new):
            button.setEnabled(not empty and not busy)
