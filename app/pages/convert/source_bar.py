"""The choice of the model to convert: a finished model, a recent one, a folder, a file, or a typed name.

Emits the choice; does not open models.
"""

from __future__ import annotations

import html
from collections.abc import Sequence

from PySide6.QtCore import QDir, Qt, Signal
from PySide6.QtWidgets import (
    QComboBox,
    QCompleter,
    QFileDialog,
    QHBoxLayout,
    QLabel,
    QLineEdit,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from app.shared.models.choices import ModelChoice
from app.shared.models.name import model_name, names_a_model
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.wheel_guard import WheelGuard


class NameBox(QComboBox):
    """An editable combo box; the theme styles it by this class name."""


class SourceBar(QWidget):
    """A field with a list, two buttons, and a line about the model.

    Signals:
        picked(str): the user selected this model, by its name, path or Hub id.
    """

    picked = Signal(str)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._choices: list[ModelChoice] = []
        label = QLabel(self.tr("&Model"), self)
        self.box = NameBox(self)
        self.box.setObjectName("convert_source")
        self.box.setEditable(True)
        self.box.setInsertPolicy(QComboBox.InsertPolicy.NoInsert)
        self.box.setSizeAdjustPolicy(QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon)
        self.box.setMinimumContentsLength(20)
        self.box.setMaxVisibleItems(16)
        self.field = QLineEdit(self.box)
        self.field.setPlaceholderText(self.tr("Finished model, Hub id or path"))
        self.field.setAccessibleName(self.tr("Model to convert"))
        self.box.setLineEdit(self.field)
        known = QCompleter(self.box.model(), self.box)
        known.setCaseSensitivity(Qt.CaseSensitivity.CaseInsensitive)
        known.setFilterMode(Qt.MatchFlag.MatchContains)
        self.box.setCompleter(known)
        WheelGuard(self.box)
        label.setBuddy(self.box)
        folder = QPushButton(self.tr("Open &folder\N{HORIZONTAL ELLIPSIS}"), self)
        folder.setObjectName("convert_folder")
        folder.clicked.connect(self.choose_folder)
        file = QPushButton(self.tr("Open fi&le\N{HORIZONTAL ELLIPSIS}"), self)
        file.setObjectName("convert_file")
        file.clicked.connect(self.choose_file)
        self._about = ElidedLabel(theme, role="muted", middle=True, parent=self)
        self._about.setObjectName("convert_about")
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(label)
        row.addWidget(self.box, 1)
        row.addWidget(folder)
        row.addWidget(file)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addWidget(self._about)
        self.box.activated.connect(self._activate)
        self.field.returnPressed.connect(self._enter)

    def set_choices(self, choices: Sequence[ModelChoice], picked: str) -> None:
        """Set the list; select the entry `picked`, or clear the field if that is ""."""
        edited = self.field.isModified() and self.field.hasFocus()
        typed = self.box.currentText()
        if list(choices) != self._choices:
            self._choices = list(choices)
            self.box.clear()
            for number, choice in enumerate(choices):
                if number and choice.kind != choices[number - 1].kind:
                    self.box.insertSeparator(self.box.count())
                self.box.addItem(choice.label, choice.name)
                tip = f"{html.escape(choice.name)}<br>{html.escape(choice.detail)}"
                self.box.setItemData(self.box.count() - 1, f"<p style='white-space:pre'>{tip}</p>", _TIP)
        self.box.setCurrentIndex(self.box.findData(picked) if picked else -1)
        if edited:
            self.box.setEditText(typed)
        elif self.box.currentIndex() < 0:
            self.box.setEditText(picked)

    def show_message(self, text: str, role: str = "muted", exact: str = "") -> None:
        """Show a line about the model, or an error about the typed text."""
        self._about.set_role(role)
        self._about.set_text(text, exact)

    def choose_folder(self) -> None:
        """Let the user choose a model folder."""
        self._ask(self.tr("Open model folder"), QFileDialog.FileMode.Directory)

    def choose_file(self) -> None:
        """Let the user choose a GGUF file."""
        self._ask(self.tr("Open GGUF file"), QFileDialog.FileMode.ExistingFile, self.tr("GGUF files (*.gguf)"))

    def _ask(self, title: str, mode: QFileDialog.FileMode, kinds: str = "") -> None:
        dialog = QFileDialog(self, title, QDir.homePath())
        dialog.setFileMode(mode)
        if kinds:
            dialog.setNameFilter(kinds)
        else:
            dialog.setOption(QFileDialog.Option.ShowDirsOnly)
        dialog.setAttribute(Qt.WidgetAttribute.WA_DeleteOnClose)
        dialog.fileSelected.connect(self.picked)
        dialog.open()

    def _activate(self, index: int) -> None:
        name = self.box.itemData(index)
        if isinstance(name, str):
            self.picked.emit(name)

    def _enter(self) -> None:
        """Handle Enter: list entries are reported by `activated`; any other text must be a name."""
        text = self.box.currentText().strip()
        if not text or self.box.findText(text, Qt.MatchFlag.MatchFixedString) >= 0:
            return
        if names_a_model(text):
            self.picked.emit(model_name(text))
        else:
            words = self.tr("No model named {}. Enter a path, or a Hub id such as owner/name.")
            self.show_message(words.format(text), "bad")


_TIP = Qt.ItemDataRole.ToolTipRole
