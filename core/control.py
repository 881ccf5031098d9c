"""Callbacks through which a caller stops or pauses a long operation."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from core.errors import Cancelled

ShouldStop = Callable[[], bool]
"""A callback that a long operation polls; true requests that it stops (or pauses, for `should_pause`)."""


def never() -> bool:
    """Return False: the default callback, which requests nothing."""
    return False


def check_stop(should_stop: ShouldStop, message: str = "The run was cancelled.") -> None:
    """Raise Cancelled with the message if `should_stop()` is true."""
    if should_stop():
        raise Cancelled(message)


@dataclass(frozen=True)
class Control:
    """The callbacks that a run polls while it works.

    Attributes:
        should_stop: True requests the end of the run, which then raises `Cancelled`.
        should_pause: True makes the run wait at its next block boundary.
    """

    should_stop: ShouldStop = never
    should_pause: ShouldStop = never

    def wait_while_paused(self, poll: float = 0.1) -> None:
        """Block while a pause is requested and no stop is. Called at block boundaries."""
        while self.should_pause() and not self.should_stop():
            time.sleep(poll)
