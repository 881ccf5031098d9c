"""The rate and remaining time of a download as a line of text, computed from the received share.

The rate is a moving average over the last seconds; the caller passes the time.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from core.wording import duration, human, time_range

WINDOW: Final = 10.0
"""Window of the moving average in seconds."""
SILENCE: Final = 20.0
"""Seconds without data after which the text mentions it."""


class Transfer:
    """A download of `total` bytes (0: unknown)."""

    def __init__(self, total: int, now: float) -> None:
        self.total = total
        self.fraction = 0.0
        self._left = (-1.0, -1.0)
        self._last_byte = now
        self._samples: deque[tuple[float, float]] = deque([(now, 0.0)])

    def arrived(self, fraction: float, now: float, seconds_low: float = -1.0, seconds_high: float = -1.0) -> None:
        """Add a sample: the received share (0 to 1; lower than before after a restart) and the remaining time."""
        if fraction != self.fraction:
            self._last_byte = now
        if fraction < self.fraction:
            self._samples.clear()
        self.fraction = fraction
        self._left = (seconds_low, seconds_high)
        self._samples.append((now, fraction))
        # Keep one sample from before the window as the reference.
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()

    def rate(self, now: float) -> float:
        """Return the share per second over the last seconds."""
        start, first = self._samples[0]
        for at, share in self._samples:
            if at > now - WINDOW:
                break
            start, first = at, share
        return max(0.0, self.fraction - first) / (now - start) if now > start else 0.0

    def silent_seconds(self, now: float) -> float:
        """Return the seconds since the last data."""
        return max(0.0, now - self._last_byte)

    def text(self, now: float) -> str:
        """Return the known parts of `1.2 of 2.5 GB, 34 MB/s, 40 s left`."""
        if not self.total:
            return f"{self.fraction:.0%}"
        done, whole = human(self.fraction * self.total), human(self.total)
        same = done.rpartition(" ")[2] == whole.rpartition(" ")[2]
        parts = [f"{done.rpartition(' ')[0] if same else done} of {whole}"]
        rate = self.rate(now)
        if self.silent_seconds(now) >= SILENCE:
            parts.append(f"no data for {duration(self.silent_seconds(now))}")
        elif rate > 0:
            parts.append(f"{human(rate * self.total)}/s")
            if self._left[0] >= 0:
                parts.append(f"{time_range(*self._left)} left")
        return ", ".join(parts)
