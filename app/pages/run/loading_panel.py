"""Code that loads a checkpoint in other programs, one program at a time, with remarks."""

from __future__ import annotations

from collections.abc import Sequence

from PySide6.QtCore import Qt
from PySide6.QtGui import QResizeEvent
from PySide6.QtWidgets import QComboBox, QHBoxLayout, QWidget

from app.theme import Theme
from app.widgets.code_view import CodeView
from app.widgets.panel import Panel
from app.widgets.tinted_label import TintedLabel
from core.report.loading_snippets import Snippet, Support

_MARKS: dict[Support, tuple[str, str]] = {
    "tested": ("Tested", "good"),
    "documented": ("Supported according to its documentation", "muted"),
    "partly": ("Partly supported", "warning"),
    "no": ("Not supported", "bad"),
}


class LoadingPanel(Panel):
    """A choice of programs, and the code for the chosen one."""

    def __init__(self, theme: Theme, parent: QWidget | None = None) -> None:
        super().__init__(theme, parent)
        self.setObjectName("loading_panel")
        self._snippets: tuple[Snippet, ...] = ()
        self._program = QComboBox()
        self._program.setObjectName("loading_program")
        self._program.currentIndexChanged.connect(self._show)
        label = TintedLabel(theme, self.tr("Load &in"), bold=True)
        label.setBuddy(self._program)
        self._mark = TintedLabel(theme)
        self._mark.setObjectName("loading_mark")
        self._note = TintedLabel(theme, role="muted", wrap=True)
        self._note.setObjectName("loading_note")
        self._code = CodeView(theme)
        theme.changed.connect(self._code.update_style)
        row = QHBoxLayout()
        row.setSpacing(12)
        row.addWidget(label)
        row.addWidget(self._program)
        row.addWidget(self._mark)
        row.addStretch(1)
        self.column.addLayout(row)
        self.column.addWidget(self._note)
        self.column.addWidget(self._code)

    def show_snippets(self, snippets: Sequence[Snippet]) -> None:
        """Offer these programs and show the first."""
        self._snippets = tuple(snippets)
        self._program.blockSignals(True)
        self._program.clear()
        self._program.addItems([snippet.name for snippet in snippets])
        self._program.blockSignals(False)
        self._show(0)

    def take_focus(self) -> None:
        """Set the focus to the choice of programs."""
        self._program.setFocus(Qt.FocusReason.OtherFocusReason)

    def _show(self, number: int) -> None:
        if not 0 <= number < len(self._snippets):
            return
        snippet = self._snippets[number]
        text, role = _MARKS[snippet.support]
        self._mark.setText(text)
        self._mark.set_role(role)
        self._note.setText(snippet.note)
        self._code.setVisible(bool(snippet.code))
        self._code.show_code(snippet.code.rstrip("\n"), snippet.language)
        self._code.color()
        self._fit()

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        self._fit()

    def _fit(self) -> None:
        margins = self.column.contentsMargins()
        self._code.setFixedHeight(self._code.height_at(self.width() - margins.left() - margins.right()))
