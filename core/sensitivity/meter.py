"""Progress and remaining time of a sensitivity measurement."""

from __future__ import annotations

import time

from core.events import Emit, Progress

_UNCERTAINTY = 0.2
"""Relative uncertainty of the remaining time."""


class PassProgress:
    """Counter of steps that emits `Progress`. A step of the backward pass takes `_BACK` times as long as a forward one.

    Args:
        forward, backward: Number of steps of each pass.
    """

    _BACK = 3.0

    def __init__(self, emit: Emit, forward: int, backward: int) -> None:
        self._emit = emit
        self._forward = forward
        self._total = forward + self._BACK * backward
        self._done = 0
        self._start = time.monotonic()

    def step(self) -> None:
        """Count one more block and emit the progress."""
        self._done += 1
        completed = min(self._done, self._forward) + self._BACK * max(0, self._done - self._forward)
        remaining = (time.monotonic() - self._start) * (self._total - completed) / completed
        self._emit(
            Progress(min(1.0, completed / self._total), remaining * (1 - _UNCERTAINTY), remaining * (1 + _UNCERTAINTY))
        )
