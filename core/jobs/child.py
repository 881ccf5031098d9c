"""Running a job: in a child process that can be stopped, killed or crash, or inline with the same signature.

Knows processes and the event file; not what a run computes. Blocking: a window calls it from a thread.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from core.events import Done, Emit, Event, Failed
from core.jobs import store, worker
from core.jobs.control import Control, never
from core.jobs.threads import stream

ROOT = Path(__file__).resolve().parent.parent.parent
_POLL = 0.05
_REMEDY = "Try --low-memory, a smaller --batch-size or --seqlen, or close other programs."
_DEATHS = {
    "SIGKILL": ("was killed, most likely because memory ran out", _REMEDY),
    "SIGSEGV": ("crashed in native code (segmentation fault)", "Try another --device; it may be a driver's fault."),
    "SIGABRT": ("gave up in native code (abort)", "Try another --device; it may be a driver's fault."),
    "SIGBUS": ("lost a file that it was reading, or its disk", "Check the disk that holds the model."),
    "SIGILL": ("met an instruction that this processor lacks", "Install the torch build for this machine."),
    "SIGTERM": ("was ended from outside", "Start it again."),
}


@dataclass(frozen=True)
class Outcome:
    """How a run ended, and with which Done or Failed.

    Attributes:
        state: `detached` is no end: the run goes on, and only the following of it is over.
        exit_code: the child's (negative: a signal); None for a run inline or one that somebody else started.
        event: the last one, None where detached.
    """

    state: Literal["done", "failed", "cancelled", "died", "detached"]
    exit_code: int | None
    event: Done | Failed | None


@dataclass(frozen=True)
class Patience:
    """Seconds to wait after the stop command, and then after SIGTERM, before the next harder means."""

    command: float = 10.0
    terminate: float = 5.0


def run_child(
    job: Path,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool] = never,
    should_pause: Callable[[], bool] = never,
) -> Outcome:
    """Run the job in a child process; blocks, and calls `on_event` for each event as it comes."""
    return _drive(follow_child(job, should_stop, should_pause), on_event)


def run_inline(
    job: Path,
    on_event: Callable[[Event], None],
    should_stop: Callable[[], bool] = never,
    should_pause: Callable[[], bool] = never,
    *,
    run: Callable[[], worker.Run] = worker.pipeline,
) -> Outcome:
    """Run the job in this process (imports torch); the same events, file and outcome as `run_child`."""
    store.claim(job)
    with store.EventLog(job / store.EVENTS) as log:

        def emit(event: Event) -> None:
            log(event)
            on_event(event)

        last = worker.perform(job, emit, Control(should_stop, should_pause), lambda *order: run()(*order))
    return Outcome(state_of(last), None, last)


def follow_child(
    job: Path,
    should_stop: Callable[[], bool] = never,
    should_pause: Callable[[], bool] = never,
    *,
    command: Sequence[str] | None = None,
    patience: Patience | None = None,
) -> Generator[Event, None, Outcome]:
    """`run_child` as a generator: yields the events and returns the outcome. Closing it ends the child."""
    batches = follow_batches(job, should_stop, should_pause, command=command, patience=patience)
    try:
        while True:
            try:
                events = next(batches)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            yield from events
    finally:
        batches.close()


def follow_batches(
    job: Path,
    should_stop: Callable[[], bool] = never,
    should_pause: Callable[[], bool] = never,
    should_detach: Callable[[], bool] = never,
    *,
    command: Sequence[str] | None = None,
    patience: Patience | None = None,
    chunk: int = store.CHUNK,
) -> Generator[list[Event], None, Outcome]:
    """`follow_child` for those who cannot wait: about 20 times a second what has come since, often nothing.

    Args:
        should_detach: true lets the child go on by itself; the outcome is then `detached`, and from then on the
            run is steered by `store.order`.
        chunk: bytes of the event file that are read at once.
    """
    follower = store.Follower(job / store.EVENTS, at_end=True)
    last: Done | Failed | None = None
    with _Child(job, command, patience or Patience()) as child:
        while True:
            code = child.poll()  # asked before reading: what a dead child wrote is all there
            events = follower.read(chunk)
            last = last_word(events) or last
            if code is not None and not events:
                break
            yield events
            if should_detach() and not child.stopping and code is None:
                child.detach()
                return Outcome("detached", None, None)
            child.steer(should_stop(), should_pause())
            if not events:
                time.sleep(_POLL)
    if last is None:
        outcome = close_stream(job, child.stopping, code)
        assert outcome.event is not None
        yield [outcome.event]
        return outcome
    return Outcome(state_of(last), code, last)


def follow_inline(
    job: Path, should_stop: Callable[[], bool] = never, should_pause: Callable[[], bool] = never
) -> Generator[Event, None, Outcome]:
    """`run_inline` as a generator; the run is in a thread, and closing the generator stops it and waits for it."""

    def work(emit: Emit, stop: Callable[[], bool]) -> Outcome:
        return run_inline(job, emit, stop, should_pause)

    return (yield from stream(work, should_stop))


def last_word(events: Sequence[Event]) -> Done | Failed | None:
    """The event among these that ends a run."""
    return next((event for event in reversed(events) if isinstance(event, Done | Failed)), None)


def state_of(last: Done | Failed) -> Literal["done", "failed", "cancelled"]:
    """What a run that ended with `last` is called."""
    if isinstance(last, Done):
        return "done"
    return "cancelled" if last.code == "cancelled" else "failed"


def close_stream(job: Path, stopping: bool, code: int | None) -> Outcome:
    """End the event file of a dead process that did not say how it ended, and remove what it left.

    Args:
        stopping: it was asked to stop, so its death is no accident.
        code: its exit code, where that is known.
    """
    if stopping:
        last = Failed("cancelled", "The run was stopped; it did not answer and was ended.", "", "", False)
    else:
        last = death(job, code)
    store.clean_up(job)
    _append(job, last)
    return Outcome("cancelled" if stopping else "died", code, last)


def death(job: Path, code: int | None) -> Failed:
    """The `Failed` event for a process that ended with `code` (None: nobody waited for it) and said nothing."""
    log = job / store.LOG
    if code == worker.EXIT_NO_ROOM:
        hint = "Free some room, or choose an output folder on another volume."
        return Failed("disk-full", "The disk is full; the run could not even write its events.", hint, "", False)
    what, hint = _DEATHS.get(_signal_name(code or 0), ("ended without saying why", ""))
    number = "" if code is None else f" (signal {-code})" if code < 0 else f" (exit code {code})"
    words = last_words(log)
    message = f"The run {what}{number}." + (f" Its last words: {words}" if words else "")
    return Failed("child-died", message, f"{hint} The log is {log}".strip(), "", False)


def last_words(log: Path, window: int = 8192) -> str:
    """The last line with text of a log, at most 200 characters. Progress bars overwrite lines: \\r ends one too."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - window))
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    lines = [line.strip() for line in text.replace("\r", "\n").splitlines() if line.strip()]
    # after a crash the stack of faulthandler stands last; its first line says what it was
    fatal = next((line for line in reversed(lines) if line.startswith("Fatal Python error")), "")
    return (fatal or (lines[-1] if lines else ""))[:200]


def environment() -> dict[str, str]:
    """The environment of a child: our root first on the path (-P keeps the working folder off it), logs in UTF-8.

    Huge pages for large tensors (read by torch, Linux only): the peak of a run falls by 7 %, and no longer depends
    on how the heap happened to be cut up. A short spin of OpenMP's waiting threads: as fast on a quiet machine, 1.5
    times as fast beside one busy program, since a thread that waits does not hold the core of one that works.
    """
    path = os.environ.get("PYTHONPATH")
    return {
        "THP_MEM_ALLOC_ENABLE": "1",
        "GOMP_SPINCOUNT": "10000",
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), path] if path else [str(ROOT)]),
        "PYTHONIOENCODING": "utf-8:backslashreplace",
        "PYTHONUNBUFFERED": "1",
    }


class _Child:
    """The child process: started on entry, steered by commands, certainly gone on exit unless it was detached."""

    def __init__(self, job: Path, command: Sequence[str] | None, patience: Patience) -> None:
        self.stopping = False
        self._job = job
        self._patience = patience
        self._paused = False
        self._detached = False
        self._since = 0.0
        self._terminated = False
        argv = command or [sys.executable, "-P", "-m", "core.jobs.worker", str(job)]
        with (job / store.LOG).open("ab") as log:
            # a group of its own: Ctrl-C in a terminal reaches the parent only, which stops the child in order
            self._process: subprocess.Popen[bytes] = subprocess.Popen(
                argv,
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment(),
                start_new_session=os.name == "posix",
                creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
            )

    def poll(self) -> int | None:
        return self._process.poll()

    def steer(self, stop: bool, pause: bool) -> None:
        """Pass on what the caller wants; a stop that is not obeyed gets harder with time."""
        now = time.monotonic()
        if stop and not self.stopping:
            self.stopping, self._since = True, now
            self._send("stop")
        elif not self.stopping and pause != self._paused:
            self._paused = pause
            self._send("pause" if pause else "resume")
        elif self.stopping and now - self._since > self._patience.command + self._patience.terminate:
            self._kill()
        elif self.stopping and now - self._since > self._patience.command and not self._terminated:
            self._terminated = True
            self._terminate()

    def detach(self) -> None:
        """Let the child go on without this process. The command waits in the pipe even if it is still starting."""
        store.order(self._job, pause=self._paused)
        self._send("detach")
        self._detached = True
        if self._process.stdin is not None:
            _close(self._process.stdin)
        # waited for all the same, so that its end leaves no zombie and its handle is not dropped while it runs
        threading.Thread(target=self._process.wait, name="detached", daemon=True).start()

    def __enter__(self) -> _Child:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._detached:
            return
        try:
            while self._process.poll() is None:
                self.steer(stop=True, pause=False)
                time.sleep(_POLL)
        finally:
            # reached with a live child only when a second Ctrl-C breaks the wait above
            self._kill()
            self._process.wait()
            if self._process.stdin is not None:
                _close(self._process.stdin)

    def _send(self, command: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps({"command": command}).encode() + b"\n")
            self._process.stdin.flush()
        except OSError:
            return  # it is already gone; poll() will say so

    def _terminate(self) -> None:
        if os.name == "nt":
            self._process.send_signal(signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined,unused-ignore]
        else:
            self._process.terminate()

    def _kill(self) -> None:
        """Kill the child and what it started (its session), while its id is surely still its own."""
        if self._process.poll() is not None:
            return
        if os.name == "posix":
            os.killpg(self._process.pid, signal.SIGKILL)
        else:
            self._process.kill()


def _drive(events: Generator[Event, None, Outcome], on_event: Callable[[Event], None]) -> Outcome:
    try:
        while True:
            try:
                event = next(events)
            except StopIteration as stop:
                outcome: Outcome = stop.value
                return outcome
            on_event(event)
    finally:
        events.close()


def _close(stream: object) -> None:
    try:
        stream.close()  # type: ignore[attr-defined]
    except OSError:
        return  # unsent bytes for a dead child


def _signal_name(code: int) -> str:
    if code == 0xC0000005:  # Windows: access violation
        return "SIGSEGV"
    try:
        return signal.Signals(-code).name if code < 0 else ""
    except ValueError:
        return ""


def _append(job: Path, event: Event) -> None:
    try:
        with store.EventLog(job / store.EVENTS) as log:
            log(event)
    except OSError:
        return  # a full disk is often why it died; the caller has the event all the same
