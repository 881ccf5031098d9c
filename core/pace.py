"""Estimate of the remaining time of a transfer from its rate in the last seconds, and `Progress` events for it."""

from __future__ import annotations

import time
from collections import deque
from itertools import pairwise
from typing import Final

from core.events import Emit, Progress

WINDOW: Final = 20.0
"""Seconds over which the rate is measured."""
LEAST: Final = 2.0
"""Minimum seconds of transfer before an estimate."""
_PIECES: Final = 4
_SLOWEST: Final = 0.25
"""Minimum of the slowest rate, as a fraction of the mean, so that a pause does not give an infinite estimate."""

UNKNOWN: Final = (-1.0, -1.0)
_INTERVAL: Final = 0.45
"""Seconds between two `Progress` events."""


class Pace:
    """Byte counts of the last WINDOW seconds, with times given by the caller."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now: float, count: int) -> None:
        """Record that `count` bytes in total have arrived."""
        if self._samples and count < self._samples[-1][1]:
            self._samples.clear()  # the transfer was restarted
        self._samples.append((now, count))
        while self._samples[0][0] < now - WINDOW:
            self._samples.popleft()

    def remaining(self, left: int) -> tuple[float, float]:
        """Return the seconds for `left` more bytes, at the fastest and the slowest rate; UNKNOWN at the start."""
        if left <= 0:
            return 0.0, 0.0
        if len(self._samples) < 2:
            return UNKNOWN
        samples = list(self._samples)
        (first, start), (last, end) = samples[0], samples[-1]
        if last - first < LEAST or end <= start:
            return UNKNOWN
        overall = (end - start) / (last - first)
        marks = [samples[step * (len(samples) - 1) // _PIECES] for step in range(_PIECES + 1)]
        rates = [
            (after - before) / (late - early) for (early, before), (late, after) in pairwise(marks) if late > early
        ]
        return left / max(overall, *rates), left / max(min(overall, *rates), overall * _SLOWEST)


class PacedProgress:
    """Emitter of `Progress` events of a transfer of `total` bytes, about twice per second; none if `total` is 0."""

    def __init__(self, total: int, emit: Emit) -> None:
        self._total, self._emit = total, emit
        self._pace = Pace()
        self._last_emitted = -_INTERVAL

    def tell(self, here: int, arrived: int | None = None) -> None:
        """Record that `here` bytes are present; `arrived` of them come from this attempt, None for all."""
        now = time.monotonic()
        if not self._total or now - self._last_emitted < _INTERVAL:
            return
        self._last_emitted = now
        here = min(here, self._total)
        self._pace.note(now, here if arrived is None else arrived)
        self._emit(Progress(here / self._total, *self._pace.remaining(self._total - here)))

    def end(self) -> None:
        """Emit the event of a complete transfer."""
        if self._total:
            self._emit(Progress(1.0, 0.0, 0.0))
