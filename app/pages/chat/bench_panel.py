"""The speed of prefill and decode of the loaded model at several prompt lengths: a button, a table and curves.

The panel follows the session that it is given. The service also stores the figures in the report of the run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QGridLayout, QHBoxLayout, QLabel, QProgressBar, QPushButton, QVBoxLayout, QWidget

from app.pages.chat.bench_plot import BenchPlot
from app.pages.chat.bench_rows import as_text, summary
from app.shared.context import Context
from app.widgets.note import Note
from app.widgets.tinted_label import TintedLabel
from core.errors import BitwrightError
from core.events import Event, Progress
from core.inference.figures import SpeedReport
from core.service.messages import MeasureSpeed
from core.wording import duration, figure

if TYPE_CHECKING:
    from app.pages.chat.session import ChatSession


class BenchPanel(QWidget):
    """The speed measurement of a session's model; disabled without a session."""

    def __init__(self, context: Context, session: ChatSession | None, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        theme = context.theme
        self._theme, self._session = theme, session
        self._bench = SpeedReport()
        self._measured = ""
        self._mine = False
        self._go = QPushButton(self)
        self._go.setObjectName("bench")
        self._go.setToolTip(
            self.tr("Process prompts of several lengths and generate answers; takes about half a minute")
        )
        self._go.clicked.connect(self._press)
        self._copy = QPushButton(self.tr("Copy"), self)
        self._copy.setObjectName("bench_copy")
        self._copy.setAccessibleName(self.tr("Copy speed table"))
        self._copy.setToolTip(self.tr("Copy the table as tab-separated text"))
        self._copy.clicked.connect(lambda: QGuiApplication.clipboard().setText(as_text(self._bench.rows)))
        self._bar = QProgressBar(self)
        self._bar.setTextVisible(False)
        self._bar.setFixedHeight(6)
        self._bar.setRange(0, 1000)
        self._bar.setAccessibleName(self.tr("Progress of the measurement"))
        self._note = Note(theme, parent=self)
        self._note.setObjectName("bench_note")
        self._table = QWidget(self)
        self._table.setObjectName("bench_table")
        self._plot = BenchPlot(theme, self)
        self._below = Note(theme, parent=self)
        self._below.setObjectName("bench_summary")
        row = QHBoxLayout()
        row.setSpacing(8)
        row.addWidget(self._go, 1)
        row.addWidget(self._copy)
        self._column = QVBoxLayout(self)
        self._column.setContentsMargins(0, 0, 0, 0)
        self._column.setSpacing(6)
        self._column.addWidget(TintedLabel(theme, self.tr("Speed"), bold=True, parent=self))
        self._column.addLayout(row)
        for widget in (self._bar, self._note, self._table, self._plot, self._below):
            self._column.addWidget(widget)
        if session is not None:
            session.changed.connect(self._follow)
        self._show_rows()
        self._follow()

    @property
    def bench(self) -> SpeedReport:
        """The last measurement."""
        return self._bench

    def _press(self) -> None:
        session = self._session
        if session is None:
            return
        if self._mine:
            session.stop()
            return
        self._note.set_text("")
        self._bar.setValue(0)
        self._mine = True
        self._measured = session.model
        begun = session.measure(
            MeasureSpeed(), on_success=self._done, on_failure=self._failed, on_event=self._handle_event
        )
        self._mine = self._mine and begun
        self._follow()

    def _handle_event(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._bar.setValue(round(1000 * max(0.0, event.fraction)))

    def _done(self, report: SpeedReport) -> None:
        self._bench = report
        self._show_rows()

    def _failed(self, error: BitwrightError) -> None:
        self._note.set_text(str(error), "bad")

    def _follow(self) -> None:
        """Update the button for the state of the session; discard figures of another model."""
        session = self._session
        state = session.state if session is not None else "idle"
        self._mine = self._mine and state == "measuring"
        if session is not None and self._bench.rows and session.model != self._measured:
            self._bench = SpeedReport()
            self._show_rows()
        reasons = {
            "idle": self.tr("Load a model to measure its speed."),
            "loading": self.tr("The model is loading."),
            "answering": self.tr("The model is generating an answer."),
        }
        self._go.setText(self.tr("Stop") if self._mine else self.tr("Measure speed"))
        self._go.setEnabled(self._mine or state == "ready")
        self._bar.setVisible(self._mine)
        if self._note.role != "bad" or state in ("idle", "loading"):
            self._note.set_text(reasons.get(state, "") if not self._bench.rows else "")

    def _show_rows(self) -> None:
        rows = self._bench.rows
        fresh = self._make_table()
        self._column.replaceWidget(self._table, fresh)
        self._table.hide()
        self._table.deleteLater()
        self._table = fresh
        self._table.setVisible(bool(rows))
        self._plot.setVisible(len(rows) > 1)
        self._plot.show_rows(rows)
        self._copy.setVisible(bool(rows))
        words = [summary(self._bench)]
        if self._bench.report_path:
            words.append(self.tr("Saved to the report of the run."))
        self._below.set_text(" ".join(filter(None, words)) if rows else "")
        self._below.setToolTip(self._bench.report_path)

    def _make_table(self) -> QWidget:
        """Return the table; a screen reader reads each row as a whole."""
        table = QWidget(self)
        table.setObjectName("bench_table")
        grid = QGridLayout(table)
        grid.setContentsMargins(0, 0, 0, 0)
        grid.setHorizontalSpacing(8)
        grid.setVerticalSpacing(2)
        titles = (
            (self.tr("Prompt"), self.tr("Prompt length in tokens")),
            (self.tr("Prefill"), self.tr("Prompt processing, tokens per second")),
            (self.tr("First"), self.tr("Time to first token")),
            (self.tr("Decode"), self.tr("Generation, tokens per second")),
        )
        for column, (title, why) in enumerate(titles):
            label = TintedLabel(self._theme, title, role="muted", parent=table)
            label.setToolTip(why)
            label.setAlignment(_side(column))
            grid.addWidget(label, 0, column)
            grid.setColumnStretch(column, 1)
        for line, row in enumerate(self._bench.rows, 1):
            cells = (
                self.tr("{:,} tok").format(row.prompt_tokens), f"{figure(row.prefill_tokens_per_second)}/s",
                duration(row.first_token_seconds),
                f"{figure(row.decode_tokens_per_second)}/s",
            )  # fmt: skip
            for column, text in enumerate(cells):
                cell = QLabel(text, table)
                cell.setAlignment(_side(column))
                cell.setAccessibleName(f"{titles[column][1]}: {text}")
                cell.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
                grid.addWidget(cell, line, column)
        return table


def _side(column: int) -> Qt.AlignmentFlag:
    return (Qt.AlignmentFlag.AlignLeft if column == 0 else Qt.AlignmentFlag.AlignRight) | Qt.AlignmentFlag.AlignVCenter
