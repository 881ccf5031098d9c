"""Connection of the choices and the run to the job bar, the status line and the log.

Depends on `Draft` and `Runs`, and on the widgets only for what they show.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from itertools import islice

from PySide6.QtCore import QObject, QTimer

from app.frame.job_bar import JobBar
from app.frame.job_summary import Facts, facts_of, facts_of_run, primary_of, stage_of
from app.frame.status_line import StatusLine
from app.logs import LogFeed
from app.shared.context import Context, Remedy
from app.shared.run.record import RunRecord
from core.errors import BitwrightError

_LOOK_MS = 2000

_log = logging.getLogger(__name__)


class JobControl(QObject):
    """The job of one window.

    Args:
        chat_with: shows the chat page with the model in a folder; page: returns the id of the current page.

    Attributes:
        told: the message about the last run that is shown above another page; the Run page shows it itself.
    """

    def __init__(
        self,
        context: Context,
        bar: JobBar,
        status: StatusLine,
        feed: LogFeed,
        chat_with: Callable[[str], object],
        page: Callable[[], str],
        parent: QObject | None = None,
    ) -> None:
        super().__init__(parent)
        self._context, self._bar, self._status, self._feed = context, bar, status, feed
        self._chat_with, self._page = chat_with, page
        self._facts: Facts | None = None
        self._unchanged = False
        """True if the choices are those of the last run."""
        self._logged: tuple[RunRecord | None, int] = (None, 0)
        self.told = ""
        bar.triggered.connect(self.act)
        bar.cancel_asked.connect(self.cancel)
        context.draft.changed.connect(self._choices_changed)
        context.draft.machine_changed.connect(self.refresh)
        context.draft.model_changed.connect(self._remember_model)
        context.runs.started.connect(self._begun)
        context.runs.changed.connect(self.refresh)
        context.runs.ended.connect(self._ended)
        context.runs.refused.connect(self._refused)
        # free disk space changes without a notification
        self._look = QTimer(self, interval=_LOOK_MS)
        self._look.timeout.connect(self._look_again)
        self._look.start()
        self.refresh()

    def refresh(self) -> None:
        """Update the job bar, the status line and the log."""
        draft, runs = self._context.draft, self._context.runs
        record, active = runs.record, runs.active
        finished = record is not None and record.state == "done" and self._unchanged
        problem = "" if active or finished else draft.problem()
        self._bar.show_primary(primary_of(record, active, problem, finished))
        if not active or record is None:
            self._bar.show_facts(facts_of(draft))
        elif self._facts is not None:
            self._bar.show_facts(self._facts)
        else:
            self._bar.show_facts(facts_of_run(record, draft.machine))
        self._status.set_running("run", stage_of(record, active))
        if active and record is not None:
            self._pass_log_on(record)

    def act(self, action: str) -> None:
        """Perform the action of the main button."""
        draft, runs = self._context.draft, self._context.runs
        if action == "start":
            self._context.go("run")
            runs.start(draft.spec())
        elif action == "pause":
            runs.pause()
        elif action == "resume":
            runs.resume()
        elif action == "chat" and runs.record is not None and runs.record.spec is not None:
            self._chat_with(runs.record.spec.output)

    def cancel(self) -> None:
        """Cancel the run, if one is active."""
        if self._context.runs.active:
            self._context.runs.cancel()

    def _choices_changed(self) -> None:
        self._unchanged = False
        self.refresh()

    def _begun(self) -> None:
        """Remember the choices of a run that starts, and its facts if it was started from them."""
        draft, record = self._context.draft, self._context.runs.record
        spec = record.spec if record is not None else None
        ours = spec is not None and draft.model is not None and spec.model == draft.model.name
        self._facts, self._unchanged = facts_of(draft) if ours else None, True
        _log.info("Run of %s to %s", spec.model if spec else "an unknown model", spec.output if spec else "?")
        self.refresh()

    def _ended(self) -> None:
        record = self._context.runs.record
        _log.info("The run has ended: %s", record.state if record is not None else "gone")
        self.refresh()
        if record is not None and record.state in ("failed", "died"):
            self._show_error(BitwrightError(getattr(record.last, "message", ""), getattr(record.last, "hint", "")))

    def _refused(self, error: BitwrightError) -> None:
        """Show that a run could not be started, unless the Run page shows another active run."""
        if self._context.runs.active:
            self._context.report(error, None)
        else:
            self._show_error(error)

    def _show_error(self, error: BitwrightError) -> None:
        """Show the result of the run above the page, unless the Run page is shown."""
        if self._page() != "run":
            self.told = error.message
            self._context.report(error, Remedy(self.tr("Show run"), lambda: self._context.go("run")))

    def _look_again(self) -> None:
        """Check whether the obstacle to a run is gone."""
        if self._bar.reason and not self._context.runs.active:
            self.refresh()

    def _pass_log_on(self, record: RunRecord) -> None:
        """Copy new log lines of the run to the window's log."""
        known = self._logged[1] if self._logged[0] is record else 0
        fresh = min(record.logged - known, len(record.logs))
        for log in islice(record.logs, len(record.logs) - fresh, None):
            self._feed.add(log.level, log.message, log.time)
        self._logged = (record, record.logged)

    def _remember_model(self) -> None:
        if self._context.draft.model is not None:
            self._context.state.add_recent(self._context.draft.model.name)
