"""How long a transfer will still take, as a range, from how fast it went in the last seconds. Pure arithmetic."""

from __future__ import annotations

from collections import deque
from itertools import pairwise
from typing import Final

WINDOW: Final = 20.0
"""Seconds that count."""
LEAST: Final = 2.0
"""Seconds of transfer before anything is promised."""
_PIECES: Final = 4
_SLOWEST: Final = 0.25
"""A pause within the window makes the range wide, not endless."""

UNKNOWN: Final = (-1.0, -1.0)


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
