"""Following of a run that another process started, for example a window that was closed, or a terminal."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil

from core.control import ShouldStop, never
from core.jobs import store
from core.jobs.following import Batches, follow
from core.jobs.steering import RunProcess, StopTimeouts


def follow_running(
    job: Path,
    should_stop: ShouldStop = never,
    should_pause: ShouldStop = never,
    should_detach: ShouldStop = never,
    *,
    patience: StopTimeouts | None = None,
    chunk: int = store.CHUNK,
) -> Batches:
    """`follow` a running job from the start of its run. Closing the generator does not end the run."""
    adopted = AdoptedProcess(job, patience or StopTimeouts())
    return (yield from follow(job, adopted, should_stop, should_pause, should_detach, chunk=chunk))


class AdoptedProcess(RunProcess):
    """A process that is not a child of this one, controlled through the control file and by signals."""

    grace = 0.5
    poll_seconds = 0.1

    def __init__(self, job: Path, patience: StopTimeouts) -> None:
        given = store.read_request(job)
        super().__init__(patience, store.run_offset(job), paused=given is not None and given.pause)
        self._job = job

    def __exit__(self, *_error: object) -> None:
        """Leave the process running."""

    @property
    def exit_code(self) -> int | None:
        return None

    def has_ended(self) -> bool:
        return not store.is_running(self._job)

    def detach(self) -> bool:
        return True

    def request(self, *, stop: bool = False, pause: bool = False) -> None:
        # a full disk, or a job folder that was removed: the signals that follow a stop need neither
        with contextlib.suppress(OSError):
            store.write_request(self._job, stop=stop, pause=pause)

    def terminate(self) -> None:
        process = store.running_process(self._job)
        if process is not None:
            with contextlib.suppress(psutil.Error):
                process.terminate()

    def kill(self) -> None:
        """Kill the process, and its whole process group if it leads one."""
        process = store.running_process(self._job)
        if process is None:
            return
        with contextlib.suppress(psutil.Error, OSError):
            if os.name == "posix" and os.getpgid(process.pid) == process.pid:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
