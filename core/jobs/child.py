"""Running a job: in a child process that can be stopped, killed or crash, or inline with the same signature.

Knows processes and the event file; not what a run computes. Blocking: a window calls it from a thread.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal

from core.control import Control, ShouldStop, never
from core.errors import BitwrightError
from core.events import Done, Emit, Event, Failed
from core.files import read_json
from core.jobs import process, store, worker
from core.jobs.failure import Progressed, failed_from
from core.jobs.process import cause_of_death, last_words
from core.jobs.steering import Patience, Steering
from core.spec import load
from core.threads import stream

_POLL = 0.05


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


def run_child(
    job: Path,
    on_event: Callable[[Event], None],
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
) -> Outcome:
    """Run the job in a child process; blocks, and calls `on_event` for each event as it comes."""
    return _drive(follow_child(job, should_stop, should_pause), on_event)


def run_inline(
    job: Path,
    on_event: Callable[[Event], None],
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    *,
    run: Callable[[], worker.Run] = worker.pipeline,
) -> Outcome:
    """Run the job in this process (imports torch); the same events, file and outcome as `run_child`."""
    try:
        store.claim(job)
        with worker.Telling(job) as log:

            def emit(event: Event) -> None:
                log(event)
                on_event(event)

            last = worker.perform(job, emit, Control(should_stop, should_pause), lambda *order: run()(*order))
    except OSError as error:  # the job folder cannot be written, before any work
        last = failed_from(error, Progressed(), job / store.LOG)
        on_event(last)
    finally:
        store.release(job)
    return Outcome(state_of(last), None, last)


def follow_child(
    job: Path,
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
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
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    should_detach: ShouldStop = never,
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
    job: Path, should_stop: ShouldStop = never, should_pause: ShouldStop = never
) -> Generator[Event, None, Outcome]:
    """`run_inline` as a generator; the run is in a thread, and closing the generator stops it and waits for it."""

    def work(emit: Emit, stop: ShouldStop) -> Outcome:
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
    if code == worker.EXIT_DONE and (done := _done(job)) is not None:
        return Outcome("done", code, done)
    if stopping:
        last: Failed = Failed("cancelled", "The run was stopped; it did not answer and was ended.", "", "", False)
    else:
        last = death(job, code)
    store.clean_up(job)
    _append(job, last)
    return Outcome("cancelled" if stopping else "died", code, last)


def _done(job: Path) -> Done | None:
    """The end of a run that went well and could not say so, from the report in its output."""
    try:
        spec = load(job / store.SPEC)
        report = read_json(spec.output_of(spec.formats[0]) / "bitwright.json")
        return Done(spec.output, float(report["seconds"]), report)
    except (BitwrightError, KeyError, TypeError, ValueError):
        return None


def death(job: Path, code: int | None) -> Failed:
    """The `Failed` event for a process that ended with `code` (None: nobody waited for it) and said nothing."""
    log = job / store.LOG
    if code == worker.EXIT_NO_ROOM:
        hint = "Free some room, or choose an output folder on another volume."
        return Failed("disk-full", "The disk is full; the run could not even write its events.", hint, "", False)
    what, hint = cause_of_death(code)
    words = last_words(log)
    message = f"The run {what}." + (f" Its last words: {words}" if words else "")
    return Failed("child-died", message, f"{hint} The log is {log}".strip(), "", False)


class _Child(Steering):
    """The child process: started on entry, steered by commands, certainly gone on exit unless it was detached."""

    def __init__(self, job: Path, command: Sequence[str] | None, patience: Patience) -> None:
        super().__init__(patience)
        self._job = job
        self._detached = False
        argv = command or [sys.executable, "-P", "-m", "core.jobs.worker", str(job)]
        self._process = process.start(argv, job / store.LOG)

    def poll(self) -> int | None:
        return self._process.poll()

    def ask(self, *, stop: bool = False, pause: bool = False) -> None:
        self._send("stop" if stop else "pause" if pause else "resume")

    def detach(self) -> None:
        """Let the child go on without this process. The command waits in the pipe even if it is still starting."""
        store.order(self._job, pause=self.paused)
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
            self.kill()
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

    def terminate(self) -> None:
        if os.name == "nt":
            self._process.send_signal(signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined,unused-ignore]
        else:
            self._process.terminate()

    def kill(self) -> None:
        process.kill(self._process)


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


def _append(job: Path, event: Event) -> None:
    try:
        with store.EventLog(job / store.EVENTS) as log:
            log(event)
    except OSError:
        return  # a full disk is often why it died; the caller has the event all the same
