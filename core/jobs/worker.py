"""The child process of a run: `python -m core.jobs.worker JOBDIR`.

Reads the spec in the job folder, runs the pipeline, and ends the event file with Done or Failed. Commands are JSON
lines on stdin. The end of stdin means that the parent has ended, which ends the run as well, unless the parent sent
`detach` before; a detached run is controlled through the file of orders in the job folder. Only the pipeline imports
torch.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType

from core.claim import Claim
from core.control import Control
from core.errors import BitwrightError
from core.events import Done, Emit, Event, Failed, Loss, Progress
from core.jobs import store
from core.jobs.failure import RunProgress, failed_event, is_disk_full
from core.jobs.process import take_stdin
from core.spec import JobSpec, load

Run = Callable[[JobSpec, Path, Emit, Control], None]

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_DISK_FULL = 28
"""Even the last event could not be written; ENOSPC's own number."""
EXIT_CANCELLED = 130
SELF_STOP_SECONDS = 20.0
"""Seconds that a run has to stop by itself; a long native call can hold it longer than anyone waits."""
POLL_SECONDS = 0.4
"""Seconds between looks at the file of orders."""
_MAX_PENDING = 2000
"""Events that wait for room; beyond, a loss or a progress is not worth its memory."""
_CLOSE_ATTEMPTS, _RETRY_SECONDS = 4, 0.25
ORPHANED = "The run was stopped because the window or terminal that started it was gone."


def pipeline() -> Run:
    """The real run. Imports torch."""
    from core.quant import pipeline as quantization

    return quantization.run


def perform(job: Path, emit: Emit, control: Control, run: Run) -> Done | Failed:
    """Run a job to its end and return the last event, which has been emitted. Never raises for what `run` raises."""
    progress = RunProgress()
    done: list[Done] = []

    def record(event: Event) -> None:
        progress.update(event)
        if isinstance(event, Done):
            done.append(event)
        emit(event)

    try:
        spec = load(job / store.SPEC)
        with Claim(Path(spec.output).absolute(), job.name, f"job {job.name}"):
            try:
                run(spec, job, record, control)
            except BaseException:
                store.clean_up(job)
                raise
        if not done:
            raise RuntimeError("the run ended without a result")
        return done[-1]
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it was, the stream must end with a Failed
        failed = failed_event(error, progress, job / store.LOG)
        emit(failed)
        return failed


def exit_code(last: Done | Failed) -> int:
    """The exit code of a process whose run ended with `last`."""
    if isinstance(last, Done):
        return EXIT_DONE
    return EXIT_CANCELLED if last.code == "cancelled" else EXIT_FAILED


class EventRecorder:
    """The event file of a run. What cannot be written waits, since a full disk is no reason to lose a run over news.

    Raises OSError where the file cannot be opened, which is before any work.
    """

    def __init__(self, job: Path) -> None:
        self._log = store.EventLog(job / store.EVENTS)
        self._lock = threading.Lock()
        self._pending: list[Event] = []

    @property
    def has_pending(self) -> bool:
        """Whether the last event could not be written."""
        return bool(self._pending)

    def __call__(self, event: Event) -> None:
        with self._lock:
            if len(self._pending) >= _MAX_PENDING and isinstance(event, Loss | Progress):
                return
            self._pending.append(event)
            self._flush()

    def __enter__(self) -> EventRecorder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in range(_CLOSE_ATTEMPTS):
            if not self._pending:
                break
            time.sleep(_RETRY_SECONDS)
            self._flush()
        self._log.close()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            while self._pending:
                self._log(self._pending[0])
                del self._pending[0]


class RunControl:
    """What the parent, or somebody who came later, wants; kept for the run by two threads that listen.

    Attributes:
        orphaned: the run stops because its parent was gone without a word.
    """

    def __init__(self, job: Path, self_stop_seconds: float = SELF_STOP_SECONDS) -> None:
        self._job = job
        self._self_stop_seconds = self_stop_seconds
        self._stop = threading.Event()
        self._pause = threading.Event()
        self.orphaned = False
        self.control = Control(self._stop.is_set, self._pause.is_set)

    def watch(self, commands: int) -> None:
        """Start to read commands from the descriptor `commands`, until it ends, and the file of orders."""
        threading.Thread(target=self._read, args=(commands,), name="commands", daemon=True).start()
        threading.Thread(target=self._watch_file, name="control file", daemon=True).start()

    def stop(self) -> None:
        """Ask the run to stop, and end the process if it does not."""
        if self._stop.is_set():
            return
        self._stop.set()
        timer = threading.Timer(self._self_stop_seconds, self._exit_now)
        timer.daemon = True
        timer.start()

    def with_cause(self, event: Event) -> Event:
        """The event as it is told: the end of an orphan says why it ended."""
        if self.orphaned and isinstance(event, Failed) and event.code == "cancelled":
            return replace(event, message=ORPHANED)
        return event

    def _read(self, commands: int) -> None:
        with os.fdopen(commands, "rb") as stream:
            for line in stream:
                command = _command(line)
                if command == "stop":
                    self.stop()
                elif command == "pause":
                    self._pause.set()
                elif command == "resume":
                    self._pause.clear()
                elif command == "detach":
                    return
        self.orphaned = not self._stop.is_set()
        self.stop()

    def _watch_file(self) -> None:
        """Obey the file of orders whenever it is another one."""
        before: store.ControlRequest | None = None
        while not self._stop.wait(POLL_SECONDS):
            request = store.read_request(self._job)
            if request == before or request is None:
                continue
            before = request
            if request.pause:
                self._pause.set()
            else:
                self._pause.clear()
            if request.stop:
                self.stop()

    def _exit_now(self) -> None:
        """Leave from this thread: the run's own sits in a native call and cannot be interrupted."""
        with contextlib.suppress(OSError), store.EventLog(self._job / store.EVENTS) as emit:
            emit(self.with_cause(Failed("cancelled", "The run was stopped in the middle of a step.", "", "", False)))
        store.clean_up(self._job)
        os._exit(EXIT_CANCELLED)


def serve(job: Path, run: Callable[[], Run] = pipeline, self_stop_seconds: float = SELF_STOP_SECONDS) -> int:
    """Run the job as this process's only task; returns the exit code."""
    run_control = RunControl(job, self_stop_seconds)
    commands = take_stdin()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        run_control.stop()

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    try:
        store.claim(job, controllable=True)
        run_control.watch(commands)
        store.sweep()
        with EventRecorder(job) as record:
            # imported inside perform, so that an import that fails is told like any other failure
            last = perform(
                job,
                lambda event: record(run_control.with_cause(event)),
                run_control.control,
                lambda *args: run()(*args),
            )
        return EXIT_DISK_FULL if record.has_pending and not isinstance(last, Done) else exit_code(last)
    except OSError as error:  # the job folder cannot be written, before any work
        if is_disk_full(error):
            return EXIT_DISK_FULL
        failed = failed_event(error, RunProgress(), job / store.LOG)
        with contextlib.suppress(OSError), store.EventLog(job / store.EVENTS) as log:
            log(failed)
        return EXIT_FAILED


def main() -> int:
    """Entry of the child; its only argument is the job folder."""
    faulthandler.enable()
    if len(sys.argv) != 2 or not (Path(sys.argv[1]) / store.SPEC).is_file():
        sys.stderr.write("usage: python -m core.jobs.worker JOBDIR (a folder that holds spec.json)\n")
        return 2
    try:
        return serve(Path(sys.argv[1]))
    except BitwrightError as error:
        sys.stderr.write(f"{error}\n")
        return EXIT_FAILED


def _command(line: bytes) -> object:
    try:
        return json.loads(line)["command"]
    except (ValueError, KeyError, TypeError):
        return None


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # not sys.exit: threads that data libraries leave behind can hold or crash an interpreter that ends
    os._exit(code)
