"""The run of the window: one at a time, controlled, detached, and reconnected."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.shared.run import notification
from app.shared.run.record import RunRecord
from app.shared.run.runs import Runs
from core.claim import staging_places
from core.errors import BitwrightError
from core.events import Stage
from core.files import write_json
from core.jobs import store
from core.jobs.worker import ORPHANED
from core.spec import JobSpec
from tests.app.fake_child import command

WAIT = 30_000


@pytest.fixture(autouse=True)
def told(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What the desktop was asked to show."""
    notes: list[tuple[str, str]] = []
    monkeypatch.setattr(notification, "show", lambda title, text: notes.append((title, text)))
    return notes


@pytest.fixture
def make(qapp: object) -> Iterator[Callable[[str], Runs]]:
    """Runs whose child behaves in a given way."""
    made: list[Runs] = []

    def runs(behaviour: str = "good") -> Runs:
        made.append(Runs(command=command(behaviour)))
        return made[-1]

    yield runs
    for one in made:
        assert one.close(10.0)


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return JobSpec("demo", str(tmp_path / "out"))


def record(runs: Runs) -> RunRecord:
    assert runs.record is not None
    return runs.record


def until(qtbot: QtBot, runs: Runs, stage: str) -> None:
    qtbot.waitUntil(lambda: record(runs).stage == stage, timeout=WAIT)


def test_a_run_from_start_to_end(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    runs = make("good")
    with qtbot.waitSignals([runs.started, runs.changed, runs.ended], timeout=WAIT) as _:
        runs.start(spec)
        at_first = runs.active
    assert (at_first, runs.active) == (True, False)
    assert record(runs).state == "done"
    assert record(runs).job is not None


def test_the_end_names_the_job(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    runs = make("good")
    with qtbot.waitSignal(runs.ended, timeout=WAIT) as blocker:
        runs.start(spec)
    assert blocker.args is not None
    assert blocker.args[0].state == "done"


def test_only_one_run_at_a_time(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    runs = make("forever")
    runs.start(spec)
    until(qtbot, runs, "tune")
    first = record(runs)
    with qtbot.waitSignal(runs.refused) as blocker:
        runs.start(spec)
    assert blocker.args is not None
    assert isinstance(blocker.args[0], BitwrightError)
    assert record(runs) is first


def test_a_refusal_is_told_and_shown(qtbot: QtBot, make: Callable[[str], Runs], tmp_path: Path) -> None:
    runs = make("good")
    (tmp_path / "taken").write_text("")
    with qtbot.waitSignal(runs.refused, timeout=WAIT):
        runs.start(JobSpec("demo", str(tmp_path / "taken")))
    assert not runs.active
    assert record(runs).state == "failed"


def test_after_a_refusal_another_run_may_start(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    runs = make("good")
    (Path(spec.output).parent / "taken").write_text("")
    with qtbot.waitSignal(runs.refused, timeout=WAIT):
        runs.start(JobSpec("demo", str(Path(spec.output).parent / "taken")))
    with qtbot.waitSignal(runs.ended, timeout=WAIT):
        runs.start(spec)
    assert record(runs).state == "done"


def test_cancel(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec, tmp_path: Path) -> None:
    runs = make("hold-tune")
    runs.start(spec)
    until(qtbot, runs, "tune")
    with qtbot.waitSignal(runs.ended, timeout=WAIT):
        runs.cancel()
        assert record(runs).state == "stopping"
    assert record(runs).state == "cancelled"
    assert [path.name for path in tmp_path.iterdir() if "out" in path.name] == []


def test_pause_reaches_a_boundary_and_resume_goes_on(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    runs = make("pausing")
    runs.start(spec)
    qtbot.waitUntil(lambda: record(runs).block == 1, timeout=WAIT)
    runs.pause()
    assert record(runs).state == "pausing"
    qtbot.waitUntil(lambda: record(runs).state == "paused", timeout=WAIT)
    with qtbot.waitSignal(runs.ended, timeout=WAIT):
        runs.resume()
    assert record(runs).state == "done"


def test_a_detached_run_is_adopted_by_the_next_window(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    first, second = make("hold-tune"), make("hold-tune")
    first.start(spec)
    until(qtbot, first, "tune")
    first.detach()
    assert first.close(10.0)
    assert second.adopt()
    assert record(second).spec == spec
    until(qtbot, second, "tune")
    with qtbot.waitSignal(second.ended, timeout=WAIT):
        second.cancel()
    assert record(second).state == "cancelled"


def test_a_paused_run_is_adopted_as_paused(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    first, second = make("pausing"), make("pausing")
    first.start(spec)
    qtbot.waitUntil(lambda: record(first).block == 1, timeout=WAIT)
    first.pause()
    qtbot.waitUntil(lambda: record(first).state == "paused", timeout=WAIT)
    first.detach()
    assert first.close(10.0)
    assert second.adopt()
    qtbot.waitUntil(lambda: record(second).state == "paused", timeout=WAIT)
    with qtbot.waitSignal(second.ended, timeout=WAIT):
        second.resume()
    assert record(second).state == "done"


def test_closing_without_a_word_ends_the_run(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    runs = make("hold-tune")
    runs.start(spec)
    until(qtbot, runs, "tune")
    assert runs.close(10.0)
    assert store.list_jobs()[0].state == "cancelled"


def test_closing_leaves_an_adopted_run_alone(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    first, second, third = make("hold-tune"), make("good"), make("good")
    first.start(spec)
    until(qtbot, first, "tune")
    first.detach()
    assert first.close(10.0)
    assert second.adopt()
    assert second.close(10.0)
    assert third.adopt()
    with qtbot.waitSignal(third.ended, timeout=WAIT):
        third.cancel()


def test_nothing_is_adopted_where_nothing_runs(make: Callable[[str], Runs]) -> None:
    runs = make("good")
    assert not runs.adopt()
    assert runs.record is None


def test_a_run_that_went_with_its_window_is_shown(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    from core.events import Failed

    job = store.create(spec)
    with store.EventLog(job / store.EVENTS) as emit:
        emit(Stage("tune"))
        emit(Failed("cancelled", ORPHANED, "", "tune", False))
    runs = make("good")
    with qtbot.assertNotEmitted(runs.ended):
        assert not runs.adopt()
        qtbot.waitUntil(lambda: not runs.loading, timeout=WAIT)
    assert record(runs).state == "cancelled"


def test_a_run_that_died_with_the_machine_is_shown_and_swept(
    qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec
) -> None:
    job = store.create(spec)
    write_json(job / store.OWNER, {"pid": 2**30, "started": 1.0, "claimed": 1.0, "controllable": True})
    left = staging_places(Path(spec.output), job.name)[0]
    left.mkdir()
    runs = make("good")
    assert not runs.adopt()
    # the thread that sweeps and the thread that reads the job end in any order
    qtbot.waitUntil(lambda: not left.exists() and runs.record is not None, timeout=WAIT)
    qtbot.waitUntil(lambda: record(runs).state == "died", timeout=WAIT)


def test_a_finished_run_is_not_shown_again_by_itself(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    first, second = make("good"), make("good")
    with qtbot.waitSignal(first.ended, timeout=WAIT):
        first.start(spec)
    assert not second.adopt()
    assert second.record is None


def test_an_old_run_can_be_opened(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    first, second = make("good"), make("good")
    with qtbot.waitSignal(first.ended, timeout=WAIT):
        first.start(spec)
    job = record(first).job
    assert job is not None
    second.open(job)
    assert second.loading
    qtbot.waitUntil(lambda: not second.loading, timeout=WAIT)
    assert record(second).report["bits_per_weight"] == 4.31
    assert record(second).spec == spec


def test_clear_shows_nothing_any_more(qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec) -> None:
    runs = make("good")
    with qtbot.waitSignal(runs.ended, timeout=WAIT):
        runs.start(spec)
    with qtbot.waitSignal(runs.changed):
        runs.clear()
    assert runs.record is None


def test_the_desktop_is_told_of_the_end(
    qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec, told: list[tuple[str, str]]
) -> None:
    runs = make("good")
    with qtbot.waitSignal(runs.ended, timeout=WAIT):
        runs.start(spec)
    ((title, text),) = told
    assert title == "fake-135M is ready"
    assert text.startswith("Small loss")


def test_the_desktop_is_told_of_a_death(
    qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec, told: list[tuple[str, str]]
) -> None:
    runs = make("crash-tune")
    with qtbot.waitSignal(runs.ended, timeout=WAIT):
        runs.start(spec)
    assert told[0][0] == "The run did not finish"


def test_the_desktop_is_not_told_what_the_user_just_did(
    qtbot: QtBot, make: Callable[[str], Runs], spec: JobSpec, told: list[tuple[str, str]]
) -> None:
    runs = make("hold-tune")
    runs.start(spec)
    until(qtbot, runs, "tune")
    with qtbot.waitSignal(runs.ended, timeout=WAIT):
        runs.cancel()
    assert told == []
