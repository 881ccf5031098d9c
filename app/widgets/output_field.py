"""The output folder of a model: a suggested folder, or one that the user enters, with validation.

The validation creates and removes an empty folder.
"""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QDir, Signal
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app.theme import Theme
from app.widgets.note import Note
from core.errors import BitwrightError
from core.estimation.preflight import check_output
from core.files import expanded, free_bytes
from core.wording import human


class OutputField(QWidget):
    """A path field and its error.

    Signals:
        chosen: the selected folder, "" for the suggested one.
        judged: The folder was validated (see `problem`).
    """

    chosen = Signal(str)
    judged = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None, *, maker: str = "") -> None:
        """Create the field; `maker` is the name of the process that creates the folder, "the run" by default."""
        super().__init__(parent)
        self._maker = maker or self.tr("the run")
        self._chosen = ""
        self._checked: Path | None = None
        self._path = Path()
        self.problem = ""
        self._edit = QLineEdit(self)
        self._edit.setObjectName("output")
        self._edit.setAccessibleName(self.tr("Output folder"))
        self._edit.editingFinished.connect(self._settle)
        self._browse = QPushButton(self.tr("Browse\N{HORIZONTAL ELLIPSIS}"), self)
        self._browse.setObjectName("output-browse")
        self._browse.setAccessibleName(self.tr("Select the output folder"))
        self._browse.setAutoDefault(False)
        self._browse.clicked.connect(self._choose)
        self._suggest = QPushButton(self.tr("Suggested"), self)
        self._suggest.setObjectName("output-suggested")
        self._suggest.setAccessibleName(self.tr("Use the suggested folder"))
        self._suggest.setAutoDefault(False)
        self._suggest.clicked.connect(lambda: self._take(""))
        self._note = Note(theme, parent=self)
        self._note.setObjectName("output-note")
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._edit, 1)
        row.addWidget(self._browse)
        row.addWidget(self._suggest)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(4)
        column.addLayout(row)
        column.addWidget(self._note)
        self.setFocusProxy(self._edit)

    def show_output(self, chosen: str, path: Path) -> None:
        """Show the selected folder ("" for the suggested one) and the resulting path; validate a new one."""
        if chosen != self._chosen or not self._edit.hasFocus():
            self._edit.setText(chosen)
        self._chosen, self._path = chosen, path
        self._edit.setPlaceholderText(str(path))
        self._edit.setToolTip(str(path))
        self._suggest.setVisible(bool(chosen))
        if path != self._checked:
            self.check()

    def check(self) -> None:
        """Validate again, as a run may have written to the folder."""
        self._checked = self._path
        try:
            check_output(self._path)
        except BitwrightError as error:
            self.problem = error.message
            self._note.set_text(str(error), "bad")
        else:
            self.problem = ""
            free = human(free_bytes(self._path))
            whose = self.tr("Suggested folder") if not self._chosen else self.tr("Your folder")
            words = self.tr("{whose}, created by {maker}; {free} free.")
            self._note.set_text(words.format(whose=whose, maker=self._maker, free=free))
        self.judged.emit()

    def _settle(self) -> None:
        text = self._edit.text().strip()
        self._take(str(expanded(text).absolute()) if text else "")

    def _choose(self) -> None:
        start = self._path.parent if self._path.parent.is_dir() else Path(QDir.homePath())
        folder = QFileDialog.getExistingDirectory(self, self.tr("Output folder"), str(start))
        if not folder:
            return
        picked = Path(folder)
        # a folder that is not empty becomes the parent of the new one
        taken = picked.is_dir() and any(picked.iterdir())
        self._take(str(picked / self._path.name) if taken else str(picked))

    def _take(self, chosen: str) -> None:
        if chosen != self._chosen:
            self.chosen.emit(chosen)
