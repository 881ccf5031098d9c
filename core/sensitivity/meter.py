"""How far an analysis is and how long it will still take. Knows steps as counts."""

from __future__ import annotations

import time

from core.events import Emit, Progress

_UNCERTAINTY = 0.2
"""How far the remaining time may be off, as a share of it."""


class PassProgress:
    """Turns steps done into `Progress`. A step of the way back takes `_BACK` times one of the way there.

    Args:
        forward, backward: number of steps of each way.
    """

    _BACK = 3.0

    def __init__(self, emit: Emit, forward: int, backward: int) -> None:
        self._emit = emit
        self._forward = forward
        self._total = forward + self._BACK * backward
        self._done = 0
        self._start = time.monotonic()

    def step(self) -> None:
        """One more block is done."""
        self._done += 1
        completed = min(self._done, self._forward) + self._BACK * max(0, self._done - self._forward)
        remaining = (time.monotonic() - self._start) * (self._total - completed) / completed
        self._emit(
            Progress(min(1.0, completed / self._total), remaining * (1 - _UNCERTAINTY), remaining * (1 + _UNCERTAINTY))
        )
