"""The report of a finished run: a verdict, its figures, the files, and the next steps.

Shows the results of `core.report.verdict` and `core.report.loading_snippets`; opens folders and pages through the
context.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PySide6.QtCore import Qt, QUrl, Signal
from PySide6.QtGui import QDesktopServices, QFont, QGuiApplication, QResizeEvent
from PySide6.QtWidgets import QBoxLayout, QHBoxLayout, QPushButton, QScrollArea, QVBoxLayout, QWidget

from app.pages.run.curve_pane import CurvePane
from app.pages.run.expert_list import ExpertList
from app.pages.run.file_list import FileList
from app.pages.run.format_list import FormatList
from app.pages.run.loading_panel import LoadingPanel
from app.pages.run.report_facts import fact_tips, facts_of, provenance, verified_words
from app.shared.context import Context, Remedy
from app.shared.run.record import RunRecord
from app.theme import Theme
from app.widgets.fact_row import FactRow
from app.widgets.panel import Panel
from app.widgets.tinted_label import TintedLabel
from core.errors import OutputProblem
from core.events import Done
from core.report.loading_snippets import folder_to_open, snippets
from core.report.verdict import Verdict, judge

_WIDEST, _TWO_COLUMNS = 1320, 1040
_HEADING = 1.6
_LINE = 90
"""Maximum line length in average characters, for readability."""


class ReportView(QWidget):
    """A report, with its buttons below.

    Signals:
        closed: the user wants to quantize another model.
    """

    closed = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._context = context
        self._report: Mapping[str, Any] = {}
        self._output = ""
        self._record: RunRecord | None = None
        theme = context.theme
        self._title = TintedLabel(theme, role="muted", wrap=True)
        self._title.setObjectName("report_title")
        self._headline = TintedLabel(theme, bold=True, wrap=True)
        self._headline.setObjectName("verdict")
        font = QFont(self._headline.font())
        font.setPointSizeF(font.pointSizeF() * _HEADING)
        self._headline.setFont(font)
        self._figures = _words(theme, "verdict_figures")
        self._meaning = _words(theme, "verdict_meaning")
        self._notes = _words(theme, "verdict_notes", role="muted")
        self._facts = FactRow(theme, large=True)
        self._facts.setObjectName("report_facts")
        self._verified = _words(theme, "verified")
        self._sample = _words(theme, "sample")
        self._curves = CurvePane(theme)
        self._curves.setMinimumHeight(260)
        self._curves.setMaximumHeight(560)
        self._formats = FormatList(theme)
        self._formats.convert_wanted.connect(self._convert)
        self._experts = ExpertList(theme)
        self._files = FileList(theme)
        self._loading = LoadingPanel(theme)
        self._loading.hide()
        self._scroll = QScrollArea()
        self._columns = QBoxLayout(QBoxLayout.Direction.TopToBottom)
        self._buttons()
        self._lay_out()

    def show_report(self, record: RunRecord) -> None:
        """Show the report of a finished run."""
        if not isinstance(record.last, Done):
            return
        self._record = record
        self._report, self._output = record.last.report, record.last.output
        verdict = judge(self._report)
        self._show_verdict(verdict)
        self._title.setText(provenance(self._report, self._output))
        self._facts.show_facts(facts_of(self._report), fact_tips(self._report))
        words, sound, sample = verified_words(self._report)
        self._verified.setText(words)
        self._verified.set_role("good" if sound else "warning")
        self._sample.setText(sample)
        self._sample.setVisible(bool(sample))
        self._curves.show_record(record)
        self._curves.setVisible(bool(record.blocks))
        self._formats.show_formats(self._report)
        self._experts.show_experts(self._report)
        self._files.show_files(self._report)
        self._loading.show_snippets(snippets(self._report, self._output))
        self._loading.hide()
        self._how.setChecked(False)
        self._check_folder()
        self._scroll.verticalScrollBar().setValue(0)
        self.setAccessibleDescription(verdict.sentence)

    @property
    def record(self) -> RunRecord | None:
        """The run whose report is shown."""
        return self._record

    @property
    def folder(self) -> str:
        """The checkpoint that a chat would load."""
        return folder_to_open(self._report, self._output)

    def resizeEvent(self, event: QResizeEvent) -> None:
        super().resizeEvent(event)
        wide = event.size().width() >= _TWO_COLUMNS
        self._columns.setDirection(QBoxLayout.Direction.LeftToRight if wide else QBoxLayout.Direction.TopToBottom)

    def _show_verdict(self, verdict: Verdict) -> None:
        self._headline.setText(verdict.headline)
        self._headline.set_role("" if verdict.role == "muted" else verdict.role)
        self._figures.setText(verdict.figures)
        meaning = [verdict.meaning, verdict.advice]
        explained = self.tr("Perplexity measures how well a model predicts text; lower is better.")
        self._meaning.setText(" ".join(text for text in (*meaning, explained) if text))
        self._notes.setText("\n".join(verdict.notes))
        self._notes.setVisible(bool(verdict.notes))

    def _check_folder(self) -> None:
        """Disable the buttons if the output was moved or removed."""
        there = Path(self._output).is_dir()
        for button in (self._chat, self._open, self._formats.convert):
            button.setEnabled(there)
            button.setToolTip("" if there else self.tr("The folder no longer exists"))

    def _buttons(self) -> None:
        self._chat = QPushButton(self.tr("Chat with model"))
        self._chat.setObjectName("next")
        self._chat.setAutoDefault(True)
        self._chat.clicked.connect(self._start_chat)
        self._open = QPushButton(self.tr("Open folder"))
        self._open.setObjectName("open_folder")
        self._open.clicked.connect(self._open_folder)
        self._how = QPushButton(self.tr("Show loading code"))
        self._how.setObjectName("show_loading")
        self._how.setCheckable(True)
        self._how.toggled.connect(self._toggle_loading)
        self._another = QPushButton(self.tr("Quantize another model"))
        self._another.setObjectName("another")
        self._another.clicked.connect(self.closed)

    def _lay_out(self) -> None:
        theme = self._context.theme
        verdict = Panel(theme)
        verdict.column.setContentsMargins(20, 16, 20, 16)
        verdict.column.addLayout(self._narrow(self._headline, self._figures, self._meaning))
        verdict.column.addSpacing(8)
        verdict.column.addWidget(self._facts)
        verdict.column.addSpacing(8)
        verdict.column.addLayout(self._narrow(self._verified, self._sample, self._notes))
        side = QVBoxLayout()
        side.setSpacing(16)
        side.addWidget(self._formats)
        side.addWidget(self._experts)
        side.addWidget(self._files)
        side.addStretch(1)
        self._columns.setSpacing(16)
        self._columns.addWidget(self._curves, 7)
        self._columns.addLayout(side, 3)
        inner = QWidget()
        inner.setMaximumWidth(_WIDEST)
        column = QVBoxLayout(inner)
        column.setContentsMargins(0, 0, 8, 0)
        column.setSpacing(16)
        column.addWidget(self._title)
        column.addWidget(self._loading)
        column.addWidget(verdict)
        column.addLayout(self._columns, 1)
        column.addStretch()
        self._scroll.setObjectName("report_scroll")
        self._scroll.setAccessibleName(self.tr("Report"))
        self._scroll.setFrameShape(QScrollArea.Shape.NoFrame)
        self._scroll.setWidgetResizable(True)
        self._scroll.setHorizontalScrollBarPolicy(Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        self._scroll.setWidget(inner)
        self._scroll.setAlignment(Qt.AlignmentFlag.AlignHCenter | Qt.AlignmentFlag.AlignTop)
        foot = QWidget()
        foot.setMaximumWidth(_WIDEST)
        row = QHBoxLayout(foot)
        row.setContentsMargins(0, 0, 0, 0)
        row.setSpacing(8)
        row.addWidget(self._another)
        row.addStretch(1)
        for button in (self._how, self._open, self._chat):
            row.addWidget(button)
        page = QVBoxLayout(self)
        page.setContentsMargins(0, 0, 0, 0)
        page.setSpacing(12)
        page.addWidget(self._scroll, 1)
        middle = QHBoxLayout()
        middle.addStretch(1)
        middle.addWidget(foot, 1000)
        middle.addStretch(1)
        page.addLayout(middle)

    def _narrow(self, *labels: QWidget) -> QHBoxLayout:
        """Return a column of texts whose line length does not grow with the window."""
        holder = QWidget()
        holder.setMaximumWidth(_LINE * self.fontMetrics().averageCharWidth())
        column = QVBoxLayout(holder)
        column.setContentsMargins(0, 0, 0, 0)
        column.setSpacing(8)
        for label in labels:
            column.addWidget(label)
        row = QHBoxLayout()
        row.addWidget(holder, 1000)
        row.addStretch(1)
        return row

    def _start_chat(self) -> None:
        self._context.state.set_value("chat/model", self.folder)
        self._context.go("chat")

    def _convert(self) -> None:
        self._context.state.set_value("convert/source", self.folder)
        self._context.go("convert")

    def _open_folder(self) -> None:
        if QDesktopServices.openUrl(QUrl.fromLocalFile(self._output)):
            return
        copy = Remedy(self.tr("Copy the path"), lambda: QGuiApplication.clipboard().setText(self._output))
        self._context.report(
            OutputProblem("The folder could not be opened in a file manager.", f"Its path is {self._output}."), copy
        )

    def _toggle_loading(self, shown: bool) -> None:
        self._loading.setVisible(shown)
        if shown:
            self._scroll.verticalScrollBar().setValue(0)
            self._loading.take_focus()


def _words(theme: Theme, name: str, role: str = "") -> TintedLabel:
    label = TintedLabel(theme, role=role, wrap=True)
    label.setObjectName(name)
    label.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
    return label
