"""Runs that outlive the process that started them: detached, adopted, and controlled through the control file."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import psutil
import pytest

from core.control import ShouldStop, never
from core.events import Done, Event, Failed, Log, Stage
from core.files import write_json
from core.jobs import adopt, following, store
from core.jobs.child import Command, follow_child
from core.jobs.following import Batches, Outcome
from core.jobs.steering import StopTimeouts
from core.spec import JobSpec

FAKE = Path(__file__).with_name("fake_worker.py")
SHORT = StopTimeouts(command=1.0, terminate=0.3)


@pytest.fixture
def outputs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs"


@pytest.fixture
def job(outputs: Path) -> Path:
    return store.create(JobSpec("demo", str(outputs / "out")))


def drain(batches: Batches) -> tuple[Outcome, list[Event]]:
    seen: list[Event] = []
    while True:
        try:
            seen += next(batches)
        except StopIteration as end:
            return end.value, seen


def fake(behaviour: str) -> Command:
    return lambda job: [sys.executable, str(FAKE), behaviour, str(job)]


def let_go(job: Path, behaviour: str) -> None:
    """Start a child and detach it after its first event."""
    seen: list[Event] = []
    batches = follow_child(job, should_detach=lambda: bool(seen), command=fake(behaviour))
    for events in batches:
        seen += events
    assert seen


def found(job: Path, should_stop: ShouldStop = never, **more: object) -> tuple[Outcome, list[Event]]:
    return drain(adopt.follow_running(job, should_stop, patience=SHORT, **more))  # type: ignore[arg-type]


def test_a_detached_run_continues_and_can_be_adopted(job: Path) -> None:
    let_go(job, "pausing")
    assert store.newest_running() == job
    store.write_request(job, pause=True)
    asked = iter([True] * 20)
    outcome, seen = found(job, should_pause=lambda: next(asked, False))
    assert outcome.state == "done"
    assert [type(event) for event in seen] == [Stage, Log, Done]


def test_a_run_that_is_detached_while_paused_stays_paused(job: Path) -> None:
    seen: list[Event] = []
    paused = lambda: any(isinstance(event, Log) for event in seen)  # noqa: E731
    for events in follow_child(job, should_pause=lambda: True, should_detach=paused, command=fake("pausing")):
        seen += events
    assert store.read_request(job) == store.ControlRequest(pause=True)
    assert found(job)[0].state == "done"  # the follower requests no pause, so the run resumes


def test_an_adopted_run_stops_on_request(job: Path, outputs: Path) -> None:
    let_go(job, "obedient")
    outcome, _ = found(job, lambda: True)
    assert outcome.state == "cancelled"
    assert list(outputs.iterdir()) == []


def test_an_adopted_run_that_does_not_stop_is_killed(job: Path, outputs: Path) -> None:
    let_go(job, "deaf")
    process = store.running_process(job)
    outcome, seen = drain(adopt.follow_running(job, lambda: True, patience=StopTimeouts(0.1, 0.1)))
    assert outcome.state == "cancelled"
    assert isinstance(seen[-1], Failed)
    assert process is not None
    psutil.wait_procs([process], timeout=10)
    assert list(outputs.iterdir()) == []


def test_detaching_from_an_adopted_run_does_not_end_it(job: Path) -> None:
    let_go(job, "obedient")
    outcome, _ = found(job, should_detach=lambda: True)
    assert (outcome.state, outcome.event) == ("detached", None)
    assert store.read_job(job).state == "running"
    found(job, lambda: True)


def test_the_death_of_an_adopted_run_is_reported(job: Path, outputs: Path) -> None:
    let_go(job, "obedient")
    process = store.running_process(job)
    assert process is not None
    process.kill()
    process.wait(timeout=10)
    outcome, seen = found(job)
    assert outcome.state == "died"
    assert isinstance(seen[-1], Failed)
    assert seen[-1].code == "child-died"
    assert seen[-1].message.startswith("The run ended without an error message.")
    assert list(outputs.iterdir()) == []


def test_an_end_that_is_already_in_the_event_file_is_not_reported_twice(job: Path) -> None:
    with store.EventLog(job / store.EVENTS) as emit:
        emit(Stage("tune"))
        emit(Failed("cancelled", "m", "", "", False))
    write_json(job / store.OWNER, {"pid": 2**30, "started": 1.0, "claimed": 0.0, "controllable": True})
    outcome, seen = found(job)
    assert (outcome.state, len(seen)) == ("cancelled", 2)
    assert store.Follower(job / store.EVENTS).read() == seen


def test_a_replay_yields_all_events_and_writes_nothing(job: Path) -> None:
    with store.EventLog(job / store.EVENTS) as emit:
        emit(Stage("tune"))
    before = (job / store.EVENTS).read_bytes()
    outcome, seen = drain(following.replay(job))
    assert outcome.state == "died"
    assert [type(event) for event in seen] == [Stage, Failed]
    assert (job / store.EVENTS).read_bytes() == before


def test_a_run_that_is_not_controllable_is_not_offered_for_adoption(job: Path) -> None:
    store.claim(job)
    assert store.read_job(job).state == "running"
    assert store.newest_running() is None


def test_the_newest_running_job_is_found(outputs: Path) -> None:
    older, newer, ended = (store.create(JobSpec("demo", str(outputs / "out"))) for _ in range(3))
    for job in (older, newer, ended):
        store.claim(job, controllable=True)
    with store.EventLog(ended / store.EVENTS) as emit:
        emit(Done("out", 1.0, {}))
    assert store.newest_running() == newer
    assert older != newer


def test_without_jobs_there_is_no_newest_job(outputs: Path) -> None:
    assert store.newest_running() is None
    assert store.newest() is None


@pytest.mark.skipif(os.name != "posix", reason="process groups")
def test_killing_a_run_ends_the_processes_that_it_started(job: Path) -> None:
    let_go(job, "child-of-its-own")
    (event,) = store.Follower(job / store.EVENTS).read()
    assert isinstance(event, Log)
    grandchild = psutil.Process(int(event.message))
    drain(adopt.follow_running(job, lambda: True, patience=StopTimeouts(0.1, 0.1)))
    gone, _ = psutil.wait_procs([grandchild], timeout=10)
    assert gone or grandchild.status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"stop": 1, "pause": "yes"}'])
def test_a_damaged_control_file_requests_nothing(job: Path, text: str) -> None:
    (job / store.CONTROL).write_text(text)
    assert store.read_request(job) in (None, store.ControlRequest())


def test_claiming_a_job_removes_earlier_requests(job: Path) -> None:
    store.write_request(job, stop=True)
    store.claim(job)
    assert store.read_request(job) is None
