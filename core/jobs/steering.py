"""Control of the process that runs a job: a stop is requested first, then enforced by SIGTERM and SIGKILL."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class StopTimeouts:
    """Timeouts of a stop, in seconds: from the request to SIGTERM, and from SIGTERM to SIGKILL."""

    command: float = 10.0
    terminate: float = 5.0


class RunProcess(ABC):
    """The process that runs a job, as its follower observes and controls it. A context manager.

    Args:
        start: Offset in the event file, in bytes, of the first event of this run.
        paused: The process has already been asked to pause.

    Attributes:
        grace: Seconds after the end of the process in which another follower may still write the last event.
        poll_seconds: Polling interval while the process writes no events, in seconds.
        stopping: The process has been asked to stop.
    """

    grace = 0.0
    poll_seconds = 0.05

    def __init__(self, patience: StopTimeouts, start: int, *, paused: bool = False) -> None:
        self.start = start
        self.stopping = False
        self.paused = paused
        self._patience = patience
        self._since = 0.0
        self._terminated = False

    def __enter__(self) -> RunProcess:
        return self

    @abstractmethod
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """End following the process."""

    def control(self, stop: bool, pause: bool) -> None:
        """Forward stop and pause requests. A stop without effect is enforced by SIGTERM and SIGKILL after timeouts."""
        now = time.monotonic()
        if stop and not self.stopping:
            self.stopping, self._since = True, now
            self.request(stop=True)
        elif not self.stopping and pause != self.paused:
            self.paused = pause
            self.request(pause=pause)
        elif self.stopping and now - self._since > self._patience.command + self._patience.terminate:
            self.kill()
        elif self.stopping and now - self._since > self._patience.command and not self._terminated:
            self._terminated = True
            self.terminate()

    @property
    @abstractmethod
    def exit_code(self) -> int | None:
        """The exit code (negative: a signal); None while the process runs, and for a process that is not a child."""

    @abstractmethod
    def has_ended(self) -> bool:
        """Return whether the process has ended."""

    @abstractmethod
    def detach(self) -> bool:
        """Let the process continue without this follower; return false where that is no longer possible."""

    @abstractmethod
    def request(self, *, stop: bool = False, pause: bool = False) -> None:
        """Request the process to stop, to pause or, with neither, to resume."""

    @abstractmethod
    def terminate(self) -> None:
        """Send SIGTERM."""

    @abstractmethod
    def kill(self) -> None:
        """Kill the process and the processes that it started."""
