"""Every end of a run leaves the same files, whether a terminal, Python or the window started it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from pytestqt.qtbot import QtBot

from app.shared.run.thread import RunThread
from core import api
from core.cli.commands import main
from core.errors import BitwrightError
from core.events import Done, Failed, from_line
from core.jobs import child, store
from core.jobs.following import Batches, Outcome
from core.jobs.store import EVENTS
from core.spec import JobSpec
from tests.app.fake_child import command

WAIT = 60.0
EXIT_CODES = {"": 0, "cancelled": 130, "bad-input": 2, "output": 2, "child-died": 1, "verification": 1}


@dataclass(frozen=True)
class End:
    """A run's error code, the states of all jobs, and the entries of the working folder."""

    code: str
    jobs: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Case:
    """A behaviour of the child, an act of somebody else once the run tunes, and the expected end."""

    behaviour: str
    end: End
    act: str = ""
    output: str = "new/deep/out"


CASES = {
    "done": Case("good", End("", ("done",), ("new", "new/deep", "new/deep/out", "new/deep/out/model.safetensors"))),
    "stopped": Case("hold-tune", End("cancelled", ("cancelled",)), act="stop"),
    "killed": Case("hold-tune", End("child-died", ("failed",)), act="kill"),
    "failed": Case("fail-verify", End("verification", ("failed",))),
    "refused by the run": Case("wrong-prepare", End("bad-input")),
    "refused at once": Case("good", End("output", (), ("taken",)), output="taken"),
}
Starter = Callable[[JobSpec, threading.Event], str]
"""Runs the spec to its end and returns the error code; stops when the event is set."""


@pytest.fixture
def place(tmp_path: Path, own_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "place"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def in_terminal(capsys: pytest.CaptureFixture[str]) -> Starter:
    """Run `bitwright quantize --json`; the stop is Ctrl-C."""

    def run(spec: JobSpec, stop: threading.Event) -> str:
        over = threading.Event()

        def interrupt() -> None:
            if stop.wait(WAIT) and not over.is_set():
                os.kill(os.getpid(), signal.SIGINT)

        threading.Thread(target=interrupt, daemon=True).start()
        status = main(["quantize", spec.model, "--output", spec.output, "--json"])
        over.set()
        last = from_line(capsys.readouterr().out.splitlines()[-1])
        assert isinstance(last, Done | Failed)
        code = last.code if isinstance(last, Failed) else ""
        assert status == EXIT_CODES[code]
        return code

    return run


def in_python(spec: JobSpec, stop: threading.Event) -> str:
    try:
        events = list(api.quantize(spec.model, spec.output, should_stop=stop.is_set))
    except BitwrightError as error:
        return error.code
    assert isinstance(events[-1], Done)
    return ""


@pytest.fixture
def in_window(qtbot: QtBot) -> Starter:
    def run(spec: JobSpec, stop: threading.Event) -> str:
        codes: list[str] = []
        thread = RunThread(spec, "start")
        thread.refused.connect(lambda error: codes.append(error.code))
        thread.over.connect(lambda outcome: codes.append(getattr(outcome.event, "code", "")))

        def stop_when_asked() -> None:
            if stop.wait(WAIT):
                thread.stop()

        threading.Thread(target=stop_when_asked, daemon=True).start()
        with qtbot.waitSignal(thread.finished, timeout=int(1000 * WAIT)):
            thread.start()
        qtbot.waitUntil(lambda: bool(codes), timeout=int(1000 * WAIT))
        return codes[0]

    return run


@pytest.fixture(params=["terminal", "python", "window"])
def starter(request: pytest.FixtureRequest) -> Starter:
    if request.param == "python":
        return in_python
    found: Starter = request.getfixturevalue(f"in_{request.param}")
    return found


@pytest.fixture
def stop() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


def tuning_job() -> Path | None:
    """The folder of a job whose second block is being tuned, where its fake child acts."""
    for job in store.list_jobs():
        path = job.folder / EVENTS
        if path.is_file() and b'"block":1' in path.read_bytes().replace(b" ", b""):
            return job.folder
    return None


def wait_for_tuning() -> Path:
    deadline = time.monotonic() + WAIT
    while (job := tuning_job()) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert job is not None
    return job


def kill(job: Path) -> None:
    process = store.running_process(job)
    assert process is not None
    process.kill()


def start_act(act: str, stop: threading.Event) -> None:
    """Stop or kill the run from another thread as soon as it tunes."""

    def work() -> None:
        job = wait_for_tuning()
        if act == "stop":
            stop.set()
        else:
            kill(job)

    if act:
        threading.Thread(target=work, daemon=True).start()


def end_of(code: str, place: Path) -> End:
    """The end as it shows in the working folder and in the list of jobs."""
    files = tuple(sorted(path.relative_to(place).as_posix() for path in place.rglob("*")))
    return End(code, tuple(job.state for job in store.list_jobs()), files)


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_an_end_is_the_same_for_everyone(
    case: Case, starter: Starter, stop: threading.Event, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_worker", command(case.behaviour))
    (place / "taken").touch() if case.output == "taken" else None
    start_act(case.act, stop)
    assert end_of(starter(JobSpec("demo", str(place / case.output)), stop), place) == case.end


def drain(batches: Batches) -> Outcome:
    while True:
        try:
            next(batches)
        except StopIteration as end:
            outcome: Outcome = end.value
            return outcome


def detached_by_python(spec: JobSpec) -> None:
    batches = api.run_job(spec, should_detach=lambda: tuning_job() is not None)
    assert drain(batches).state == "detached"


@pytest.fixture
def detached_by_window(qtbot: QtBot) -> Callable[[JobSpec], None]:
    def run(spec: JobSpec) -> None:
        thread = RunThread(spec, "start")
        thread.batch.connect(lambda _batch: thread.leave() if tuning_job() is not None else None)
        with qtbot.waitSignals([thread.left, thread.finished], timeout=int(1000 * WAIT)):
            thread.start()

    return run


@pytest.mark.skipif(os.name != "posix", reason="sends signals")
@pytest.mark.parametrize("end", ["stopped", "killed"])
@pytest.mark.parametrize("start", ["python", "window"])
def test_a_detached_run_goes_on_and_ends_like_any_other(
    start: str, end: str, request: pytest.FixtureRequest, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "_worker", command("hold-tune"))
    detach = detached_by_python if start == "python" else request.getfixturevalue("detached_by_window")
    detach(JobSpec("demo", str(place / "new" / "deep" / "out")))
    (job,) = store.list_jobs()
    assert job.state == "running"
    if end == "killed":
        kill(job.folder)
    batches = api.adopt_job(job.folder, should_stop=lambda: end == "stopped")
    assert drain(batches).state == {"stopped": "cancelled", "killed": "died"}[end]
    assert end_of("", place) == End("", ("cancelled" if end == "stopped" else "failed",))
