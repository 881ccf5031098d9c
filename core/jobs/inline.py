"""A run in this process, which imports torch, with the events and outcome of a run in a child process."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from core.control import Control, ShouldStop, never
from core.events import Emit, Event
from core.jobs import store, worker
from core.jobs.failure import RunProgress, failed_event
from core.jobs.following import Batches, Outcome, state_of
from core.threads import stream


def run_inline(
    job: Path,
    on_event: Callable[[Event], None],
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    *,
    run: Callable[[], worker.Run] = worker.pipeline,
) -> Outcome:
    """Run the job in this process and call `on_event` for each event."""
    try:
        store.claim(job)
        with worker.EventRecorder(job) as log:

            def emit(event: Event) -> None:
                log(event)
                on_event(event)

            last = worker.perform(job, emit, Control(should_stop, should_pause), lambda *args: run()(*args))
    except OSError as error:  # the job folder cannot be written, before any work
        last = failed_event(error, RunProgress(), job / store.LOG)
        on_event(last)
    finally:
        store.release(job)
    return Outcome(state_of(last), None, last)


def follow_inline(job: Path, should_stop: ShouldStop = never, should_pause: ShouldStop = never) -> Batches:
    """`run_inline` in a thread, as batches of one event. Closing the generator stops the run and waits for its end."""

    def work(emit: Emit, stop: ShouldStop) -> Outcome:
        return run_inline(job, emit, stop, should_pause)

    events = stream(work, should_stop)
    try:
        while True:
            try:
                event = next(events)
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome
            yield [event]
    finally:
        events.close()
