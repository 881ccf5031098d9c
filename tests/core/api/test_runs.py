"""Runs: bad input is raised at once, work starts late, and every end leaves the same files."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import core
from core import api
from core.claim import staging_places
from core.control import Control
from core.errors import BadInput, Cancelled, ModelNotFound, OutputProblem
from core.events import BlockDone, BlockStarted, Done, Emit, Event, Failed, Stage
from core.jobs import inline, store
from core.jobs.process import ROOT
from core.spec import JobSpec

QUICK = {"recipe": "quick", "iters": 2, "samples": 2, "seqlen": 32, "group_size": 32}


def test_the_package_offers_every_call_and_nothing_else() -> None:
    assert all(callable(getattr(core, name)) for name in core.__all__)
    with pytest.raises(AttributeError, match="no attribute 'quantise'"):
        _ = core.quantise


def test_importing_the_calls_imports_no_torch() -> None:
    script = "import sys; from core import quantize, estimate, chat; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout == "False\n"


def test_bad_input_is_raised_by_the_call_itself(tiny: Path, place: Path) -> None:
    with pytest.raises(BadInput, match="5 bits"):
        api.quantize(tiny, "out", bits=5)
    with pytest.raises(ModelNotFound):
        api.quantize("./nothing", "out")
    with pytest.raises(OutputProblem, match="not empty"):
        api.quantize(tiny, place.parent)
    assert list(place.iterdir()) == []
    assert store.list_jobs() == []


def test_nothing_happens_before_the_first_event_is_asked_for(tiny: Path, place: Path) -> None:
    api.quantize(tiny, "out", **QUICK)  # type: ignore[arg-type]
    assert list(place.iterdir()) == []
    assert store.list_jobs() == []


Run = Callable[[JobSpec, Path, Emit, Control], None]


def run_instead(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let an inline run do `run`: what is tested here is what happens around it."""
    run_inline = inline.run_inline
    monkeypatch.setattr(inline, "run_inline", lambda *order: run_inline(*order, run=lambda: run))


def failing(before: bool) -> Run:
    def run(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
        emit(Stage("prepare"))
        folder = staging_places(Path(spec.output), job.name)[0]
        folder.mkdir(parents=True)
        if not before:
            emit(BlockStarted(0, 1, "model.layers.0", ()))
        raise BadInput("It cannot work.", "Try another.")

    return run


@pytest.mark.parametrize(("before", "jobs"), [(True, []), (False, ["failed"])])
def test_a_failed_run_leaves_no_output_and_a_record_only_if_it_tuned(
    tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch, before: bool, jobs: list[str]
) -> None:
    run_instead(failing(before), monkeypatch)
    seen: list[Event] = []
    with pytest.raises(BadInput, match="It cannot work"):
        seen.extend(api.quantize(tiny, "new/deep/out", inline=True))
    assert list(place.iterdir()) == []
    assert [job.state for job in store.list_jobs()] == jobs


def test_the_failure_is_the_last_event(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(failing(True), monkeypatch)
    events = api.quantize(tiny, "out", inline=True)
    assert isinstance(next(events), Stage)
    last = next(events)
    assert isinstance(last, Failed)
    assert last.before_tuning
    with pytest.raises(BadInput):
        next(events)


def test_a_folder_that_was_not_ours_stays(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "mine").mkdir()
    run_instead(failing(True), monkeypatch)
    with pytest.raises(BadInput):
        list(api.quantize(tiny, "mine/new/out", inline=True))
    assert [path.name for path in place.rglob("*")] == ["mine"]


def test_a_stop_is_raised_as_cancelled(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[Event] = []

    def run(spec: JobSpec, job: Path, emit: Emit, control: Control) -> None:
        emit(Stage("tune"))
        while not control.should_stop():
            time.sleep(0.01)
        raise Cancelled("The run was cancelled.")

    run_instead(run, monkeypatch)
    with pytest.raises(Cancelled):
        begun.extend(api.quantize(tiny, "out", inline=True, should_stop=lambda: bool(begun)))
    assert [job.state for job in store.list_jobs()] == ["cancelled"]


def test_a_stop_before_the_start_starts_nothing(tiny: Path, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_instead(failing(False), monkeypatch)
    with pytest.raises(Cancelled, match="before it began"):
        list(api.quantize(tiny, "out", inline=True, should_stop=lambda: True))
    assert [job.state for job in store.list_jobs()] == ["cancelled"]


@pytest.mark.slow
@pytest.mark.parametrize("inline", [False, True], ids=["child", "inline"])
def test_a_model_is_quantized_and_its_events_are_read(tiny: Path, place: Path, inline: bool) -> None:
    events = list(api.quantize(tiny, "new/out", inline=inline, **QUICK))  # type: ignore[arg-type]
    done = events[-1]
    assert isinstance(done, Done)
    assert len([event for event in events if isinstance(event, BlockDone)]) == 2
    assert done.output == str(place / "new" / "out")
    assert (place / "new" / "out" / "model.safetensors").is_file()
    assert [job.state for job in store.list_jobs()] == ["done"]


@pytest.mark.slow
def test_leaving_a_run_early_stops_it_and_leaves_nothing(tiny: Path, place: Path) -> None:
    for event in api.quantize(tiny, "new/out", **{**QUICK, "iters": 50_000}):  # type: ignore[arg-type]
        if isinstance(event, BlockStarted):
            break
    del event
    assert [job.state for job in store.list_jobs()] == ["cancelled"]
    assert list(place.iterdir()) == []
