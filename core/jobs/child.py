"""A run in a child process of this one, which ends with its parent unless it was detached."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from core.control import ShouldStop, never
from core.jobs import process, store
from core.jobs.following import Batches, follow
from core.jobs.steering import RunProcess, StopTimeouts

Command = Callable[[Path], Sequence[str]]
"""Returns the command line of the child process that runs the job in this folder."""


def follow_child(
    job: Path,
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    should_detach: ShouldStop = never,
    *,
    command: Command | None = None,
    patience: StopTimeouts | None = None,
    chunk: int = store.CHUNK,
) -> Batches:
    """Run the job in a child process and `follow` it. Closing the generator ends the child.

    Args:
        command: Replaces the command line of the child, which is the worker of this package.
    """
    child = ChildProcess(job, command, patience or StopTimeouts())
    return (yield from follow(job, child, should_stop, should_pause, should_detach, chunk=chunk))


class ChildProcess(RunProcess):
    """A child process, started on entry, controlled through its stdin; ended on exit unless it was detached."""

    def __init__(self, job: Path, command: Command | None, patience: StopTimeouts) -> None:
        events = job / store.EVENTS
        super().__init__(patience, events.stat().st_size if events.exists() else 0)
        self._job = job
        self._command = (command or _worker)(job)
        self._detached = False
        self._process: subprocess.Popen[bytes]

    @property
    def exit_code(self) -> int | None:
        return self._process.poll()

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def request(self, *, stop: bool = False, pause: bool = False) -> None:
        self._send("stop" if stop else "pause" if pause else "resume")

    def detach(self) -> bool:
        """Let the child continue without this process. The command waits in the pipe while the child starts."""
        if self.stopping or self.has_ended():
            return False
        store.write_request(self._job, pause=self.paused)
        self._send("detach")
        self._detached = True
        if self._process.stdin is not None:
            _close(self._process.stdin)
        # still waited for, so that it leaves no zombie and its handle is not released while it runs
        threading.Thread(target=self._process.wait, name="detached", daemon=True).start()
        return True

    def __enter__(self) -> ChildProcess:
        self._process = process.start(self._command, self._job / store.LOG)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._detached:
            return
        try:
            while self._process.poll() is None:
                self.control(stop=True, pause=False)
                time.sleep(self.poll_seconds)
        finally:
            # the child is still alive here only if a second Ctrl-C interrupted the loop above
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
            return  # the child has ended; `has_ended` shows it

    def terminate(self) -> None:
        if os.name == "nt":
            self._process.send_signal(signal.CTRL_BREAK_EVENT)  # type: ignore[attr-defined,unused-ignore]
        else:
            self._process.terminate()

    def kill(self) -> None:
        process.kill(self._process)


def _worker(job: Path) -> Sequence[str]:
    return [sys.executable, "-P", "-m", "core.jobs.worker", str(job)]


def _close(stream: object) -> None:
    try:
        stream.close()  # type: ignore[attr-defined]
    except OSError:
        return  # unsent bytes for a child that has ended
