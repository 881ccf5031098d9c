"""Child processes that work, crash, hang, or write floods or garbage, and the outcome that is reported for each."""

from __future__ import annotations

import contextlib
import errno
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from core.control import Control, never
from core.events import Done, Emit, Event, Failed, Log, Stage
from core.jobs import following, process, store, worker
from core.jobs.child import Command, follow_child
from core.jobs.following import Batches, Outcome
from core.jobs.inline import run_inline
from core.jobs.steering import StopTimeouts
from core.spec import JobSpec

FAKE = Path(__file__).with_name("fake_worker.py")
SHORT = StopTimeouts(command=0.3, terminate=0.3)


@pytest.fixture
def job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BITWRIGHT_HOME", str(tmp_path / "home"))
    (tmp_path / "outputs").mkdir()
    return store.create(JobSpec("demo", str(tmp_path / "outputs" / "out")))


def fake(behaviour: str) -> Command:
    return lambda job: [sys.executable, str(FAKE), behaviour, str(job)]


def collect(batches: Batches, seen: list[Event]) -> Outcome:
    """Follow a run to its end and append its events to `seen`."""
    events = following.events_of(batches)
    with contextlib.closing(events):
        while True:
            try:
                seen.append(next(events))
            except StopIteration as end:
                outcome: Outcome = end.value
                return outcome


def run(
    job: Path,
    behaviour: str,
    should_stop: Callable[[list[Event]], bool] = lambda _seen: False,
    should_pause: Callable[[list[Event]], bool] = lambda _seen: False,
    patience: StopTimeouts | None = None,
) -> tuple[Outcome, list[Event]]:
    seen: list[Event] = []
    events = follow_child(
        job, lambda: should_stop(seen), lambda: should_pause(seen), command=fake(behaviour), patience=patience
    )
    return collect(events, seen), seen


def begun(seen: list[Event]) -> bool:
    return bool(seen)


def failure(outcome: Outcome) -> Failed:
    assert isinstance(outcome.event, Failed)
    return outcome.event


def test_a_successful_run_yields_all_its_events(job: Path) -> None:
    outcome, seen = run(job, "good")
    assert (outcome.state, outcome.exit_code) == ("done", 0)
    assert [type(event).__name__ for event in seen] == ["Stage", "BlockStarted", "Done"]
    assert isinstance(outcome.event, Done)
    assert outcome.event.report == {"answer": 42}
    assert store.read_job(job).state == "done"


def test_bad_input_is_reported_as_before_tuning(job: Path) -> None:
    outcome, _ = run(job, "wrong")
    assert (outcome.state, outcome.exit_code) == ("failed", 1)
    event = failure(outcome)
    assert (event.code, event.message, event.hint) == ("bad-input", "The request is wrong.", "Make another.")
    assert (event.stage, event.before_tuning) == ("prepare", True)


def test_a_failure_after_the_first_block_is_not_before_tuning(job: Path) -> None:
    event = failure(run(job, "late")[0])
    assert (event.stage, event.before_tuning) == ("tune", False)


def test_an_unexpected_exception_is_one_sentence_with_a_traceback_in_the_log(job: Path) -> None:
    event = failure(run(job, "buggy")[0])
    assert (event.code, event.before_tuning) == ("internal", False)
    assert event.message == "Something went wrong inside Bitwright: ZeroDivisionError: a bug"
    assert str(job / store.LOG) in event.hint
    assert "Traceback" in (job / store.LOG).read_text()


def test_running_out_of_memory_has_a_hint(job: Path) -> None:
    event = failure(run(job, "greedy")[0])
    assert event.code == "out-of-memory"
    assert "--memory" in event.hint


def test_a_run_that_ends_without_a_result_is_a_failure(job: Path) -> None:
    assert failure(run(job, "silent")[0]).code == "internal"


def test_prints_go_to_the_log_and_stdin_is_empty_for_the_run(job: Path) -> None:
    outcome, seen = run(job, "noisy")
    assert outcome.state == "done"
    assert not [event for event in seen if isinstance(event, Log)]
    assert process.last_log_line(job / store.LOG) == "progress 19999"


@pytest.mark.parametrize(
    ("behaviour", "code", "words"),
    [
        ("SIGKILL", -9, "was killed, most likely because memory ran out (signal 9)"),
        ("SIGSEGV", -11, "crashed in native code (segmentation fault) (signal 11)"),
        ("SIGABRT", -6, "crashed in native code (abort) (signal 6)"),
        ("SIGBUS", -7, "crashed because a file that it was reading became unavailable (signal 7)"),
        ("exit-3", 3, "ended without an error message (exit code 3)"),
        ("exit-0", 0, "ended without an error message (exit code 0)"),
    ],
)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="signal numbers differ")
def test_the_cause_of_a_crash_is_explained(job: Path, behaviour: str, code: int, words: str) -> None:
    outcome, seen = run(job, behaviour)
    event = failure(outcome)
    assert (outcome.state, outcome.exit_code, event.code) == ("died", code, "child-died")
    assert event.message == f"The run {words}. Its last output: about to die"
    assert str(job / store.LOG) in event.hint
    assert not event.before_tuning
    assert seen == [event]


def test_a_crash_ends_the_event_file_for_every_follower(job: Path) -> None:
    outcome, _ = run(job, "SIGKILL")
    assert store.Follower(job / store.EVENTS).read() == [outcome.event]
    assert store.read_job(job).state == "failed"


def test_a_full_disk_that_prevents_the_last_event_is_reported(job: Path) -> None:
    assert failure(run(job, "exit-28")[0]).code == "disk-full"


def test_garbage_in_the_event_file_is_returned_as_log_events(job: Path) -> None:
    outcome, seen = run(job, "garbage")
    assert (outcome.state, outcome.exit_code) == ("died", 3)
    assert all(isinstance(event, Log) for event in seen[:-1])
    assert len(seen) == 4  # three invalid lines and the end; the last line is incomplete
    whole = store.Follower(job / store.EVENTS).read()
    assert whole[-1] == outcome.event


def test_a_child_that_cannot_start_is_reported_with_the_last_line_of_its_log(job: Path) -> None:
    command = [sys.executable, "-c", "import module_that_is_not_there"]
    outcome = collect(follow_child(job, command=lambda _job: command), [])
    assert "module_that_is_not_there" in failure(outcome).message


def test_a_run_stops_on_request(job: Path) -> None:
    outcome, _ = run(job, "obedient", should_stop=begun)
    assert (outcome.state, outcome.exit_code) == ("cancelled", 130)
    assert failure(outcome).stage == "tune"
    assert list((job.parent.parent.parent / "outputs").iterdir()) == []


def test_a_child_that_writes_many_events_stops_on_request(job: Path) -> None:
    outcome, seen = run(job, "flood", should_stop=lambda seen: len(seen) > 500)
    assert outcome.state == "cancelled"
    assert len(seen) == len(store.Follower(job / store.EVENTS).read(1 << 30))


def test_a_child_whose_run_does_not_stop_exits_by_itself(job: Path) -> None:
    outcome, _ = run(job, "deaf", should_stop=begun, patience=StopTimeouts(60, 60))
    assert (outcome.state, outcome.exit_code) == ("cancelled", 130)
    assert list((job.parent.parent.parent / "outputs").iterdir()) == []


def test_a_child_that_does_not_exit_is_killed_with_the_processes_that_it_started(job: Path) -> None:
    outcome, seen = run(job, "child-of-its-own", should_stop=begun, patience=SHORT)
    assert (outcome.state, outcome.exit_code) == ("cancelled", -9)
    assert failure(outcome).code == "cancelled"
    assert isinstance(seen[0], Log)
    grandchild = int(seen[0].message)
    psutil.wait_procs([psutil.Process(grandchild)] if psutil.pid_exists(grandchild) else [], timeout=10)
    assert not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == psutil.STATUS_ZOMBIE


def test_a_run_pauses_and_resumes_on_request(job: Path) -> None:
    def until_told(seen: list[Event]) -> bool:
        return not any(isinstance(event, Log) for event in seen)

    outcome, seen = run(job, "pausing", should_pause=until_told)
    assert outcome.state == "done"
    assert [type(event) for event in seen] == [Stage, Log, Done]


def test_a_paused_child_can_be_stopped(job: Path) -> None:
    def told(seen: list[Event]) -> bool:
        return any(isinstance(event, Log) for event in seen)

    outcome, _ = run(job, "pausing", should_stop=told, should_pause=lambda _seen: True)
    assert outcome.state == "done"  # the stop ends the pause, and this behaviour does not check for a stop


def test_closing_the_generator_ends_the_child(job: Path) -> None:
    events = following.events_of(follow_child(job, command=fake("obedient")))
    next(events)
    events.close()
    assert store.read_job(job).state == "cancelled"


def test_a_second_run_of_a_job_yields_only_its_own_events(job: Path) -> None:
    run(job, "SIGKILL")
    outcome, seen = run(job, "good")
    assert outcome.state == "done"
    assert len(seen) == 3
    assert store.read_job(job).state == "done"


def test_a_package_core_in_the_working_folder_is_not_imported(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "core").mkdir()
    (tmp_path / "core" / "__init__.py").write_text("raise RuntimeError('the wrong core')")
    monkeypatch.chdir(tmp_path)
    assert run(job, "good")[0].state == "done"


def test_an_inline_run_has_the_same_events_and_outcome(job: Path) -> None:
    from tests.core.jobs.fake_worker import RUNS

    seen: list[Event] = []
    outcome = run_inline(job, seen.append, never, never, run=lambda: RUNS["good"])
    assert (outcome.state, outcome.exit_code) == ("done", None)
    assert seen == store.Follower(job / store.EVENTS).read()
    assert store.read_job(job).state == "done"


def test_an_inline_run_reports_failures_and_stops_on_request(job: Path) -> None:
    from tests.core.jobs.fake_worker import RUNS

    assert run_inline(job, lambda _e: None, run=lambda: RUNS["wrong"]).state == "failed"
    assert run_inline(job, lambda _e: None, lambda: True, run=lambda: RUNS["obedient"]).state == "cancelled"


def test_the_last_log_line_of_a_crash_names_the_error(tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    log.write_text("10%\r20%\nFatal Python error: Segmentation fault\n\nCurrent thread:\n  File x\n")
    assert process.last_log_line(log) == "Fatal Python error: Segmentation fault"
    log.write_text("10%\r20%\r\n\n")
    assert process.last_log_line(log) == "20%"
    assert process.last_log_line(tmp_path / "none") == ""


def is_disk_full(monkeypatch: pytest.MonkeyPatch, times: int) -> None:
    """Let the given number of writes to the event file fail with a full disk."""
    write, left = store.EventLog.__call__, iter(range(times))

    def full(self: store.EventLog, event: Event) -> None:
        if next(left, None) is not None:
            raise OSError(errno.ENOSPC, "No space left on device")
        write(self, event)

    monkeypatch.setattr(store.EventLog, "__call__", full)
    monkeypatch.setattr(worker, "_RETRY_SECONDS", 0.0)


def test_events_that_cannot_be_written_are_retried(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_disk_full(monkeypatch, 3)
    with worker.EventRecorder(job) as record:
        for name in ("prepare", "calibrate", "tune", "write"):
            record(Stage(name))
    assert [event.name for event in store.Follower(job / store.EVENTS).read() if isinstance(event, Stage)] == [
        "prepare", "calibrate", "tune", "write",
    ]  # fmt: skip
    assert not record.has_pending


def test_a_full_disk_does_not_end_a_run_and_its_result_is_read_from_the_output(
    job: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_disk_full(monkeypatch, 1000)
    seen: list[Event] = []

    def run(spec: JobSpec, _job: Path, emit: Emit, _control: Control) -> None:
        Path(spec.output).mkdir()
        (Path(spec.output) / "bitwright.json").write_text('{"seconds": 2.5}')
        emit(Stage("prepare"))
        emit(Done(spec.output, 2.5, {"seconds": 2.5}))

    assert run_inline(job, seen.append, run=lambda: run).state == "done"
    assert [type(event) for event in seen] == [Stage, Done]
    outcome = following.close_stream(job, stopping=False, code=worker.EXIT_DONE)
    assert outcome.state == "done"
    assert isinstance(outcome.event, Done)
    assert (outcome.event.seconds, outcome.event.report) == (2.5, {"seconds": 2.5})
    assert following.close_stream(job, stopping=False, code=1).state == "died"


def test_a_job_folder_that_cannot_be_written_is_reported(job: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(job / store.OWNER))

    monkeypatch.setattr(store, "write_json", refuse)
    seen: list[Event] = []
    last = failure(run_inline(job, seen.append))
    assert seen == [last]
    assert last.message == f"{job / store.OWNER} could not be read or written: Permission denied."
    assert "bug" not in last.hint
    assert last.before_tuning
