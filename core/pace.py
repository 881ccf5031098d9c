"""How long a transfer will still take, as a range, from how fast it went in the last seconds; and the telling of it.

Knows bytes and seconds, not what is transferred from where to where.
"""

from __future__ import annotations

import time
from collections import deque
from itertools import pairwise
from typing import Final

from core.events import Emit, Progress

WINDOW: Final = 20.0
"""Seconds that count."""
LEAST: Final = 2.0
"""Seconds of transfer before anything is promised."""
_PIECES: Final = 4
_SLOWEST: Final = 0.25
"""A pause within the window makes the range wide, not endless."""

UNKNOWN: Final = (-1.0, -1.0)
_TOLD_EVERY: Final = 0.45
"""Seconds between two `Progress` events."""


class Pace:
    """Counts of bytes by time, of the last WINDOW seconds; times are given by the caller."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def note(self, now: float, count: int) -> None:
        """`count` bytes have come in all."""
        if self._samples and count < self._samples[-1][1]:
            self._samples.clear()  # it began again
        self._samples.append((now, count))
        while self._samples[0][0] < now - WINDOW:
            self._samples.popleft()

    def remaining(self, left: int) -> tuple[float, float]:
        """Seconds until `left` more bytes have come: at the fastest and at the slowest of the window; UNKNOWN early."""
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
    """`Progress` of a transfer of `total` bytes, about twice a second; nothing where the total is not known (0)."""

    def __init__(self, total: int, emit: Emit) -> None:
        self._total, self._emit = total, emit
        self._pace = Pace()
        self._told = -_TOLD_EVERY

    def tell(self, here: int, arrived: int | None = None) -> None:
        """So many bytes are here now; `arrived` of them came now, where the others were left by an earlier try."""
        now = time.monotonic()
        if not self._total or now - self._told < _TOLD_EVERY:
            return
        self._told = now
        here = min(here, self._total)
        self._pace.note(now, here if arrived is None else arrived)
        self._emit(Progress(here / self._total, *self._pace.remaining(self._total - here)))

    def end(self) -> None:
        """All of it is here."""
        if self._total:
            self._emit(Progress(1.0, 0.0, 0.0))
