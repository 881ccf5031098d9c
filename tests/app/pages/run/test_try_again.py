"""Obstacles to starting a run again."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from app.pages.run.try_again import needed_bytes, obstacle
from app.shared import resource_needs
from app.shared.run.record import RunRecord
from core.bitsmap import BitsMap, Rule
from core.events import Started
from core.spec import JobSpec
from tests.app.recorded_runs import record_of

if TYPE_CHECKING:
    from app.shared.models.opened import OpenedModel

SPEC = JobSpec("owner/model", "/out")
STARTED = Started("m", 1, 1, 1, "cpu", "float32", 2, {"planned_bytes": {"auto_round": 5000}})


@pytest.fixture(autouse=True)
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Bytes that are free."""
    room = [1000]
    monkeypatch.setattr(resource_needs, "free_bytes", lambda _folder: room[0])
    return room


def told(record: RunRecord, model: OpenedModel | None) -> str:
    """The obstacle to starting the run of `record` again."""
    assert record.spec is not None
    return obstacle(record.spec, needed_bytes(record, record.spec, model))


def test_the_shapes_of_the_open_model_say_what_is_needed(opened: OpenedModel) -> None:
    mine = replace(opened, name=SPEC.model)
    assert told(RunRecord(SPEC), mine).startswith("Needs 1.")


def test_of_another_model_the_run_itself_has_told(opened: OpenedModel) -> None:
    assert told(record_of([STARTED], SPEC), opened) == "Needs 5 kB of disk space, 1 kB free"


def test_where_nobody_knows_it_may_be_tried(opened: OpenedModel) -> None:
    assert told(RunRecord(SPEC), opened) == ""


def test_with_room_it_may_be_tried(free: list[int]) -> None:
    free[0] = 10_000
    assert told(record_of([STARTED], SPEC), None) == ""


def test_a_map_that_does_not_fit_is_left_to_the_run(opened: OpenedModel) -> None:
    spec = replace(SPEC, model=opened.name, bits_map=BitsMap(layers=(Rule("no.such.layer", bits=2),)))
    assert told(RunRecord(spec), opened) == ""
