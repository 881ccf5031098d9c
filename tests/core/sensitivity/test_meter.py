"""Progress of a sensitivity measurement."""

from __future__ import annotations

from core.events import Event, Progress
from core.sensitivity.meter import PassProgress


def shares(forward: int, backward: int) -> list[float]:
    events: list[Event] = []
    meter = PassProgress(events.append, forward, backward)
    for _ in range(forward + backward):
        meter.step()
    return [event.fraction for event in events if isinstance(event, Progress)]


def test_a_backward_step_counts_as_three_forward_steps() -> None:
    assert shares(3, 3) == [1 / 12, 2 / 12, 3 / 12, 6 / 12, 9 / 12, 1.0]


def test_a_forward_pass_alone_reaches_one() -> None:
    assert shares(2, 0) == [0.5, 1.0]
