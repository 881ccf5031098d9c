"""How a run asks whether it should stop or wait. Knows nothing of processes, pipes or windows."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import Cancelled


def never() -> bool:
    """The answer of somebody who does not ask for anything."""
    return False


def check_stop(should_stop: Callable[[], bool], message: str = "The run was cancelled.") -> None:
    """Raise Cancelled with the message if `should_stop` says so."""
    if should_stop():
        raise Cancelled(message)


@dataclass(frozen=True)
class Control:
    """Two questions that a run asks while it works.

    Attributes:
        should_stop: true when the run shall end soon; the run then raises `Cancelled`.
        should_pause: true while the run shall wait at its next block boundary.
    """

    should_stop: Callable[[], bool] = never
    should_pause: Callable[[], bool] = never

    def wait_while_paused(self, poll: float = 0.1) -> None:
        """Return when nobody asks for a pause, or when a stop is asked for. Called at block boundaries."""
        while self.should_pause() and not self.should_stop():
            time.sleep(poll)
