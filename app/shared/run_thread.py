"""The thread that stands between a run and the window: it starts or follows the child and hands over batches.

Everything that can wait (disk, process, file of events) waits here. Knows no widget; speaks to the window in at most
20 signals a second, however many events there are.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Literal

from PySide6.QtCore import QObject, QThread, Signal

from app.shared.run_record import Batch
from core.errors import BitwrightError
from core.events import Event, Failed
from core.home import home
from core.jobs import store
from core.jobs.child import Outcome
from core.jobs.failure import Progressed, error_from, failed_from
from core.jobs.steering import Patience
from core.spec import JobSpec

Command = Callable[[Path], Sequence[str]]
"""From a job folder to the command that runs it; tests give their own."""
PATIENCE = Patience(command=1.2, terminate=0.4)
"""Somebody who presses Cancel watches: gone within two seconds, by whatever means."""
_EVERY = 0.05
_CHUNK = 1 << 15
"""Bytes of events read at once: a few milliseconds' work. While this thread works the window's thread waits for the
interpreter at every call of Qt, so after each chunk of a flood it rests longer than it worked."""
_REST, _BUSY = 2.0, 0.002

_log = logging.getLogger(__name__)


class RunThread(QThread):
    """One run, from its request to its end.

    Signals:
        begun: the job folder (Path), as soon as there is one.
        batch: events since the last one (Batch).
        refused: the request cannot be carried out, nothing was started (BitwrightError).
        over: the run has ended (JobInfo).
        left: the run goes on, and this thread follows it no longer.
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
        patience: Patience = PATIENCE,
        parent: QObject | None = None,
    ) -> None:
        """`what` is a spec to start, or the folder of a job to adopt or to open."""
        super().__init__(parent)
        self.mode = mode
        self._what = what
        self._command = command
        self._patience = patience
        self._stop = threading.Event()
        self._pause = threading.Event()
        self._leave = threading.Event()

    def stop(self) -> None:
        """Ask for the end of the run; returns at once."""
        self._stop.set()

    def pause(self, wanted: bool) -> None:
        """Ask for a pause at the next block boundary, or for its end."""
        if wanted:
            self._pause.set()
        else:
            self._pause.clear()

    def leave(self) -> None:
        """Let the run go on without this window."""
        self._leave.set()

    def run(self) -> None:
        """The thread itself; called by Qt."""
        try:
            self._work()
        except BitwrightError as error:
            self.refused.emit(error)
        except Exception as error:  # noqa: BLE001 - whatever it was, the window must hear that there is no run
            _log.exception("The run could not be followed")
            log = home() / store.LOG
            self.refused.emit(error_from(failed_from(error, Progressed(), log)))

    def _work(self) -> None:
        if isinstance(self._what, JobSpec):
            self._start(self._what)
            return
        from core.jobs import adopt

        job = self._what
        self.begun.emit(job)
        if self.mode == "open":
            self._tell(job, self._follow(adopt.replay(job, self._leave.is_set, chunk=_CHUNK)))
        else:
            wants = (self._stop.is_set, self._pause.is_set, self._leave.is_set)
            self._tell(job, self._follow(adopt.follow_running(job, *wants, patience=self._patience, chunk=_CHUNK)))

    def _start(self, spec: JobSpec) -> None:
        """Check, make the job folder, and run it in a child."""
        from core.api import calls
        from core.estimate import preflight
        from core.jobs import adopt, child

        preflight.check(spec)
        missing = calls.missing_parents(Path(spec.output))
        job = store.create(spec)
        self.begun.emit(job)
        if self._stop.is_set():  # cancelled while the disk was looked at
            with store.EventLog(job / store.EVENTS) as log:
                log(Failed("cancelled", "The run was stopped before it began.", "", "", False))
            self._tell(job, self._follow(adopt.replay(job, self._leave.is_set)))
            return
        wants = (self._stop.is_set, self._pause.is_set, self._leave.is_set)
        command = self._command(job) if self._command else None
        outcome = self._follow(
            child.follow_batches(job, *wants, command=command, patience=self._patience, chunk=_CHUNK)
        )
        if outcome.state not in ("done", "detached"):
            store.clean_up(job)
            calls.remove_empty(missing)
        self._tell(job, outcome)

    def _follow(self, batches: Generator[list[Event], None, Outcome]) -> Outcome:
        """Hand the events over until there are no more."""
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

    def _tell(self, job: Path, outcome: Outcome) -> None:
        """Say how it ended."""
        if outcome.state == "detached":
            self.left.emit()
        else:
            self.over.emit(store.read_job(job))
