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
    """The known models. Finished models are listed again whenever a run ends.

    Signals:
        found: the finished models were listed.
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
        """Return whether the finished models were listed at least once."""
        return self._made.looked

    @property
    def choices(self) -> list[ModelChoice]:
        """Return all models, each once."""
        model, record = self._context.draft.model, self._context.runs.record
        originals = []
        if model is not None:
            originals.append(model_choices.original(model.name, model.label, model.download_bytes))
        if record is not None and record.spec is not None:
            originals.append(model_choices.original(record.spec.model, ""))
        return model_choices.merged(self._made.choices, originals, self._folders)

    def rescan(self) -> None:
        """List the finished models again."""
        self._made.look()

    def add_folder(self, path: str) -> bool:
        """Add a folder opened by the user; return whether it is new."""
        new = all(choice.name != path for choice in self.choices)
        if new:
            self._folders.append(model_choices.folder(path))
        return new


_PICKED: Final = "chat/picked"


class ModelSelection(QObject):
    """The models and the selected one.

    Signals:
        changed: the models or the selection changed.
    """

    changed = Signal()

    def __init__(self, context: Context, parent: QObject | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._known = KnownModels(context, self)
        self._picked = context.state.value(_PICKED, "")
        self.choices: list[ModelChoice] = []
        self.settled = False
        """True if the selected model was used, so that the selection must not be changed automatically."""
        context.draft.model_changed.connect(self.refresh)
        self._known.found.connect(self.refresh)

    @property
    def model(self) -> str:
        """The name for `LoadModel`; "" if there is no model."""
        return self._picked

    @property
    def current(self) -> ModelChoice | None:
        """The selected model."""
        return next((choice for choice in self.choices if choice.name == self._picked), None)

    @property
    def label(self) -> str:
        """Short name of the selected model."""
        choice = self.current
        return choice.label if choice is not None else model_choices.short_name(self._picked)

    def rescan(self) -> None:
        """List the finished models again."""
        self._known.rescan()

    def pick(self, name: str) -> None:
        """Select a model."""
        self._picked = name
        self._context.state.set_value(_PICKED, name)
        self.refresh()
        self.changed.emit()

    def add_folder(self, path: str) -> None:
        """Add a folder opened by the user, unless it is listed already."""
        if self._known.add_folder(path):
            self.refresh()

    def refresh(self) -> None:
        """Update the models. The list is empty until the first listing, so that the selection stays stable."""
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
    """A combo box of models by short name, with separators between kinds; the item data is the full name."""

    def offer(self, choices: Sequence[ModelChoice]) -> None:
        """Replace the items."""
        self.clear()
        for index, choice in enumerate(choices):
            if index and choice.kind != choices[index - 1].kind:
                self.insertSeparator(self.count())
            self.addItem(choice.label, choice.name)
            # Escaped: a tooltip that looks like HTML would be rendered as HTML.
            whole = f"<p style='white-space:pre'>{html.escape(choice.name)}</p>"
            self.setItemData(self.count() - 1, whole, Qt.ItemDataRole.ToolTipRole)
        self.fit_list()


def choose_folder(parent: QWidget, then: Callable[[str], object]) -> None:
    """Let the user choose a model folder; `then` is called with its path."""
    dialog = QFileDialog(parent, parent.tr("Open model folder"))
    dialog.setFileMode(QFileDialog.FileMode.Directory)
    dialog.setOption(QFileDialog.Option.ShowDirsOnly)
    dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
    dialog.fileSelected.connect(then)
    dialog.open()


class ChatModelPicker(QWidget):
    """A combo box, details of the selected model, and two buttons.

    Signals:
        picked(str): the user selected the model of this name.
        opened(str): the user opened this folder.
        load_asked: the Load button was pressed; its action depends on its text.
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
        """The selected model."""
        name = self._box.currentData()
        return next((choice for choice in self._choices if choice.name == name), None)

    def set_choices(self, choices: Sequence[ModelChoice], picked: str) -> None:
        """Set the models and select the one called `picked`, or else the first."""
        if list(choices) != self._choices:
            self._choices = list(choices)
            self._box.offer(choices)
        self._box.setEnabled(bool(choices))
        place = self._box.findData(picked)
        if place < 0 and choices:
            place = 0
        self._box.setCurrentIndex(place)

    def set_detail(self, text: str) -> None:
        """Set the text about the selected model."""
        self._detail.set_text(text)

    def set_load(self, text: str, explained: str, enabled: bool) -> None:
        """Set text, tooltip and state of the Load button."""
        self._load.setText(text)
        self._load.setToolTip(explained)
        self._load.setEnabled(enabled)

    def _activate(self, index: int) -> None:
        name = self._box.itemData(index)
        if isinstance(name, str):
            self.picked.emit(name)

    def open_list(self) -> None:
        """Open the list of models, for keyboard use."""
        self._box.setFocus(Qt.FocusReason.ShortcutFocusReason)
        self._box.showPopup()

    def choose_folder(self) -> None:
        """Let the user choose a model folder."""
        choose_folder(self, self.opened.emit)
