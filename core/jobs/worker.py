"""The child process of a run: `python -m core.jobs.worker JOBDIR`.

Reads the spec in the job folder, runs the pipeline, and ends the event file with Done or Failed. Commands are JSON
lines on stdin. The end of stdin means that the parent has ended, which ends the run as well, unless the parent has sent
`detach`; a detached run is controlled through the control file in the job folder. Only the pipeline imports torch.
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
"""Exit code if the last event could not be written; the value of ENOSPC."""
EXIT_CANCELLED = 130
SELF_STOP_SECONDS = 20.0
"""Seconds after a stop request until the process exits even if the run, for example a native call, has not stopped."""
POLL_SECONDS = 0.4
"""Polling interval of the control file, in seconds."""
_MAX_PENDING = 2000
"""Maximum number of events that wait for disk space. Beyond it, `Loss` and `Progress` events are dropped."""
_CLOSE_ATTEMPTS, _RETRY_SECONDS = 4, 0.25
ORPHANED = "The run was stopped because the window or terminal that started it has ended."


def pipeline() -> Run:
    """Return the quantization pipeline. Imports torch."""
    from core.quant import pipeline as quantization

    return quantization.run


def lean_pipeline() -> Run:
    """Return the quantization pipeline for a process of its own.

    On a machine without a GPU, torch then takes Triton, whose library needs 70 MB, for not installed.
    """
    import torch

    if not (torch.cuda.is_available() or torch.xpu.is_available()):
        sys.modules["triton"] = None  # type: ignore[assignment] # an import fails
    return pipeline()


def perform(job: Path, emit: Emit, control: Control, run: Run) -> Done | Failed:
    """Run a job and return its last event, after emitting it. An exception of `run` becomes a `Failed` event."""
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
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the stream has to end with a Failed event
        failed = failed_event(error, progress, job / store.LOG)
        emit(failed)
        return failed


def exit_code(last: Done | Failed) -> int:
    """Return the exit code of a process whose run ended with `last`."""
    if isinstance(last, Done):
        return EXIT_DONE
    return EXIT_CANCELLED if last.code == "cancelled" else EXIT_FAILED


class EventRecorder:
    """The writer of a run's event file. Events that cannot be written are retried, so a full disk does not end a run.

    Raises:
        OSError: The file cannot be opened.
    """

    def __init__(self, job: Path) -> None:
        self._log = store.EventLog(job / store.EVENTS)
        self._lock = threading.Lock()
        self._pending: list[Event] = []

    @property
    def has_pending(self) -> bool:
        """True if events could not be written yet."""
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
    """Stop and pause requests for a run, from the parent on stdin and from other processes through the control file.

    Attributes:
        control: The requests, as the pipeline reads them.
        orphaned: The run stops because its parent has ended without detaching it.
    """

    def __init__(self, job: Path, self_stop_seconds: float = SELF_STOP_SECONDS) -> None:
        self._job = job
        self._self_stop_seconds = self_stop_seconds
        self._stop = threading.Event()
        self._pause = threading.Event()
        self.orphaned = False
        self.control = Control(self._stop.is_set, self._pause.is_set)

    def watch(self, commands: int) -> None:
        """Start the threads that read commands from the descriptor `commands` and requests from the control file."""
        threading.Thread(target=self._read, args=(commands,), name="commands", daemon=True).start()
        threading.Thread(target=self._watch_file, name="control file", daemon=True).start()

    def stop(self) -> None:
        """Request the run to stop, and end the process if it does not stop in time."""
        if self._stop.is_set():
            return
        self._stop.set()
        timer = threading.Timer(self._self_stop_seconds, self._exit_now)
        timer.daemon = True
        timer.start()

    def with_cause(self, event: Event) -> Event:
        """Return the event, with the message `ORPHANED` if it is the cancellation of an orphaned run."""
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
        """Apply the control file whenever it changes."""
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
        """End the process from this thread, because the run is in a native call that cannot be interrupted."""
        with contextlib.suppress(OSError), store.EventLog(self._job / store.EVENTS) as emit:
            emit(self.with_cause(Failed("cancelled", "The run was stopped in the middle of a step.", "", "", False)))
        store.clean_up(self._job)
        os._exit(EXIT_CANCELLED)


def serve(job: Path, run: Callable[[], Run] = lean_pipeline, self_stop_seconds: float = SELF_STOP_SECONDS) -> int:
    """Run the job as the only task of this process and return the exit code."""
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
            # the pipeline is imported inside perform, so that a failed import is reported like any other failure
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
    """Run the worker. The only command-line argument is the job folder."""
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
    # not sys.exit: threads of data libraries can block or crash the interpreter at shutdown
    os._exit(code)
