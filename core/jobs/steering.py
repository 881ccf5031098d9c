"""Passing on what somebody wants of a run, and insisting: asked first, then terminated, then killed.

Knows wishes and seconds; how a process is asked or ended is for those who steer one.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from dataclasses import dataclass


@dataclass(frozen=True)
class Patience:
    """Seconds to wait after the stop command, and then after SIGTERM, before the next harder means."""

    command: float = 10.0
    terminate: float = 5.0


class Steering(ABC):
    """A process that is steered.

    Attributes:
        stopping: it was asked to stop.
    """

    def __init__(self, patience: Patience, *, paused: bool = False) -> None:
        self.stopping = False
        self.paused = paused
        self._patience = patience
        self._since = 0.0
        self._terminated = False

    def steer(self, stop: bool, pause: bool) -> None:
        """Pass on what the caller wants; a stop that is not obeyed gets harder with time."""
        now = time.monotonic()
        if stop and not self.stopping:
            self.stopping, self._since = True, now
            self.ask(stop=True)
        elif not self.stopping and pause != self.paused:
            self.paused = pause
            self.ask(pause=pause)
        elif self.stopping and now - self._since > self._patience.command + self._patience.terminate:
            self.kill()
        elif self.stopping and now - self._since > self._patience.command and not self._terminated:
            self._terminated = True
            self.terminate()

    @abstractmethod
    def ask(self, *, stop: bool = False, pause: bool = False) -> None:
        """Ask the process to stop, to pause, or (neither) to go on."""

    @abstractmethod
    def terminate(self) -> None:
        """Order its end (SIGTERM)."""

    @abstractmethod
    def kill(self) -> None:
        """Kill it, with what it started."""
