"""Which model to talk to: what was quantized here first, then the original, then any folder; and load, cancel, unload.

Shows choices (`app.shared.chat_choices`) and says what was picked; loads nothing itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.pages.chat.model_box import ModelBox, ask_folder
from app.shared.chat_choices import ChatChoice
from app.theme import Theme
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel


class ChatModels(QWidget):
    """A picker, what is known of the picked model, and two buttons.

    Signals:
        picked(str): the user picked the model of this name.
        opened(str): the user opened this folder, which is no choice yet.
        load_asked: the button was pressed; what it does depends on what it says.
    """

    picked = Signal(str)
    opened = Signal(str)
    load_asked = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._choices: list[ChatChoice] = []
        label = TintedLabel(theme, self.tr("M&odel"), bold=True, parent=self)
        self._box = ModelBox(self)
        self._box.setObjectName("chat_model")
        self._box.activated.connect(self._activate)
        label.setBuddy(self._box)
        self._detail = Note(theme, parent=self)
        self._detail.setObjectName("chat_model_detail")
        self._load = QPushButton(self.tr("Load"), self)
        self._load.setObjectName("load")
        self._load.clicked.connect(self.load_asked)
        self._open = QPushButton(self.tr("Open folder\N{HORIZONTAL ELLIPSIS}"), self)
        self._open.setObjectName("open_folder")
        self._open.clicked.connect(self.ask_folder)
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._load, 1)
        row.addWidget(self._open, 1)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        for widget in (label, self._box, self._detail):
            column.addWidget(widget)
        column.addLayout(row)

    @property
    def current(self) -> ChatChoice | None:
        """What is picked."""
        name = self._box.currentData()
        return next((choice for choice in self._choices if choice.name == name), None)

    def set_choices(self, choices: Sequence[ChatChoice], picked: str) -> None:
        """Show these choices and pick the one called `picked`, else the first."""
        if list(choices) != self._choices:
            self._choices = list(choices)
            self._box.offer(choices)
        self._box.setEnabled(bool(choices))
        place = self._box.findData(picked)
        if place < 0 and choices:
            place = 0
        self._box.setCurrentIndex(place)

    def set_detail(self, text: str) -> None:
        """One or two lines about the picked model."""
        self._detail.tell(text)

    def set_load(self, text: str, explained: str, enabled: bool) -> None:
        """What the first button says and does now."""
        self._load.setText(text)
        self._load.setToolTip(explained)
        self._load.setEnabled(enabled)

    def _activate(self, index: int) -> None:
        name = self._box.itemData(index)
        if isinstance(name, str):
            self.picked.emit(name)

    def open_list(self) -> None:
        """Show all models to pick from, for the keyboard."""
        self._box.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self._box.showPopup()

    def ask_folder(self) -> None:
        """Let the user choose a folder that holds a model."""
        ask_folder(self, self.opened.emit)
