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
from core.jobs.failure import Progressed, failed_from, no_room
from core.jobs.process import take_stdin
from core.spec import JobSpec, load

Run = Callable[[JobSpec, Path, Emit, Control], None]

EXIT_DONE = 0
EXIT_FAILED = 1
EXIT_NO_ROOM = 28
"""Even the last event could not be written; ENOSPC's own number."""
EXIT_CANCELLED = 130
STOP_ALONE_AFTER = 20.0
"""Seconds that a run has to stop by itself; a long native call can hold it longer than anyone waits."""
LOOK_EVERY = 0.4
"""Seconds between looks at the file of orders."""
_NEWS = 2000
"""Events that wait for room; beyond, a loss or a progress is not worth its memory."""
_LAST_TRIES, _BETWEEN = 4, 0.25
ORPHANED = "The run was stopped because the window or terminal that started it was gone."


def pipeline() -> Run:
    """The real run. Imports torch."""
    from core.quant import pipeline as quantization

    return quantization.run


def perform(job: Path, emit: Emit, control: Control, run: Run) -> Done | Failed:
    """Run a job to its end and return the last event, which has been emitted. Never raises for what `run` raises."""
    progress = Progressed()
    done: list[Done] = []

    def watched(event: Event) -> None:
        progress.see(event)
        if isinstance(event, Done):
            done.append(event)
        emit(event)

    try:
        spec = load(job / store.SPEC)
        with Claim(Path(spec.output).absolute(), job.name, f"job {job.name}"):
            try:
                run(spec, job, watched, control)
            except BaseException:
                store.clean_up(job)
                raise
        if not done:
            raise RuntimeError("the run ended without a result")
        return done[-1]
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - whatever it was, the stream must end with a Failed
        failed = failed_from(error, progress, job / store.LOG)
        emit(failed)
        return failed


def exit_code(last: Done | Failed) -> int:
    """The exit code of a process whose run ended with `last`."""
    if isinstance(last, Done):
        return EXIT_DONE
    return EXIT_CANCELLED if last.code == "cancelled" else EXIT_FAILED


class Telling:
    """The event file of a run. What cannot be written waits, since a full disk is no reason to lose a run over news.

    Raises OSError where the file cannot be opened, which is before any work.
    """

    def __init__(self, job: Path) -> None:
        self._log = store.EventLog(job / store.EVENTS)
        self._lock = threading.Lock()
        self._waiting: list[Event] = []

    @property
    def untold(self) -> bool:
        """Whether the last event could not be written."""
        return bool(self._waiting)

    def __call__(self, event: Event) -> None:
        with self._lock:
            if len(self._waiting) >= _NEWS and isinstance(event, Loss | Progress):
                return
            self._waiting.append(event)
            self._flush()

    def __enter__(self) -> Telling:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _ in range(_LAST_TRIES):
            if not self._waiting:
                break
            time.sleep(_BETWEEN)
            self._flush()
        self._log.close()

    def _flush(self) -> None:
        with contextlib.suppress(OSError):
            while self._waiting:
                self._log(self._waiting[0])
                del self._waiting[0]


class Orders:
    """What the parent, or somebody who came later, wants; kept for the run by two threads that listen.

    Attributes:
        orphaned: the run stops because its parent was gone without a word.
    """

    def __init__(self, job: Path, stop_alone_after: float = STOP_ALONE_AFTER) -> None:
        self._job = job
        self._patience = stop_alone_after
        self._stop = threading.Event()
        self._pause = threading.Event()
        self.orphaned = False
        self.control = Control(self._stop.is_set, self._pause.is_set)

    def watch(self, commands: int) -> None:
        """Start to read commands from the descriptor `commands`, until it ends, and the file of orders."""
        threading.Thread(target=self._read, args=(commands,), name="commands", daemon=True).start()
        threading.Thread(target=self._look, name="orders", daemon=True).start()

    def stop(self) -> None:
        """Ask the run to stop, and end the process if it does not."""
        if self._stop.is_set():
            return
        self._stop.set()
        timer = threading.Timer(self._patience, self._give_up)
        timer.daemon = True
        timer.start()

    def told(self, event: Event) -> Event:
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

    def _look(self) -> None:
        """Obey the file of orders whenever it is another one."""
        before: store.Orders | None = None
        while not self._stop.wait(LOOK_EVERY):
            orders = store.orders(self._job)
            if orders == before or orders is None:
                continue
            before = orders
            if orders.pause:
                self._pause.set()
            else:
                self._pause.clear()
            if orders.stop:
                self.stop()

    def _give_up(self) -> None:
        """Leave from this thread: the run's own sits in a native call and cannot be interrupted."""
        with contextlib.suppress(OSError), store.EventLog(self._job / store.EVENTS) as emit:
            emit(self.told(Failed("cancelled", "The run was stopped in the middle of a step.", "", "", False)))
        store.clean_up(self._job)
        os._exit(EXIT_CANCELLED)


def serve(job: Path, run: Callable[[], Run] = pipeline, stop_alone_after: float = STOP_ALONE_AFTER) -> int:
    """Run the job as this process's only task; returns the exit code."""
    orders = Orders(job, stop_alone_after)
    commands = take_stdin()

    def on_signal(_number: int, _frame: FrameType | None) -> None:
        orders.stop()

    for name in ("SIGTERM", "SIGINT", "SIGBREAK"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), on_signal)
    try:
        store.claim(job, obeys=True)
        orders.watch(commands)
        store.sweep()
        with Telling(job) as told:
            # imported inside perform, so that an import that fails is told like any other failure
            last = perform(job, lambda event: told(orders.told(event)), orders.control, lambda *order: run()(*order))
        return EXIT_NO_ROOM if told.untold and not isinstance(last, Done) else exit_code(last)
    except OSError as error:  # the job folder cannot be written, before any work
        if no_room(error):
            return EXIT_NO_ROOM
        failed = failed_from(error, Progressed(), job / store.LOG)
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
