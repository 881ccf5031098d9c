"""Following and steering a run that another process started: one whose window was closed, or a terminal's.

Knows the event file, the file of orders and the process that is noted in the job folder; waits for nobody's exit
code. Leaving off ends nothing: the run is not ours. Blocking: a window calls it from a thread.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path

import psutil

from core.control import ShouldStop, never
from core.events import Done, Event, Failed
from core.jobs import store
from core.jobs.child import Outcome, close_stream, death, last_word, state_of
from core.jobs.steering import Patience, Steering

_POLL = 0.1
_GRACE = 0.5
"""Seconds in which the one who started a dead run may say how it ended, before we do."""


def follow_running(
    job: Path,
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    should_leave: ShouldStop = never,
    *,
    patience: Patience | None = None,
    chunk: int = store.CHUNK,
) -> Generator[list[Event], None, Outcome]:
    """The events of a running job from its start, in batches, ten times a second and often empty; then its outcome.

    Args:
        should_leave: true ends the following, not the run.
    """
    follower = store.Follower(job / store.EVENTS, start=store.begins_at(job))
    adopted = _Adopted(job, patience or Patience())
    last: Done | Failed | None = None
    deadline: float | None = None
    while True:
        alive = store.runs(job)
        events = follower.read(chunk)
        last = last_word(events) or last
        if not events and not alive:
            deadline = deadline or time.monotonic() + _GRACE
            if last is not None or time.monotonic() > deadline:
                break
        yield events
        if should_leave():
            return Outcome("detached", None, None)
        adopted.steer(should_stop(), should_pause())
        if not events:
            time.sleep(_POLL)
    if last is None:
        outcome = close_stream(job, adopted.stopping, None)
        assert outcome.event is not None
        yield [outcome.event]
        return outcome
    return Outcome(state_of(last), None, last)


def replay(
    job: Path, should_leave: ShouldStop = never, *, chunk: int = store.CHUNK
) -> Generator[list[Event], None, Outcome]:
    """The events of a job that has ended, in batches, and its outcome; writes nothing."""
    follower = store.Follower(job / store.EVENTS, start=store.begins_at(job))
    last: Done | Failed | None = None
    while events := follower.read(chunk):
        last = last_word(events) or last
        yield events
        if should_leave():
            return Outcome("detached", None, None)
    if last is None:
        failed = death(job, None)
        yield [failed]
        return Outcome("died", None, failed)
    return Outcome(state_of(last), None, last)


class _Adopted(Steering):
    """A process that is not our child: asked by the file of orders."""

    def __init__(self, job: Path, patience: Patience) -> None:
        given = store.orders(job)
        super().__init__(patience, paused=given is not None and given.pause)
        self._job = job

    def ask(self, *, stop: bool = False, pause: bool = False) -> None:
        # a full disk, or a job folder that is gone: the signals that follow a stop need neither
        with contextlib.suppress(OSError):
            store.order(self._job, stop=stop, pause=pause)

    def terminate(self) -> None:
        process = store.runner(self._job)
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.terminate()

    def kill(self) -> None:
        """Kill the process, with what it started where it leads a session of its own."""
        process = store.runner(self._job)
        if process is None:
            return
        with contextlib.suppress(psutil.Error, OSError):
            if os.name == "posix" and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
