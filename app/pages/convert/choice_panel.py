"""The selected conversion: its explanation, the output folder, the consent to changed weights, and the button."""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QCheckBox, QHBoxLayout, QLabel, QPushButton, QVBoxLayout, QWidget

from app.pages.convert.conversion_words import choice_text, choice_title
from app.shared.resource_needs import disk_problem
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.note import Note
from app.widgets.output_field import OutputField
from app.widgets.primary_button import make_primary
from core.conversion.survey import ConversionOption


class ChoicePanel(QWidget):
    """The panel below the table while no conversion is active.

    Signals:
        output_chosen(str): the user chose this folder; "" for the suggested one.
        asked: the button was pressed, and the conversion can start.
    """

    output_chosen = Signal(str)
    asked = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._row: ConversionOption | None = None
        self._output = Path()
        self._title = ElidedLabel(theme, bold=True, parent=self)
        self._title.setObjectName("choice_title")
        self._text = Note(theme, parent=self)
        self._text.setObjectName("choice_text")
        self.output = OutputField(theme, self, maker=self.tr("the conversion"))
        self._folder = QLabel(self.tr("&Output folder"), self)
        self._folder.setBuddy(self.output)
        self._folder.setContentsMargins(0, 5, 0, 0)  # aligned with the field, not with the note below it
        self.allow = QCheckBox(self.tr("&Allow changed weights"), self)
        self.allow.setObjectName("allow_error")
        self._reason = ElidedLabel(theme, role="muted", parent=self)
        self._reason.setObjectName("convert_reason")
        self.button = make_primary(QPushButton(self.tr("&Convert"), self), theme)
        self.button.setObjectName("next")
        where = QHBoxLayout()
        where.setSpacing(12)
        where.addWidget(self._folder, 0, Qt.AlignmentFlag.AlignTop)
        where.addWidget(self.output, 1)
        last = QHBoxLayout()
        last.setSpacing(12)
        last.addWidget(self.allow)
        last.addWidget(self._reason, 1)
        last.addWidget(self.button)
        column = QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        column.addWidget(self._title)
        column.addWidget(self._text)
        column.addLayout(where)
        column.addLayout(last)
        self.output.chosen.connect(self.output_chosen)
        self.output.judged.connect(self._judge)
        self.allow.toggled.connect(self._judge)
        self.button.clicked.connect(self.asked)

    def show_row(self, row: ConversionOption | None, chosen: str, output: Path) -> None:
        """Show a row, the folder chosen by the user ("" for the suggested one), and the resulting folder."""
        if row != self._row:
            self.allow.setChecked(False)
        self._row, self._output = row, output
        self._title.setText(choice_title(row) if row is not None else "")
        self._text.set_text(choice_text(row) if row is not None else "")
        can = row is not None and row.verdict != "no"
        for widget in (self._folder, self.output):
            widget.setVisible(can)
        self.allow.setVisible(row is not None and row.verdict == "inexact")
        if can:
            self.output.show_output(chosen, output)
        self._judge()

    @property
    def obstacle(self) -> str:
        """Return the reason why the conversion cannot start, as a short phrase; "" if it can."""
        row = self._row
        if row is None:
            return self.tr("Select a format in the table")
        if row.verdict == "no":
            return self.tr("Select another format")
        if row.verdict == "inexact" and not self.allow.isChecked():
            return self.tr("Allow changed weights to continue")
        if self.output.problem:
            return self.tr("Choose another folder")
        return disk_problem(row.nbytes, self._output) if row.nbytes else ""

    def _judge(self) -> None:
        why = self.obstacle
        self._reason.setText(why)
        self.button.setEnabled(not why)
        self.button.setToolTip(why)
