"""The thread of a run: batches, refusals, and cancellation within two seconds at every stage."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import psutil
import pytest
from pytestqt.qtbot import QtBot

from app.shared.run.record import Batch, RunRecord
from app.shared.run.thread import PATIENCE, RunThread
from core.errors import BitwrightError
from core.jobs import store
from core.jobs.following import Outcome
from core.spec import JobSpec
from tests.app.fake_child import FLOOD, command

WAIT = 30_000
STAGES = ("prepare", "calibrate", "tune", "write", "verify")


class Listener:
    """Notes what a thread says, in the thread of the test."""

    def __init__(self, thread: RunThread) -> None:
        self.record = RunRecord()
        self.batches: list[Batch] = []
        self.jobs: list[Path] = []
        self.ends: list[Outcome] = []
        self.refusals: list[BitwrightError] = []
        thread.begun.connect(self.jobs.append)
        thread.batch.connect(self.take)
        thread.over.connect(self.ends.append)
        thread.refused.connect(self.refusals.append)

    def take(self, batch: Batch) -> None:
        self.batches.append(batch)
        self.record.apply(batch)


@pytest.fixture
def spec(tmp_path: Path) -> JobSpec:
    return JobSpec("demo", str(tmp_path / "outputs" / "out"))


def follow(qtbot: QtBot, thread: RunThread) -> Listener:
    """Run a thread to its end."""
    listener = Listener(thread)
    with qtbot.waitSignal(thread.finished, timeout=WAIT):
        thread.start()
    return listener


class Threads:
    """Makes threads, and ends those that a test left running."""

    def __init__(self) -> None:
        self.made: list[RunThread] = []

    def start(self, spec: JobSpec, behaviour: str) -> RunThread:
        return self._keep(RunThread(spec, "start", command=command(behaviour)))

    def job(self, job: Path, mode: Literal["adopt", "open"]) -> RunThread:
        return self._keep(RunThread(job, mode))

    def _keep(self, thread: RunThread) -> RunThread:
        self.made.append(thread)
        return thread


@pytest.fixture
def threads(qapp: object) -> Iterator[Threads]:
    made = Threads()
    yield made
    for thread in made.made:
        thread.stop()
        assert thread.wait(WAIT)


def test_a_whole_run_is_handed_over(qtbot: QtBot, threads: Threads, spec: JobSpec) -> None:
    found = follow(qtbot, threads.start(spec, "good"))
    assert found.record.state == "done"
    assert [len(found.record.curves[block].losses) for block in range(4)] == [20, 20, 20, 20]
    assert [info.state for info in found.ends] == ["done"]
    assert found.jobs == [job.folder for job in store.list_jobs()]


def test_a_flood_comes_in_few_batches_and_loses_no_loss(qtbot: QtBot, threads: Threads, spec: JobSpec) -> None:
    found = follow(qtbot, threads.start(spec, "flood"))
    assert found.record.state == "done"
    assert len(found.record.curves[0].losses) == FLOOD + 20
    assert found.record.logged >= FLOOD
    assert len(found.batches) < FLOOD / 100


def test_garbage_ends_nothing(qtbot: QtBot, threads: Threads, spec: JobSpec) -> None:
    found = follow(qtbot, threads.start(spec, "garbage"))
    assert found.record.state == "done"
    assert found.record.logged >= 6


def test_what_cannot_be_done_is_refused_before_there_is_a_job(qtbot: QtBot, threads: Threads, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    found = follow(qtbot, threads.start(JobSpec("demo", str(tmp_path / "taken")), "good"))
    assert [error.code for error in found.refusals] == ["output"]
    assert (found.jobs, found.ends, store.list_jobs()) == ([], [], [])


def test_a_home_that_cannot_be_written_is_a_sentence(
    qtbot: QtBot, threads: Threads, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "file" / "home"))
    found = follow(qtbot, threads.start(JobSpec("demo", str(tmp_path / "out")), "good"))
    assert len(found.refusals) == 1
    assert isinstance(found.refusals[0], BitwrightError)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("manner", ["hold", "deaf"])
def test_a_run_can_be_cancelled_at_every_stage(
    qtbot: QtBot, threads: Threads, spec: JobSpec, stage: str, manner: str, tmp_path: Path
) -> None:
    thread = threads.start(spec, f"{manner}-{stage}")
    listener = Listener(thread)
    thread.start()
    qtbot.waitUntil(lambda: listener.record.stage == stage, timeout=WAIT)
    with qtbot.waitSignal(thread.finished, timeout=WAIT):
        thread.stop()
    assert listener.record.state == "cancelled"
    assert listener.ends[0].state == "cancelled"
    assert not (tmp_path / "outputs").exists()


def test_means_get_hard_enough_within_two_seconds() -> None:
    assert PATIENCE.command + PATIENCE.terminate < 1.9


@pytest.mark.parametrize("stage", STAGES)
def test_a_child_that_is_killed_is_explained_at_every_stage(
    qtbot: QtBot, threads: Threads, spec: JobSpec, stage: str, tmp_path: Path
) -> None:
    found = follow(qtbot, threads.start(spec, f"crash-{stage}"))
    assert found.record.state == "died"
    assert found.record.last is not None
    message = getattr(found.record.last, "message", "")
    assert message == (
        "The run was killed, most likely because memory ran out (signal 9). Its last output: about to die"
    )
    assert not (tmp_path / "outputs").exists()


@pytest.mark.parametrize(
    ("behaviour", "code"),
    [("fail-verify", "verification"), ("bug-calibrate", "internal"), ("wrong-prepare", "bad-input")],
)
def test_a_failure_has_its_code(qtbot: QtBot, threads: Threads, spec: JobSpec, behaviour: str, code: str) -> None:
    found = follow(qtbot, threads.start(spec, behaviour))
    assert found.record.state == "failed"
    assert getattr(found.record.last, "code", "") == code


def test_a_stop_before_the_child_is_there_starts_none(qtbot: QtBot, threads: Threads, spec: JobSpec) -> None:
    thread = threads.start(spec, "good")
    thread.stop()
    found = follow(qtbot, thread)
    assert found.record.state == "cancelled"
    assert found.ends[0].state == "cancelled"


def test_pause_and_resume(qtbot: QtBot, threads: Threads, spec: JobSpec) -> None:
    thread = threads.start(spec, "pausing")
    listener = Listener(thread)
    thread.start()
    qtbot.waitUntil(lambda: listener.record.block == 1, timeout=WAIT)
    thread.pause(True)
    qtbot.waitUntil(lambda: 1 in listener.record.blocks, timeout=WAIT)
    with qtbot.waitSignal(thread.finished, timeout=WAIT):
        thread.pause(False)
    assert listener.record.state == "done"


def test_a_run_that_is_left_goes_on_and_can_be_adopted(qtbot: QtBot, threads: Threads, spec: JobSpec) -> None:
    thread = threads.start(spec, "hold-tune")
    listener = Listener(thread)
    thread.start()
    qtbot.waitUntil(lambda: listener.record.stage == "tune", timeout=WAIT)
    with qtbot.waitSignals([thread.left, thread.finished], timeout=WAIT):
        thread.leave()
    assert listener.ends == []
    job = store.newest_running()
    assert job == listener.jobs[0]
    again = threads.job(job, "adopt")
    other = Listener(again)
    again.start()
    qtbot.waitUntil(lambda: other.record.stage == "tune", timeout=WAIT)
    assert other.record.stages_done == ("prepare", "calibrate")
    with qtbot.waitSignal(again.finished, timeout=WAIT):
        again.stop()
    assert other.ends[0].state == "cancelled"


def test_an_adopted_run_that_is_killed_is_told(qtbot: QtBot, threads: Threads, spec: JobSpec) -> None:
    thread = threads.start(spec, "hold-tune")
    listener = Listener(thread)
    thread.start()
    qtbot.waitUntil(lambda: listener.record.stage == "tune", timeout=WAIT)
    with qtbot.waitSignals([thread.left, thread.finished], timeout=WAIT):
        thread.leave()
    again = threads.job(listener.jobs[0], "adopt")
    other = Listener(again)
    again.start()
    qtbot.waitUntil(lambda: other.record.stage == "tune", timeout=WAIT)
    process = store.running_process(listener.jobs[0])
    assert isinstance(process, psutil.Process)
    with qtbot.waitSignal(again.finished, timeout=WAIT):
        process.kill()
    assert other.record.state == "died"


def test_an_old_job_is_read_without_a_child(qtbot: QtBot, threads: Threads, spec: JobSpec) -> None:
    job = follow(qtbot, threads.start(spec, "good")).jobs[0]
    found = follow(qtbot, threads.job(job, "open"))
    assert found.record.state == "done"
    assert len(found.record.curves) == 4
