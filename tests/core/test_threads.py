"""A function that emits becomes a generator, with its value, its errors and its end."""

from __future__ import annotations

import threading

import pytest

from core.control import ShouldStop
from core.events import Emit, Stage
from core.threads import stream


def test_events_come_in_order_and_the_value_last() -> None:
    def work(emit: Emit, _stop: ShouldStop) -> int:
        for name in "abc":
            emit(Stage(name))
        return 42

    events = stream(work)
    seen = [next(events) for _ in range(3)]
    assert [event.name for event in seen if isinstance(event, Stage)] == ["a", "b", "c"]
    with pytest.raises(StopIteration) as ended:
        next(events)
    assert ended.value.value == 42


def test_an_error_is_raised_where_the_events_are_read() -> None:
    def work(emit: Emit, _stop: ShouldStop) -> None:
        emit(Stage("a"))
        raise LookupError("mine")

    events = stream(work)
    next(events)
    with pytest.raises(LookupError, match="mine"):
        next(events)


def test_closing_stops_the_work_and_waits_for_it() -> None:
    ended = threading.Event()

    def work(emit: Emit, stop: ShouldStop) -> None:
        emit(Stage("a"))
        while not stop():
            ended.wait(0.001)
        ended.set()

    events = stream(work)
    next(events)
    events.close()
    assert ended.is_set()


def test_the_callers_wish_to_stop_is_passed_on() -> None:
    def work(_emit: Emit, stop: ShouldStop) -> bool:
        return stop()

    with pytest.raises(StopIteration) as ended:
        next(stream(work, lambda: True))
    assert ended.value.value is True
