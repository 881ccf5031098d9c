"""The formats that a run wrote: size, verification and remarks of each. Shows a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt, Signal
from PySide6.QtWidgets import QGridLayout, QPushButton, QWidget

from app.pages.run.report_facts import OutputFormat, formats_of
from app.theme import Theme
from app.widgets.panel import Panel
from app.widgets.tinted_label import TintedLabel


class FormatList(Panel):
    """A few lines for each format.

    Signals:
        convert_wanted: the user wants to convert the output.
    """

    convert_wanted = Signal()

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self._theme = theme
        self.setObjectName("report_formats")
        self._title = TintedLabel(theme, bold=True)
        self._table = QWidget()
        self.convert = QPushButton(self.tr("Convert to another format"))
        self.convert.setObjectName("convert_output")
        self.convert.clicked.connect(self.convert_wanted)
        self.column.addWidget(self._title)
        self.column.addWidget(self._table)
        self.column.addWidget(self.convert, 0, Qt.AlignmentFlag.AlignLeft)

    def show_formats(self, report: Mapping[str, Any]) -> None:
        """Show the formats of a report."""
        formats = formats_of(report)
        self._title.setText(self.tr("Formats") if len(formats) > 1 else self.tr("Format"))
        self.setVisible(bool(formats))
        table = QWidget()
        grid = QGridLayout(table)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        for number, found in enumerate(formats):
            self._add(grid, 4 * number, found)
        self.column.replaceWidget(self._table, table)
        self._table.hide()
        self._table.deleteLater()
        self._table = table

    def _add(self, grid: QGridLayout, row: int, found: OutputFormat) -> None:
        name = TintedLabel(self._theme, found.title)
        name.setToolTip(found.schemes)
        name.setAccessibleDescription(found.schemes)
        grid.addWidget(name, row, 0)
        grid.addWidget(TintedLabel(self._theme, found.amount), row, 1, Qt.AlignmentFlag.AlignRight)
        checked = found.checked or self.tr("Files not verified")
        label = TintedLabel(self._theme, checked, role="good" if found.checked else "warning", wrap=True)
        label.setObjectName("format_checked")
        grid.addWidget(label, row + 1, 0, 1, 2)
        if found.notes:
            note = TintedLabel(self._theme, "\n".join(found.notes), role="muted", wrap=True)
            note.setObjectName("format_notes")
            grid.addWidget(note, row + 2, 0, 1, 2)
        grid.setRowMinimumHeight(row + 3, 4)
