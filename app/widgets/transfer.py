"""How fast something arrives, from the share that has arrived, as a line for people. Pure arithmetic.

The rate is that of the last seconds, so it falls to nothing when nothing comes; times are given by the caller.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from core.wording import duration, human, time_range

WINDOW: Final = 10.0
"""Seconds over which the rate is taken."""
SILENCE: Final = 20.0
"""Seconds without a byte after which people should be told."""


class Transfer:
    """A download of `total` bytes (0: not known)."""

    def __init__(self, total: int, now: float) -> None:
        self.total = total
        self.fraction = 0.0
        self._left = (-1.0, -1.0)
        self._last_byte = now
        self._samples: deque[tuple[float, float]] = deque([(now, 0.0)])

    def arrived(self, fraction: float, now: float, seconds_low: float = -1.0, seconds_high: float = -1.0) -> None:
        """Note that this share (0 to 1) is here now, less than before if it began again, and the time that is left."""
        if fraction != self.fraction:
            self._last_byte = now
        if fraction < self.fraction:
            self._samples.clear()
        self.fraction = fraction
        self._left = (seconds_low, seconds_high)
        self._samples.append((now, fraction))
        # One sample from before the window stays, so that there is always something to measure from.
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()

    def rate(self, now: float) -> float:
        """Share per second over the last seconds."""
        start, first = self._samples[0]
        for at, share in self._samples:
            if at > now - WINDOW:
                break
            start, first = at, share
        return max(0.0, self.fraction - first) / (now - start) if now > start else 0.0

    def silent_seconds(self, now: float) -> float:
        """Since the last byte."""
        return max(0.0, now - self._last_byte)

    def text(self, now: float) -> str:
        """`1.2 of 2.5 GB, 34 MB/s, 40 s left`, as much of it as is known."""
        if not self.total:
            return f"{self.fraction:.0%}"
        done, whole = human(self.fraction * self.total), human(self.total)
        same = done.rpartition(" ")[2] == whole.rpartition(" ")[2]
        parts = [f"{done.rpartition(' ')[0] if same else done} of {whole}"]
        rate = self.rate(now)
        if self.silent_seconds(now) >= SILENCE:
            parts.append(f"nothing has come for {duration(self.silent_seconds(now))}")
        elif rate > 0:
            parts.append(f"{human(rate * self.total)}/s")
            if self._left[0] >= 0:
                parts.append(f"{time_range(*self._left)} left")
        return ", ".join(parts)
