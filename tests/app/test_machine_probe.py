"""The measurement of the machine: once, and not during a run."""

from __future__ import annotations

import pytest
from pytestqt.qtbot import QtBot

from app.machine_probe import MachineProbe
from app.shared.context import Context
from core.errors import ChildDied
from core.events import Done
from core.inference.machine import Device, Machine
from core.service.messages import MeasureMachine
from tests.app.recorded_calls import RecordedCalls
from tests.app.steered_runs import SteeredRuns
from tests.app.surroundings import surroundings_with

ANSWER = Machine((Device("cpu", "cpu", "Some Processor", 0, 0),), {"cpu": 1e11}, "cpu", dtype={"cpu": "float32"})


@pytest.fixture
def probe(qtbot: QtBot, context: Context, runs: SteeredRuns, calls: RecordedCalls) -> MachineProbe:
    return MachineProbe(surroundings_with(context, runs=runs, calls=calls))


def test_what_was_measured_reaches_the_draft(probe: MachineProbe, context: Context, calls: RecordedCalls) -> None:
    probe.begin()
    calls.of(MeasureMachine)[0].on_success(ANSWER)
    machine = context.draft.machine
    assert (machine.chosen, machine.throughput, machine.devices[0].name) == ("cpu", {"cpu": 1e11}, "Some Processor")


def test_it_is_measured_once(probe: MachineProbe, calls: RecordedCalls) -> None:
    probe.begin()
    probe.begin()
    assert len(calls.of(MeasureMachine)) == 1


def test_during_a_run_it_waits_for_its_end(probe: MachineProbe, runs: SteeredRuns, calls: RecordedCalls) -> None:
    runs.begin()
    probe.begin()
    before = len(calls.started)
    runs.end(Done("/out", 1.0, {}))
    assert (before, len(calls.of(MeasureMachine))) == (0, 1)


def test_a_machine_that_cannot_be_measured_is_no_error_for_the_user(
    probe: MachineProbe, calls: RecordedCalls, reports: list[object], caplog: pytest.LogCaptureFixture
) -> None:
    probe.begin()
    calls.of(MeasureMachine)[0].on_failure(ChildDied("The helper died.", ""))
    assert reports == []
    assert "could not be measured" in caplog.text
