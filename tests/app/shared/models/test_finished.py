"""The list of finished models, requested from the service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from app.shared.models.finished import FinishedModels
from core.errors import ChildDied
from core.service.messages import OutputList, OutputModel
from tests.app.recorded_calls import RecordedCalls

MADE = OutputModel(Path("/models/a"), "", "W4", "x/y", 0.0)


@pytest.fixture
def models(qapp: object, calls: RecordedCalls) -> FinishedModels:
    service: Any = calls
    return FinishedModels(service)


def test_what_is_found_is_offered(models: FinishedModels, calls: RecordedCalls) -> None:
    models.look()
    calls.started[0].on_success(OutputList((MADE,)))
    assert [choice.name for choice in models.choices] == ["/models/a"]


def test_a_second_look_waits_for_the_first(models: FinishedModels, calls: RecordedCalls) -> None:
    models.look()
    models.look()
    assert len(calls.started) == 1
    calls.started[0].on_success(OutputList())
    assert len(calls.started) == 2


def test_a_look_that_fails_leaves_what_was_there(models: FinishedModels, calls: RecordedCalls) -> None:
    models.look()
    calls.started[0].on_success(OutputList((MADE,)))
    models.look()
    calls.started[1].on_failure(ChildDied("It has ended.", ""))
    assert (models.looked, len(models.choices)) == (True, 1)
