"""Formatting of numbers, bytes and durations for the terminal and the window; independent of the locale."""

from __future__ import annotations

import math
from datetime import datetime

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def human(count: float) -> str:
    """Return bytes with a decimal unit: `98.1 MB`."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(count) < 999.5:  # above, three digits would be 1e+03
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def exact_bytes(count: int) -> str:
    """Return bytes in the largest decimal unit in which they have at most three decimal places: `8 GB`, `1.5 MB`."""
    for size, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= size and count * 1000 % size == 0:
            return f"{count / size:.3f}".rstrip("0").rstrip(".") + f" {unit}"
    return f"{count} bytes"


def duration(seconds: float) -> str:
    """Return a duration: `42 ms`, `2.5 s`, `45 s`, `12 min`, `3.5 h`."""
    if 0 < seconds < 0.0995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 90:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def time_range(low: float, high: float) -> str:
    """Return a range of seconds: `3 to 5 min`, or `about 12 min` if both ends are equal after rounding."""
    first, last = duration(low), duration(high)
    if first == last:
        return f"about {first}"
    same = first.rpartition(" ")[2] == last.rpartition(" ")[2]
    return f"{first.rpartition(' ')[0] if same else first} to {last}"


def figure(value: float) -> str:
    """Return a number with three significant digits: `0.147`, `23.9`, `2.4e-05`; a dash for NaN and infinity."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    return f"{value:.3g}" if abs(value) < 1000 or abs(value) >= 1e6 else f"{value:,.0f}"


def short_figure(value: float) -> str:
    """Return a number with two digits: `0.12`, `3.4e-5`; a dash for NaN and infinity."""
    if not math.isfinite(value):
        return "\N{EN DASH}"
    if value == 0 or 0.01 <= abs(value) < 1e6:
        return f"{value:.2g}" if abs(value) < 100 else figure(value)
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits}e{int(power)}"


def percentage(share: float) -> str:
    """Return a fraction with two digits: `0.12 %`, `3.1 %`, `46 %`, `120 %`; a dash for NaN and infinity."""
    if not math.isfinite(share):
        return "\N{EN DASH}"
    value = float(f"{100 * share:.2g}")
    return f"{value:.0f} %" if abs(value) >= 10 else f"{short_figure(value)} %"


def count(number: float) -> str:
    """Return a count: `135 million`, `1.24 billion`, `12,480`."""
    for size, word in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million")):
        if number >= 0.9995 * size:
            return f"{number / size:.3g} {word}"
    return f"{number:,.0f}"


def day(when: datetime) -> str:
    """Return day and month in English: `23 Oct`."""
    return f"{when.day:02} {_MONTHS[when.month - 1]}"
