"""Synchronisation of choices, run and job bar."""

from __future__ import annotations

import dataclasses

import pytest
from pytestqt.qtbot import QtBot

from app.frame.job_bar import JobBar
from app.frame.job_control import JobControl
from app.frame.status_line import StatusLine
from app.logs import LogFeed
from app.shared import resource_needs
from app.shared.context import Context, Remedy
from app.shared.models.opened import OpenedModel
from app.shared.run.record import Batch
from app.widgets.elided_label import ElidedLabel
from core import recipes
from core.errors import BitwrightError
from core.events import Done, Failed, Log
from core.spec import JobSpec
from tests.app.find import find
from tests.app.steered_runs import SteeredRuns
from tests.app.surroundings import surroundings_with

Reports = list[tuple[BitwrightError, Remedy | None]]


@pytest.fixture
def bar(qtbot: QtBot, context: Context) -> JobBar:
    made = JobBar(context.theme, 88)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def feed() -> LogFeed:
    return LogFeed()


@pytest.fixture
def chats() -> list[str]:
    return []


@pytest.fixture
def shown() -> list[str]:
    """The page that is shown is the last of these."""
    return ["model"]


@pytest.fixture
def control(
    qtbot: QtBot,
    context: Context,
    runs: SteeredRuns,
    bar: JobBar,
    feed: LogFeed,
    chats: list[str],
    opened: OpenedModel,
    shown: list[str],
) -> JobControl:
    """With a model that can be quantized."""
    status = StatusLine()
    qtbot.addWidget(status)
    around = surroundings_with(context, runs=runs)
    control = JobControl(around, bar, status, feed, chats.append, lambda: shown[-1])
    context.draft.choose(model=opened)
    return control


def test_a_choice_shows_at_once(control: JobControl, bar: JobBar) -> None:
    assert (bar.action, bar.reason) == ("start", "")


def test_the_button_starts_the_run_and_shows_its_page(
    control: JobControl, bar: JobBar, runs: SteeredRuns, visited: list[str], opened: OpenedModel
) -> None:
    bar.press_primary()
    assert (runs.asked, visited, bar.action) == ([f"start {opened.name}"], ["run"], "pause")


def test_the_button_pauses(control: JobControl, bar: JobBar, runs: SteeredRuns) -> None:
    runs.begin()
    bar.press_primary()
    assert runs.asked == ["pause"]


def test_after_success_the_button_talks_to_the_result(
    control: JobControl, bar: JobBar, runs: SteeredRuns, context: Context, chats: list[str]
) -> None:
    spec = context.draft.spec()
    runs.begin(spec)
    runs.end(Done(spec.output, 1.0, {}))
    bar.press_primary()
    assert chats == [spec.output]


def test_after_a_run_from_before_the_button_talks_to_its_result_too(
    control: JobControl, bar: JobBar, runs: SteeredRuns, chats: list[str]
) -> None:
    runs.begin(JobSpec("another/model", "/its output"))
    runs.end(Done("/its output", 1.0, {}))
    bar.press_primary()
    assert chats == ["/its output"]


def test_another_choice_after_success_offers_another_run(
    control: JobControl, bar: JobBar, runs: SteeredRuns, context: Context
) -> None:
    runs.begin(context.draft.spec())
    runs.end(Done("/out", 1.0, {}))
    context.draft.choose(recipe=recipes.load("light"))
    assert bar.action == "start"


def test_after_a_failure_the_button_tries_again(
    control: JobControl, bar: JobBar, runs: SteeredRuns, context: Context
) -> None:
    runs.begin(context.draft.spec())
    runs.end(Failed("disk-full", "The disk is full.", "", "write", before_tuning=False))
    assert bar.action == "start"


@pytest.mark.parametrize(("page", "told"), [("model", ["The disk is full."]), ("run", [])])
def test_a_failure_is_told_where_the_run_page_is_not_shown(
    control: JobControl, runs: SteeredRuns, shown: list[str], reports: Reports, page: str, told: list[str]
) -> None:
    shown.append(page)
    runs.begin()
    runs.end(Failed("disk-full", "The disk is full.", "Free some room.", "write", before_tuning=False))
    assert [error.message for error, _remedy in reports] == told


@pytest.mark.parametrize(("page", "told"), [("model", ["The folder is taken."]), ("run", [])])
def test_a_refusal_is_told_where_the_run_page_is_not_shown(
    control: JobControl, runs: SteeredRuns, shown: list[str], reports: Reports, page: str, told: list[str]
) -> None:
    shown.append(page)
    runs.refused.emit(BitwrightError("The folder is taken.", ""))
    assert [error.message for error, _remedy in reports] == told


def test_a_second_run_is_refused_above_any_page(
    control: JobControl, runs: SteeredRuns, shown: list[str], reports: Reports
) -> None:
    shown.append("run")
    runs.begin()
    runs.refused.emit(BitwrightError("Another run is active.", ""))
    assert [error.message for error, _remedy in reports] == ["Another run is active."]


def test_the_remedy_of_a_failure_shows_the_run(
    control: JobControl, runs: SteeredRuns, reports: Reports, visited: list[str]
) -> None:
    runs.begin()
    runs.end(Failed("disk-full", "The disk is full.", "", "write", before_tuning=False))
    (_error, remedy), *_ = reports
    assert remedy is not None
    remedy.act()
    assert (remedy.text, visited) == ("Show run", ["run"])


def test_room_that_was_made_is_noticed(
    control: JobControl, bar: JobBar, context: Context, monkeypatch: pytest.MonkeyPatch, qtbot: QtBot
) -> None:
    free = [0]
    monkeypatch.setattr(resource_needs, "free_bytes", lambda _folder: free[0])
    control.refresh()
    assert bar.action == ""
    free[0] = 10**12
    qtbot.waitUntil(lambda: bar.action == "start", timeout=10_000)


def test_a_run_that_was_cancelled_is_no_failure(control: JobControl, runs: SteeredRuns, reports: Reports) -> None:
    runs.begin()
    runs.end(Failed("cancelled", "Stopped.", "", "tune", before_tuning=False))
    assert reports == []


def test_a_choice_during_a_run_leaves_the_runs_own_figures(
    qtbot: QtBot, control: JobControl, bar: JobBar, runs: SteeredRuns, context: Context, opened: OpenedModel
) -> None:
    runs.begin(context.draft.spec())
    context.draft.choose(model=dataclasses.replace(opened, name="other", label="other"))
    shown = find(bar, ElidedLabel, "job_model")
    assert shown.text() == "tiny"


def test_the_runs_own_lines_reach_the_log_once(control: JobControl, runs: SteeredRuns, feed: LogFeed) -> None:
    record = runs.begin()
    for number in range(3):
        batch = Batch()
        batch.add([Log("info", f"line {number}")])
        record.apply(batch)
        runs.changed.emit()
        runs.changed.emit()
    assert [line.split("  ")[1] for line in feed.take()] == ["line 0", "line 1", "line 2"]


def test_cancel_without_a_run_asks_nobody(control: JobControl, runs: SteeredRuns) -> None:
    control.cancel()
    assert runs.asked == []


def test_an_opened_model_is_remembered(control: JobControl, context: Context, opened: OpenedModel) -> None:
    assert context.state.recent == [opened.name]
