"""The calibration text of a run: the bundled text, a file, or a data set on the Hub, with a preview on request.

A data set is downloaded only by the preview or by the run.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from PySide6.QtCore import Signal
from PySide6.QtWidgets import QFileDialog, QHBoxLayout, QLineEdit, QPushButton, QVBoxLayout, QWidget

from app.pages.recipe.calibration_source import EXAMPLE, found_text, kind_of, named, use_text
from app.pages.recipe.text_preview import TextPreview
from app.shared.context import Context
from app.widgets.note import Note
from app.widgets.segmented import Option, Segmented
from core.calibration.preview import Preview
from core.errors import BitwrightError
from core.events import Event, Log
from core.recipes import Recipe
from core.service.messages import PreviewText


class CalibrationBox(QWidget):
    """The source, the number of tokens used, and a preview of the first rows.

    Signals:
        chosen: The user selected an existing file, or a valid id of a data set.
    """

    chosen = Signal(str)

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._call: Any = None
        self._asked: PreviewText | None = None
        self._calibration: str | None = None
        self._request = PreviewText("builtin", 0, 0, 0)
        theme = context.theme
        self._kind = Segmented(
            theme,
            (
                Option(
                    "builtin", self.tr("Bundled text"), tip=self.tr("Books, dialogue and code included in Bitwright")
                ),
                Option("file", self.tr("File"), tip=self.tr("Text, JSON, CSV or Parquet file")),
                Option("hub", self.tr("Hub data set"), tip=self.tr("Data set on the Hugging Face Hub")),
            ),
            self,
        )
        self._kind.setObjectName("calibration-kind")
        self._kind.chosen.connect(self._choose_kind)
        self._edit = QLineEdit(self)
        self._edit.setObjectName("calibration")
        self._edit.editingFinished.connect(self._settle)
        self._edit.textEdited.connect(self._typed)
        self._browse = QPushButton(self.tr("Browse\N{HORIZONTAL ELLIPSIS}"), self)
        self._browse.setObjectName("calibration-browse")
        self._browse.setAccessibleName(self.tr("Select a calibration file"))
        self._browse.setAutoDefault(False)
        self._browse.clicked.connect(self._choose_file)
        self._problem = Note(theme, role="bad", parent=self)
        self._problem.setObjectName("calibration-problem")
        self._use = Note(theme, parent=self)
        self._use.setObjectName("calibration-use")
        self._preview = QPushButton(self.tr("Preview"), self)
        self._preview.setObjectName("calibration-preview")
        self._preview.setAutoDefault(False)
        self._preview.clicked.connect(self._start_or_stop)
        self._found = Note(theme, parent=self)
        self._found.setObjectName("calibration-found")
        self._rows = TextPreview(self)
        self._lay_out()
        self._arrange()

    def show_values(self, request: PreviewText, use: Recipe) -> None:
        """Show the selected text and how many tokens of it a run uses.

        Args:
            request: for a preview; with `model` "" tokens are not counted.
            use: the recipe that sets the number of tokens.
        """
        calibration = request.calibration
        if calibration != self._calibration:
            self._calibration = calibration
            kind = kind_of(calibration)
            self._kind.set_value(kind)
            self._edit.setText("" if kind == "builtin" else calibration)
            self._object("")
            self._arrange()
        self._use.set_text(use_text(use))
        if self._asked is not None and self._asked != request:
            self._forget()
        self._request = request

    def stop(self) -> None:
        """Stop the current preview."""
        if self._call is not None:
            self._call.stop()

    def _lay_out(self) -> None:
        line = QHBoxLayout()
        line.setSpacing(8)
        line.addWidget(self._edit, 1)
        line.addWidget(self._browse)
        below = QHBoxLayout()
        below.setSpacing(8)
        below.addWidget(self._use, 1)
        below.addWidget(self._preview)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self._kind)
        column.addLayout(line)
        column.addWidget(self._problem)
        column.addLayout(below)
        column.addWidget(self._found)
        column.addWidget(self._rows)

    def _object(self, text: str, role: str = "bad") -> None:
        """Show the error of the input and hide the preview."""
        self._problem.set_text(text, role)
        self._preview.setEnabled(self._call is not None or not text)

    def _typed(self) -> None:
        self._object("")

    def _choose_kind(self, kind: str) -> None:
        self._object("")
        self._arrange()
        if kind == "builtin":
            self._take("builtin")
            return
        if self._calibration is not None and kind_of(self._calibration) == kind:
            return
        self._edit.clear()
        self._show_missing(kind)

    def _arrange(self) -> None:
        kind = self._kind.value
        self._edit.setVisible(kind in ("file", "hub"))
        self._browse.setVisible(kind == "file")
        if kind == "hub":
            self._edit.setPlaceholderText(self.tr("such as {name}").format(name=EXAMPLE))
            self._edit.setAccessibleName(self.tr("Id of a data set on the Hub"))
        else:
            self._edit.setPlaceholderText(self.tr("txt, md, json, jsonl, csv or parquet"))
            self._edit.setAccessibleName(self.tr("Path of a calibration file"))

    def _choose_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, self.tr("Calibration text"), self._edit.text())
        if path:
            self._edit.setText(path)
            self._settle()

    def _settle(self) -> None:
        """Accept the input or show its error when editing has finished; an empty field is not an error."""
        kind, written = self._kind.value, self._edit.text()
        if not written.strip():
            self._show_missing(kind)
            return
        try:
            calibration = named(kind, written)
        except BitwrightError as error:
            self._object(str(error))
            return
        self._object("")
        self._take(calibration)

    def _show_missing(self, kind: str) -> None:
        try:
            named(kind, "")
        except BitwrightError as error:
            self._object(str(error), "muted")
        self._take("builtin")

    def _take(self, calibration: str) -> None:
        if calibration != self._calibration:
            # set before the signal, so that an empty field of another kind stays open
            self._calibration = calibration
            self.chosen.emit(calibration)

    def _start_or_stop(self) -> None:
        if self._call is not None:
            self._forget()
            return
        self._forget()
        asked = self._asked = replace(self._request)
        self._found.set_text(self.tr("Reading the text"))
        self._preview.setText(self.tr("Stop"))
        self._call = self._context.calls.start(
            asked,
            on_success=lambda preview: self._end(asked, preview=preview),
            on_failure=lambda error: self._end(asked, error=error),
            on_event=lambda event: self._show_event(asked, event),
        )

    def _show_event(self, asked: PreviewText, event: Event) -> None:
        if asked is self._asked and isinstance(event, Log):
            self._found.set_text(event.message)

    def _end(self, asked: PreviewText, *, preview: Preview | None = None, error: BitwrightError | None = None) -> None:
        if asked is not self._asked:
            return  # the selection changed meanwhile
        self._call = None
        self._preview.setText(self.tr("Preview"))
        if preview is not None:
            self._found.set_text(found_text(preview))
            self._rows.show_rows(preview.rows)
        else:
            self._found.set_text(str(error), "bad")

    def _forget(self) -> None:
        """Remove or stop a preview that does not belong to the current text."""
        self.stop()
        self._call = self._asked = None
        self._preview.setText(self.tr("Preview"))
        self._found.set_text("")
        self._rows.show_rows(())
