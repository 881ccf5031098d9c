"""Following of a run: its events in batches as they are written, its control, and its outcome.

All functions block; the window calls them from a thread.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from core.control import ShouldStop, never
from core.errors import BitwrightError
from core.events import Done, Event, Failed
from core.files import read_json
from core.jobs import store, worker
from core.jobs.process import exit_cause, last_log_line
from core.jobs.steering import RunProcess
from core.spec import load


@dataclass(frozen=True)
class Outcome:
    """The state in which the following of a run ended.

    Attributes:
        state: `detached` means that the run continues without this follower.
        exit_code: Exit code of the child process (negative: a signal); None for inline and adopted runs.
        event: The last event; None where detached.
    """

    state: Literal["done", "failed", "cancelled", "died", "detached"]
    exit_code: int | None
    event: Done | Failed | None


Batches = Generator[list[Event], None, Outcome]
"""Yields the events since the last batch, often none; returns the outcome."""


def follow(
    job: Path,
    process: RunProcess,
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    should_detach: ShouldStop = never,
    *,
    chunk: int = store.CHUNK,
) -> Batches:
    """Yield the events of a run in batches, about 20 times a second and often empty; return its outcome.

    Args:
        should_detach: Return true to let the run continue without this follower. It is then controlled through
            `store.write_request`.
        chunk: Number of bytes of the event file to read at once.
    """
    follower = store.Follower(job / store.EVENTS, start=process.start)
    last: Done | Failed | None = None
    deadline: float | None = None
    with process:
        while True:
            ended = process.has_ended()  # tested before reading, so that the events of an ended process are complete
            events = follower.read(chunk)
            last = last_of(events) or last
            if ended and not events:
                deadline = deadline or time.monotonic() + process.grace
                if last is not None or time.monotonic() >= deadline:
                    break
            yield events
            if should_detach() and process.detach():
                return Outcome("detached", None, None)
            process.control(should_stop(), should_pause())
            if not events:
                time.sleep(process.poll_seconds)
    if last is None:
        outcome = close_stream(job, process.stopping, process.exit_code)
        assert outcome.event is not None
        yield [outcome.event]
        return outcome
    return Outcome(state_of(last), process.exit_code, last)


def replay(job: Path, should_detach: ShouldStop = never, *, chunk: int = store.CHUNK) -> Batches:
    """Yield the events of a job that has ended, in batches; return its outcome. Writes nothing."""
    follower = store.Follower(job / store.EVENTS, start=store.run_offset(job))
    last: Done | Failed | None = None
    while events := follower.read(chunk):
        last = last_of(events) or last
        yield events
        if should_detach():
            return Outcome("detached", None, None)
    if last is None:
        failed = failure_without_event(job, None)
        yield [failed]
        return Outcome("died", None, failed)
    return Outcome(state_of(last), None, last)


def events_of(batches: Batches) -> Generator[Event, None, Outcome]:
    """Yield the events of the batches one by one; return the outcome. Closing this generator closes the batches."""
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


def last_of(events: Sequence[Event]) -> Done | Failed | None:
    """Return the event among these that ends a run, or None."""
    return next((event for event in reversed(events) if isinstance(event, Done | Failed)), None)


def state_of(last: Done | Failed) -> Literal["done", "failed", "cancelled"]:
    """Return the state of a run whose last event is `last`."""
    if isinstance(last, Done):
        return "done"
    return "cancelled" if last.code == "cancelled" else "failed"


def close_stream(job: Path, stopping: bool, code: int | None) -> Outcome:
    """Append the missing last event of a process that has ended, and remove its unfinished output.

    Args:
        stopping: The process was asked to stop, so its end is a cancellation.
        code: Its exit code, where known.
    """
    if code == worker.EXIT_DONE and (done := _done(job)) is not None:
        return Outcome("done", code, done)
    if stopping:
        message = "The run did not respond to the stop request and was terminated."
        last: Failed = Failed("cancelled", message, "", "", False)
    else:
        last = failure_without_event(job, code)
    store.clean_up(job)
    append(job, last)
    return Outcome("cancelled" if stopping else "died", code, last)


def failure_without_event(job: Path, code: int | None) -> Failed:
    """Return the `Failed` event for a process that ended without one, with exit code `code` (None: unknown)."""
    log = job / store.LOG
    if code == worker.EXIT_DISK_FULL:
        hint = "Free some space, or choose an output folder on another volume."
        return Failed("disk-full", "The disk is full; the run could not write its events.", hint, "", False)
    what, hint = exit_cause(code)
    line = last_log_line(log)
    message = f"The run {what}." + (f" Its last output: {line}" if line else "")
    return Failed("child-died", message, f"{hint} The log is {log}".strip(), "", False)


def append(job: Path, event: Event) -> None:
    """Append an event to the event file of a job that no process runs; a full disk is ignored."""
    try:
        with store.EventLog(job / store.EVENTS) as log:
            log(event)
    except OSError:
        return  # a full disk is often the cause of the end; the caller has the event anyway


def _done(job: Path) -> Done | None:
    """Return the `Done` event of a run that could not write it, reconstructed from the report in its output."""
    try:
        spec = load(job / store.SPEC)
        report = read_json(spec.output_of(spec.formats[0]) / "bitwright.json")
        return Done(spec.output, float(report["seconds"]), report)
    except (BitwrightError, KeyError, TypeError, ValueError):
        return None
