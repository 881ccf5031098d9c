"""The run of this window, one at a time: start, pause, cancel, detach and reconnect.

Keeps the record of its events. Depends on QtCore only; `RunThread` follows the run.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path

from PySide6.QtCore import QObject, QTimer, Signal

from app.shared.run.record import Batch, RunRecord
from app.shared.run.thread import RunThread
from core.errors import BadInput, BitwrightError
from core.events import Failed
from core.jobs import store
from core.jobs.child import Command
from core.jobs.following import Outcome
from core.spec import JobSpec

_EVERY_MS = 100


class Runs(QObject):
    """The active run, or the last one that was shown.

    Signals:
        changed: the record changed; emitted at most ten times a second while a run is active.
        started: a run is being followed.
        refused: the requested run cannot be started (BitwrightError); there is no job.
        ended: the run has ended (Outcome); not emitted for jobs that are only opened.
    """

    changed = Signal()
    started = Signal()
    refused = Signal(object)
    ended = Signal(object)

    def __init__(self, parent: QObject | None = None, *, command: Command | None = None) -> None:
        """Create the object; `command` replaces the command line of the child process in tests."""
        super().__init__(parent)
        self._command = command
        self._thread: RunThread | None = None
        self._retired: list[RunThread] = []
        self._record: RunRecord | None = None
        self._detached = False
        self._news = False
        self._timer = QTimer(self)
        self._timer.setInterval(_EVERY_MS)
        self._timer.timeout.connect(self._tick)

    @property
    def record(self) -> RunRecord | None:
        """The record of the active run, or of the last one shown; None at the start."""
        return self._record

    @property
    def active(self) -> bool:
        """Return whether a run is being followed."""
        return self._thread is not None and self._thread.mode != "open"

    @property
    def loading(self) -> bool:
        """Return whether the events of an older job are being read."""
        return self._thread is not None and self._thread.mode == "open"

    def start(self, spec: JobSpec) -> None:
        """Check `spec` and run it in a child process."""
        if self.active:
            self.refused.emit(BadInput("Another run is active.", "Wait until it ends, or cancel it."))
            return
        self._release()
        self._record = RunRecord(spec)
        self._follow(RunThread(spec, "start", command=self._command, parent=self))
        self.started.emit()

    def adopt(self) -> bool:
        """Follow the newest run that continues without a window; return whether there is one.

        Called once when the window starts. Also removes leftovers of killed runs, and shows a run that was interrupted.
        """
        threading.Thread(target=store.sweep, name="sweep", daemon=True).start()
        job = store.newest_running()
        if job is None:
            self._show_interrupted()
            return False
        self._record = RunRecord(store.read_job(job).spec, job)
        thread = RunThread(job, "adopt", parent=self)
        given = store.read_request(job)
        if given is not None and given.pause:
            self._record.wants_pause = True
            thread.pause(True)
        self._follow(thread)
        self.started.emit()
        return True

    def open(self, job: Path) -> None:
        """Show a job that has ended; does nothing while a run is active."""
        if self.active:
            return
        self._release()
        self._record = RunRecord(store.read_job(job).spec, job)
        self._follow(RunThread(job, "open", parent=self))

    def clear(self) -> None:
        """Show no run; does nothing while one is active."""
        if not self.active and self._record is not None:
            self._release()
            self._record = None
            self.changed.emit()

    def pause(self) -> None:
        """Pause at the next block boundary."""
        self._want_pause(True)

    def resume(self) -> None:
        """Continue after a pause."""
        self._want_pause(False)

    def cancel(self) -> None:
        """End the run within two seconds and remove its files."""
        if self.active and self._thread is not None and self._record is not None:
            self._record.stopping = True
            self._thread.stop()
            self.changed.emit()

    def detach(self) -> None:
        """Let the run continue when this window closes; `adopt` finds it again."""
        if self.active and self._thread is not None:
            self._detached = True
            self._thread.leave()

    def close(self, wait: float = 3.0) -> bool:
        """Stop following before the window closes. A run that was not detached ends.

        Args:
            wait: maximum time in seconds.

        Returns:
            Whether the thread has ended.
        """
        threads = [*self._retired, *([self._thread] if self._thread is not None else [])]
        for thread in threads:
            if thread.mode == "start" and not self._detached:
                thread.stop()
            else:
                thread.leave()
        deadline = time.monotonic() + wait
        ended = [thread.wait(max(0, int(1000 * (deadline - time.monotonic())))) for thread in threads]
        return all(ended)

    def _want_pause(self, wanted: bool) -> None:
        if self.active and self._thread is not None and self._record is not None and not self._record.stopping:
            self._record.wants_pause = wanted
            self._thread.pause(wanted)
            self.changed.emit()

    def _show_interrupted(self) -> None:
        """Show the newest job if it ended with a window or a machine that was shut down."""
        from core.jobs.worker import ORPHANED

        info = store.newest()
        if info is None:
            return
        orphaned = isinstance(info.last, Failed) and info.last.message == ORPHANED
        if orphaned or info.state == "died":
            self.open(info.folder)

    def _follow(self, thread: RunThread) -> None:
        self._thread = thread
        self._detached = False
        thread.begun.connect(self._on_begun)
        thread.batch.connect(self._on_batch)
        thread.refused.connect(self._on_refused)
        thread.over.connect(self._on_over)
        thread.left.connect(self._on_left)
        self._timer.start()
        thread.start()
        self.changed.emit()

    def _release(self) -> None:
        """Release the thread, which has ended or is about to; it is kept until it has."""
        thread, self._thread = self._thread, None
        self._timer.stop()
        if thread is not None:
            thread.leave()
            self._retired.append(thread)
            thread.finished.connect(self._bury)
            self._bury()

    def _bury(self) -> None:
        for thread in [thread for thread in self._retired if thread.isFinished()]:
            self._retired.remove(thread)
            thread.deleteLater()

    def _on_begun(self, job: Path) -> None:
        if self._is_current() and self._record is not None:
            self._record.job = job
            self._news = True

    def _on_batch(self, batch: Batch) -> None:
        if self._is_current() and self._record is not None:
            self._record.apply(batch)
            self._news = True

    def _on_refused(self, error: BitwrightError) -> None:
        if not self._is_current() or self._record is None:
            return
        self._record.last = Failed(error.code, error.message, error.hint, "prepare", True)
        self._release()
        self.changed.emit()
        self.refused.emit(error)

    def _on_over(self, outcome: Outcome) -> None:
        if not self._is_current() or self._thread is None:
            return
        told = self._thread.mode != "open"
        if self._record is not None and self._record.last is None:
            self._record.last = outcome.event
        self._release()
        self.changed.emit()
        if told:
            self._notify_desktop()
            self.ended.emit(outcome)

    def _notify_desktop(self) -> None:
        """Show a desktop notification about the end of the run."""
        if self._record is not None and self._record.state != "cancelled":
            from app.shared.run import notification

            notification.show(*notification.words(self._record))

    def _on_left(self) -> None:
        if self._is_current():
            self._release()
            self._record = None
            self.changed.emit()

    def _is_current(self) -> bool:
        """Return whether the signal comes from the current thread, rather than a released one."""
        return self._thread is not None and self.sender() is self._thread

    def _tick(self) -> None:
        if self._news:
            self._news = False
            self.changed.emit()
