"""The progress of a run: fractions and remaining times from the measured speed of blocks and steps."""

from __future__ import annotations

import pytest

from core.events import Event, Progress
from core.quant import progress
from core.quant.progress import BlockProgress


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(progress, "time", made)
    monkeypatch.setattr(progress, "give_back_memory", lambda: None)
    return made


def reported(events: list[Event]) -> list[Progress]:
    return [event for event in events if isinstance(event, Progress)]


def test_the_remaining_time_counts_the_start_of_a_block_once(clock: Clock) -> None:
    """A block takes 10 s before its first step, and 10 s for 100 steps."""
    events: list[Event] = []
    meter = BlockProgress(2, 100, events.append)
    for iteration in range(1, 52):
        clock.now = 10 + 0.1 * iteration
        meter.at(0, iteration)
    last = reported(events)[-1]
    typical = (last.seconds_low + last.seconds_high - 10) / 2  # the upper end has 10 s more
    assert typical == pytest.approx(25, rel=0.1)


def test_layers_of_a_start_move_the_bar_once_a_block_has_been_timed(clock: Clock) -> None:
    events: list[Event] = []
    meter = BlockProgress(4, 0, events.append)
    clock.now = 5.0
    meter.layer_started(0)
    assert reported(events) == []
    clock.now = 10.0
    meter.block_done(0, 10.0)
    before = reported(events)[-1].fraction
    clock.now = 15.0
    meter.layer_started(1)
    half = reported(events)[-1].fraction
    clock.now = 20.0
    meter.block_done(1, 10.0)
    after = reported(events)[-1].fraction
    assert before < half < after
    assert half == pytest.approx((before + after) / 2)


def test_a_block_that_takes_longer_than_those_before_it_is_not_done(clock: Clock) -> None:
    events: list[Event] = []
    meter = BlockProgress(2, 0, events.append)
    meter.block_done(0, 1.0)
    clock.now = 100.0
    meter.layer_started(1)
    assert reported(events)[-1].fraction < progress.BEFORE_BLOCKS + 0.93
    assert reported(events)[-1].seconds_high > 0
