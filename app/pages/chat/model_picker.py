"""The models that the chat page offers, the selected one, and the widgets to select it with.

`KnownModels` lists the models, `ModelSelection` keeps the selection, `ModelBox` and `ChatModelPicker` show both.
Does not load models.
"""

from __future__ import annotations

import html
from collections.abc import Callable, Sequence
from typing import Final

from PySide6.QtCore import QObject, Qt, Signal
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QPushButton, QVBoxLayout, QWidget

from app.shared.context import Context
from app.shared.models import choices as model_choices
from app.shared.models.choices import ModelChoice
from app.shared.models.finished import FinishedModels
from app.theme import Theme
from app.widgets.elided_box import ElidedBox
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel


class KnownModels(QObject):
    """The models; what runs made is looked for again whenever a run ends.

    Signals:
        found: a look for what runs made is over.
    """

    found = Signal()

    def __init__(self, context: Context, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._made = FinishedModels(context.calls, self)
        self._folders: list[ModelChoice] = []
        self._made.changed.connect(self.found)
        context.runs.ended.connect(lambda _job: self.rescan())

    @property
    def scanned(self) -> bool:
        """Whether what runs made was looked for at all."""
        return self._made.looked

    @property
    def choices(self) -> list[ModelChoice]:
        """All of them as they are now, each once."""
        model, record = self._context.draft.model, self._context.runs.record
        originals = []
        if model is not None:
            originals.append(model_choices.original(model.name, model.label, model.download_bytes))
        if record is not None and record.spec is not None:
            originals.append(model_choices.original(record.spec.model, ""))
        return model_choices.merged(self._made.choices, originals, self._folders)

    def rescan(self) -> None:
        """Look for what runs made."""
        self._made.look()

    def add_folder(self, path: str) -> bool:
        """Know a folder that the user opened from now on. Says whether it is new."""
        new = all(choice.name != path for choice in self.choices)
        if new:
            self._folders.append(model_choices.folder(path))
        return new


_PICKED: Final = "chat/picked"


class ModelSelection(QObject):
    """The models, and the picked one.

    Signals:
        changed: there are others, or another one is picked.
    """

    changed = Signal()

    def __init__(self, context: Context, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._known = KnownModels(context, self)
        self._picked = context.state.value(_PICKED, "")
        self.choices: list[ModelChoice] = []
        self.settled = False
        """Whether something was begun with the picked model, so that it must not be changed for a better one."""
        context.draft.model_changed.connect(self.refresh)
        self._known.found.connect(self.refresh)

    @property
    def model(self) -> str:
        """The model, as in `LoadModel`; "" where there is none."""
        return self._picked

    @property
    def current(self) -> ModelChoice | None:
        """The picked one."""
        return next((choice for choice in self.choices if choice.name == self._picked), None)

    @property
    def label(self) -> str:
        """Short name of the picked one."""
        choice = self.current
        return choice.label if choice is not None else model_choices.short_name(self._picked)

    def rescan(self) -> None:
        """Look for what runs made."""
        self._known.rescan()

    def pick(self, name: str) -> None:
        """Pick a model."""
        self._picked = name
        self._context.state.set_value(_PICKED, name)
        self.refresh()
        self.changed.emit()

    def add_folder(self, path: str) -> None:
        """Offer a folder that the user opened, unless it is offered already."""
        if self._known.add_folder(path):
            self.refresh()

    def refresh(self) -> None:
        """Find what there is now. Nothing is offered before the first look, or the pick would change under the user."""
        before = self.choices, self._picked
        choices = self._known.choices if self._known.scanned or self._picked else []
        known = any(choice.name == self._picked for choice in choices)
        if not known and self._known.scanned and not self.settled:
            self._picked = choices[0].name if choices else ""
        elif not known and self._picked:
            choices.append(model_choices.folder(self._picked))
        self.choices = choices
        if (choices, self._picked) != before:
            self.changed.emit()


class ModelBox(ElidedBox):
    """Models by their short names, with a line where another kind of them begins; an item's data is the whole name."""

    def offer(self, choices: Sequence[ModelChoice]) -> None:
        """Offer these in place of all others."""
        self.clear()
        for index, choice in enumerate(choices):
            if index and choice.kind != choices[index - 1].kind:
                self.insertSeparator(self.count())
            self.addItem(choice.label, choice.name)
            # Escaped: a tooltip that looks like HTML would be laid out as such.
            whole = f"<p style='white-space:pre'>{html.escape(choice.name)}</p>"
            self.setItemData(self.count() - 1, whole, Qt.ItemDataRole.ToolTipRole)
        self.fit_list()


def choose_folder(parent: QWidget, then: Callable[[str], object]) -> None:
    """Let the user choose a folder that holds a model; `then` is told its path."""
    dialog = QFileDialog(parent, parent.tr("Open a model folder"))
    dialog.setFileMode(QFileDialog.FileMode.Directory)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.fileSelected.connect(then)
    dialog.open()


class ChatModelPicker(QWidget):
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
        self._choices: list[ModelChoice] = []
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
        self._open.clicked.connect(self.choose_folder)
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
    def current(self) -> ModelChoice | None:
        """What is picked."""
        name = self._box.currentData()
        return next((choice for choice in self._choices if choice.name == name), None)

    def set_choices(self, choices: Sequence[ModelChoice], picked: str) -> None:
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
        self._detail.set_text(text)

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

    def choose_folder(self) -> None:
        """Let the user choose a folder that holds a model."""
        choose_folder(self, self.opened.emit)
