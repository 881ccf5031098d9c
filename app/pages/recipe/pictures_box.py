"""Pairs of pictures and text for calibration, for models that read pictures; optional."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QMenu, QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from core.files import expanded


class PicturesBox(QWidget):
    """The path of a folder of pictures with captions, or of a JSON lines file.

    Signals:
        chosen: The user selected an existing path, or cleared the field ("").
    """

    chosen = Signal(str)

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._pictures = ""
        label = TintedLabel(theme, self.tr("Calibration pictures (optional)"), bold=True, parent=self)
        self._edit = QLineEdit(self)
        self._edit.setObjectName("pictures")
        self._edit.setAccessibleName(self.tr("Path of pictures with texts"))
        self._edit.setPlaceholderText(self.tr("folder or jsonl file"))
        self._edit.editingFinished.connect(self._settle)
        label.setBuddy(self._edit)
        self._browse = QPushButton(self.tr("Browse\N{HORIZONTAL ELLIPSIS}"), self)
        self._browse.setObjectName("pictures-browse")
        self._browse.setAccessibleName(self.tr("Select calibration pictures"))
        self._browse.setAutoDefault(False)
        menu = QMenu(self._browse)
        menu.addAction(self.tr("Folder\N{HORIZONTAL ELLIPSIS}"), self._choose_folder)
        menu.addAction(self.tr("JSON lines file\N{HORIZONTAL ELLIPSIS}"), self._choose_file)
        self._browse.setMenu(menu)
        self._note = Note(theme, parent=self)
        self._note.setObjectName("pictures-note")
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._edit, 1)
        row.addWidget(self._browse)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 8, 0, 0)
        column.setSpacing(8)
        column.addWidget(label)
        column.addLayout(row)
        column.addWidget(self._note)
        self._explain()

    def show_value(self, pictures: str, *, possible: bool) -> None:
        """Show the selected path; the box is visible only if the model reads pictures (`possible`)."""
        self.setVisible(possible)
        if pictures != self._pictures:
            self._pictures = pictures
            self._edit.setText(pictures)
            self._explain()

    def _explain(self) -> None:
        text = self.tr(
            "Pictures, each with a .txt file of the same name, or a .jsonl file with the fields image and text"
        )
        self._note.set_text(text, "muted")

    def _choose_folder(self) -> None:
        self._take(QFileDialog.getExistingDirectory(self, self.tr("Calibration pictures"), self._edit.text()))

    def _choose_file(self) -> None:
        kinds = self.tr("JSON lines (*.jsonl)")
        self._take(QFileDialog.getOpenFileName(self, self.tr("Calibration pictures"), self._edit.text(), kinds)[0])

    def _take(self, path: str) -> None:
        if path:
            self._edit.setText(path)
            self._settle()

    def _settle(self) -> None:
        """Accept the path, or show why it cannot be used; the previous one then stays selected."""
        written = self._edit.text().strip()
        path = str(expanded(written).absolute()) if written else ""
        if path and not Path(path).exists():
            self._note.set_text(self.tr("{path} does not exist.").format(path=path), "bad")
            path = ""
        else:
            self._explain()
        if path != self._pictures:
            self._pictures = path
            self.chosen.emit(path)
