"""The Run page: the welcome, an active run, one that ended without a result, or the report of a finished one."""

from __future__ import annotations

from PySide6.QtCore import Qt, Signal
from PySide6.QtGui import QShowEvent
from PySide6.QtWidgets import QLabel, QStackedLayout, QVBoxLayout, QWidget

from app.pages.run.live_view import LiveView
from app.pages.run.report_view import ReportView
from app.pages.run.welcome import RunWelcome
from app.shared.context import Context
from app.shared.run.record import RunRecord
from app.widgets.announcement import announce
from core.report.verdict import judge


class RunPage(QWidget):
    """The page of the window's run.

    Signals:
        dot_changed: `dot` may have changed.
    """

    page_id = "run"
    dot_changed = Signal()

    def __init__(self, context: Context, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self.title = self.tr("Run")
        self._context = context
        self._stale = True
        self._seen: RunRecord | None = None
        self._told: RunRecord | None = None
        self._dot = False
        self.welcome = RunWelcome(context)
        self.loading = QLabel(self.tr("Reading the events of the run."))
        self.loading.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.live = LiveView(context)
        self.report = ReportView(context)
        self.report.closed.connect(self._another)
        ground = _Ground()
        self._views = QStackedLayout(ground)
        for view in (self.welcome, self.loading, self.live, self.report):
            self._views.addWidget(view)
        page = QVBoxLayout(self)
        page.setContentsMargins(24, 16, 24, 16)
        page.addWidget(ground)
        context.runs.changed.connect(self._changed)
        self._changed()

    def dot(self) -> bool:
        """Return whether a run is active, or has ended since the page was last visible."""
        record = self._context.runs.record
        return record is not None and not self._context.runs.loading and (record.active or record is not self._seen)

    def showEvent(self, event: QShowEvent) -> None:
        super().showEvent(event)
        if self._stale:
            self._refresh()
        self._look()

    def _changed(self) -> None:
        record = self._context.runs.record
        self._show_end(record)
        self._stale = True
        if self.isVisible():
            self._refresh()
            self._look()
        self._mark()

    def _refresh(self) -> None:
        self._stale = False
        runs, record = self._context.runs, self._context.runs.record
        if record is None:
            self.welcome.refresh()
            self._views.setCurrentWidget(self.welcome)
        elif runs.loading:
            self._views.setCurrentWidget(self.loading)
        elif record.state == "done":
            if self._views.currentWidget() is not self.report or self.report.record is not record:
                self.report.show_report(record)
            self._views.setCurrentWidget(self.report)
        else:
            self.live.show_record(record)
            self._views.setCurrentWidget(self.live)

    def _look(self) -> None:
        """Clear the dot, as the user sees the page."""
        record = self._context.runs.record
        if record is not None and not record.active:
            self._seen = record
        self._mark()

    def _mark(self) -> None:
        if self.dot() != self._dot:
            self._dot = self.dot()
            self.dot_changed.emit()

    def _show_end(self, record: RunRecord | None) -> None:
        """Report the end of a run once, in the status line and to a screen reader, on any page."""
        if record is None or record.active or record is self._told or self._context.runs.loading:
            return
        self._told = record
        words = judge(record.report).sentence if record.state == "done" else self.tr("The run has ended.")
        if record.state == "cancelled":
            words = self.tr("The run was cancelled. All its files were removed.")
        self._context.show_message(words)
        announce(self, words)

    def _another(self) -> None:
        self._context.runs.clear()
        self._context.go("model")


class _Ground(QWidget):
    """The container of the views."""

    def hasHeightForWidth(self) -> bool:
        """Return False: the views use the available height; otherwise the page would scroll."""
        return False
