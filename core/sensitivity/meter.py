"""How far an analysis is and how long it will still take. Knows steps as counts."""

from __future__ import annotations

import time

from core.events import Emit, Progress

_SPREAD = 0.2
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
        self._whole = forward + self._BACK * backward
        self._done = 0
        self._began = time.monotonic()

    def step(self) -> None:
        """One more block is done."""
        self._done += 1
        behind = min(self._done, self._forward) + self._BACK * max(0, self._done - self._forward)
        left = (time.monotonic() - self._began) * (self._whole - behind) / behind
        self._emit(Progress(min(1.0, behind / self._whole), left * (1 - _SPREAD), left * (1 + _SPREAD)))
