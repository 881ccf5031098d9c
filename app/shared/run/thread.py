"""The thread that follows a run for the window, and emits its events in batches.

Every blocking operation (disk, process, event file) happens in this thread. It emits at most 20 signals a second,
however many events there are.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, QThread, Signal

from app.shared.run.record import Batch
from core.errors import BitwrightError
from core.home import home
from core.jobs import store
from core.jobs.child import Command
from core.jobs.failure import RunProgress, error_of_event, failed_event
from core.jobs.following import Batches, Outcome
from core.jobs.steering import StopTimeouts
from core.spec import JobSpec

PATIENCE = StopTimeouts(command=1.2, terminate=0.4)
"""Seconds after which a cancelled run is killed."""
_EVERY = 0.05
_CHUNK = 1 << 15
"""Bytes of events read at once, which takes a few milliseconds. Meanwhile the GUI thread waits for the interpreter, so
this thread sleeps after each chunk for longer than it worked."""
_REST, _BUSY = 2.0, 0.002

_log = logging.getLogger(__name__)


class RunThread(QThread):
    """One run, from its request to its end.

    Signals:
        begun: the job folder exists (Path).
        batch: new events (Batch).
        refused: the run cannot be started (BitwrightError).
        over: the run has ended (Outcome).
        left: the run continues, and this thread no longer follows it.
    """

    begun = Signal(object)
    batch = Signal(object)
    refused = Signal(object)
    over = Signal(object)
    left = Signal()

    def __init__(
        self,
        what: JobSpec | Path,
        mode: Literal["start", "adopt", "open"],
        *,
        command: Command | None = None,
        patience: StopTimeouts = PATIENCE,
        parent: QObject | None = None,
    ) -> None:
        """Follow `what`: a spec to start, or the folder of a job to adopt or to open.

        Args:
            command: Replaces the command line of the child process in tests.
        """
        super().__init__(parent)
        self.mode = mode
        self._what = what
        self._command = command
        self._patience = patience
        self._stop = threading.Event()
        self._pause = threading.Event()
        self._leave = threading.Event()

    def stop(self) -> None:
        """Request the end of the run. Returns at once."""
        self._stop.set()

    def pause(self, wanted: bool) -> None:
        """Request a pause at the next block boundary, or its end."""
        if wanted:
            self._pause.set()
        else:
            self._pause.clear()

    def leave(self) -> None:
        """Let the run continue without this window."""
        self._leave.set()

    def run(self) -> None:
        """Follow the run. Called by Qt in the thread."""
        try:
            self._work()
        except BitwrightError as error:
            self.refused.emit(error)
        except Exception as error:  # noqa: BLE001 - reported to the window, whatever the error
            _log.exception("The run could not be followed")
            log = home() / store.LOG
            self.refused.emit(error_of_event(failed_event(error, RunProgress(), log)))

    def _work(self) -> None:
        """Follow the run to its end and report its outcome."""
        outcome = self._follow(self._batches())
        if outcome.state == "detached":
            self.left.emit()
        else:
            self.over.emit(outcome)

    def _batches(self) -> Batches:
        """Return the events of a new, a running or an ended job."""
        from core import api

        stop, pause, leave = self._stop.is_set, self._pause.is_set, self._leave.is_set
        if isinstance(self._what, JobSpec):
            return api.run_job(
                self._what,
                should_stop=stop,
                should_pause=pause,
                should_detach=leave,
                on_created=self.begun.emit,
                command=self._command,
                patience=self._patience,
                chunk=_CHUNK,
            )
        self.begun.emit(self._what)
        if self.mode == "open":
            return api.replay_job(self._what, should_detach=leave, chunk=_CHUNK)
        return api.adopt_job(
            self._what,
            should_stop=stop,
            should_pause=pause,
            should_detach=leave,
            patience=self._patience,
            chunk=_CHUNK,
        )

    def _follow(self, batches: Batches) -> Outcome:
        """Emit the events in batches; return the outcome."""
        waiting, sent = Batch(), 0.0
        with contextlib.closing(batches):
            while True:
                began = time.thread_time()
                try:
                    waiting.add(next(batches))
                except StopIteration as end:
                    outcome: Outcome = end.value
                    break
                now = time.monotonic()
                worked = time.thread_time() - began
                if worked > _BUSY and not self._stop.is_set():
                    time.sleep(_REST * worked)
                if waiting.count and now - sent >= _EVERY:
                    self.batch.emit(waiting)
                    waiting, sent = Batch(), now
        if waiting.count:
            self.batch.emit(waiting)
        return outcome
