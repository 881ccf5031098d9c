"""Numbers as people read them, the same in the terminal and in the window. Pure functions; knows no locale."""

from __future__ import annotations

import math
from datetime import datetime

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def human(count: float) -> str:
    """Bytes in powers of 1000, as disks and file managers count: `98.1 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 999.5:  # above, three digits would be 1e+03
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def duration(seconds: float) -> str:
    """Seconds: `42 ms`, `2.5 s`, `45 s`, `12 min`, `3.5 h`."""
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def time_range(low: float, high: float) -> str:
    """A range of seconds in one unit where that reads well: `3 to 5 min`; `about 12 min` where both ends agree."""
    first, last = duration(low), duration(high)
    if first == last:
        return f"about {first}"
    same = first.rpartition(" ")[2] == last.rpartition(" ")[2]
    return f"{first.rpartition(' ')[0] if same else first} to {last}"


def figure(value: float) -> str:
    """Three significant digits without an exponent where it is short: `0.147`, `23.9`, `2.4e-05`; a dash for NaN."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= 1e6 else f"{value:,.0f}"


def count(number: float) -> str:
    """A number of things: `135 million`, `1.24 billion`, `12,480`."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"


def day(when: datetime) -> str:
    """A day of a year that is known: `23 Oct`, whatever language the system's locale has."""
    return f"{when.day:02} {_MONTHS[when.month - 1]}"
