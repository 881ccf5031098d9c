"""Tests of the remaining time of simulated transfers: constant, varying, stalled, restarted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import pace
from core.events import Event, Progress
from core.pace import UNKNOWN, Pace


def after(*steps: tuple[float, int]) -> Pace:
    """A pace that has seen these times and counts."""
    pace = Pace()
    for now, count in steps:
        pace.note(now, count)
    return pace


def test_nothing_is_promised_at_the_start() -> None:
    assert after((0.0, 0), (0.5, 1000)).remaining(10_000) == UNKNOWN


def test_an_even_transfer_has_one_answer() -> None:
    pace = after(*((second / 2, 500 * second) for second in range(20)))
    assert pace.remaining(10_000) == pytest.approx((10.0, 10.0))


def test_an_uneven_transfer_has_a_range_around_the_mean() -> None:
    slow = [(float(second), 100 * second) for second in range(8)]
    fast = [(8.0 + second, 800 + 900 * second) for second in range(8)]
    low, high = after(*slow, *fast).remaining(9000)
    assert low == pytest.approx(10.0, rel=0.2)
    assert high > 2 * low


def test_a_transfer_that_stopped_promises_nothing() -> None:
    pace = after((0.0, 0), (1.0, 1000), *((float(second), 1000) for second in range(2, 30)))
    assert pace.remaining(5) == UNKNOWN


def test_a_short_pause_does_not_make_the_end_unreachable() -> None:
    steps = [(float(second), 1000 * min(second, 10)) for second in range(15)]
    low, high = after(*steps).remaining(10_000)
    assert 0 < low < high < 100


def test_a_transfer_that_begins_again_is_measured_from_there() -> None:
    pace = after((0.0, 0), (5.0, 50_000), (6.0, 100), (7.0, 1100), (8.0, 2100))
    assert pace.remaining(1000) == pytest.approx((1.0, 1.0))


def test_nothing_left_takes_no_time() -> None:
    assert Pace().remaining(0) == (0.0, 0.0)


@given(st.lists(st.tuples(st.floats(0.01, 5), st.integers(0, 10**9)), min_size=2, max_size=60), st.integers(1, 10**12))
def test_a_range_is_never_upside_down(steps: list[tuple[float, int]], left: int) -> None:
    pace, now, count = Pace(), 0.0, 0
    for wait, gained in steps:
        now, count = now + wait, count + gained
        pace.note(now, count)
        low, high = pace.remaining(left)
        assert (low, high) == UNKNOWN or 0 <= low <= high


def test_progress_is_told_twice_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(pace.time, "monotonic", lambda: now[0])
    told: list[Event] = []
    progress = pace.PacedProgress(100, told.append)
    for step in range(11):
        now[0] = step / 10
        progress.tell(10 * step)
    progress.end()
    assert [event.fraction for event in told if isinstance(event, Progress)] == [0.0, 0.5, 1.0, 1.0]


def test_an_unknown_total_is_not_told() -> None:
    told: list[Event] = []
    pace.PacedProgress(0, told.append).tell(10)
    assert told == []
