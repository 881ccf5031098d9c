"""The files of an output with their sizes, and the layers that deviate from the bits map. Shows a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QGridLayout, QWidget

from app.pages.run.report_facts import fallbacks_of, files_of
from app.theme import Theme
from app.widgets.elided_label import ElidedLabel
from app.widgets.panel import Panel
from app.widgets.tinted_label import TintedLabel
from core.wording import human

_MOST = 14


class FileList(Panel):
    """The largest files by name, and the number of the others."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self._theme = theme
        self.setObjectName("report_files")
        self._table = QWidget()
        self.column.addWidget(TintedLabel(theme, self.tr("Files"), bold=True))
        self.column.addWidget(self._table)
        self._fell_back = TintedLabel(theme, self.tr("Deviations from the bits map"), bold=True)
        self._reasons = TintedLabel(theme, role="muted", wrap=True)
        self._reasons.setObjectName("fallbacks")
        self.column.addWidget(self._fell_back)
        self.column.addWidget(self._reasons)

    def show_files(self, report: Mapping[str, Any]) -> None:
        """Show the files and the fallbacks of a report."""
        table = QWidget()
        grid = QGridLayout(table)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(16)
        grid.setVerticalSpacing(4)
        grid.setColumnStretch(0, 1)
        files = files_of(report)
        for row, file in enumerate(files[:_MOST]):
            name = ElidedLabel(text=file.path, middle=True)
            size = TintedLabel(self._theme, human(file.size))
            size.setToolTip(self.tr("{count} bytes").format(count=f"{file.size:,}"))
            grid.addWidget(name, row, 0)
            grid.addWidget(size, row, 1, Qt.AlignmentFlag.AlignRight)
        if len(files) > _MOST:
            rest = files[_MOST:]
            text = self.tr("and {count} more").format(count=len(rest))
            grid.addWidget(TintedLabel(self._theme, text, role="muted"), _MOST, 0)
            total = TintedLabel(self._theme, human(sum(file.size for file in rest)), role="muted")
            grid.addWidget(total, _MOST, 1, Qt.AlignmentFlag.AlignRight)
        self.column.replaceWidget(self._table, table)
        self._table.hide()
        self._table.deleteLater()
        self._table = table
        reasons = fallbacks_of(report)
        self._reasons.setText("\n".join(reasons[:_MOST]))
        self._fell_back.setVisible(bool(reasons))
        self._reasons.setVisible(bool(reasons))
