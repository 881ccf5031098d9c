"""The Run page in each of its states, on recorded events of a real run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PySide6.QtCore import QPoint, Qt
from PySide6.QtWidgets import QAbstractButton, QComboBox, QLabel, QPlainTextEdit, QPushButton, QWidget
from pytestqt.qtbot import QtBot

from app.pages.run.block_list import BlockList
from app.pages.run.curve_pane import END_TO_END, LOSS, CurvePane
from app.pages.run.curve_pane import START as START_VIEW
from app.pages.run.loss_plot import LossPlot
from app.pages.run.page import RunPage
from app.pages.run.stage_line import StageLine
from app.shared import resource_needs
from app.shared.context import Context
from app.shared.models.opened import OpenedModel
from app.widgets import plotting
from core import recipes
from core.events import BlockDone, BlockStarted, EndToEnd, Event, Failed, LayerStarted, Log, Loss, Progress, Stage
from core.jobs import store
from core.jobs.process import ROOT
from core.jobs.worker import ORPHANED
from core.spec import JobSpec
from tests.app.find import find
from tests.app.replayed_runs import ReplayedRuns, recorded, up_to, window_for
from tests.app.surroundings import surroundings_with

SPEC = JobSpec("demo", "/models/out", recipes.load("quick"))
TUNED_SPEC = replace(SPEC, recipe=replace(recipes.load("default"), iters=4))
SMALLEST = (880, 580)


@pytest.fixture
def runs() -> ReplayedRuns:
    return ReplayedRuns()


@pytest.fixture
def surroundings(context: Context, runs: ReplayedRuns) -> Context:
    return surroundings_with(context, runs=runs)


@pytest.fixture
def hidden(surroundings: Context) -> Iterator[RunPage]:
    """The page while nobody sees it."""
    made = RunPage(surroundings)
    window = window_for(made, *SMALLEST)
    yield made
    window.close()


@pytest.fixture
def page(qtbot: QtBot, hidden: RunPage) -> RunPage:
    plotting.begin_import()
    qtbot.waitUntil(plotting.ready, timeout=60_000)
    hidden.window().show()
    return hidden


def text(page: QWidget, name: str) -> str:
    label = find(page, QLabel, name)
    return label.text()


def button(page: QWidget, name: str) -> QPushButton:
    found = next(one for one in page.findChildren(QPushButton, name) if one.isVisible())
    assert isinstance(found, QPushButton)
    return found


def blocks(page: RunPage) -> BlockList:
    return page.live.findChildren(BlockList)[0]


def plot(page: RunPage) -> LossPlot:
    return page.live.findChildren(LossPlot)[0]


def in_block(number: int, share: float = 0.5) -> list[Event]:
    """The recorded events up to the middle of a block."""
    return list(
        up_to(Loss, when=lambda e: isinstance(e, Loss) and e.block == number and e.iteration >= share * e.iterations)
    )


# --- Nothing yet ---


def test_without_a_model_the_page_leads_to_one(page: RunPage, qtbot: QtBot, visited: list[str]) -> None:
    found = button(page, "welcome_button")
    assert found.text() == "Select a model"
    qtbot.mouseClick(found, Qt.MouseButton.LeftButton)
    assert visited == ["model"]


def test_with_a_model_the_page_starts_the_run(
    page: RunPage, qtbot: QtBot, surroundings: Context, runs: ReplayedRuns, opened: OpenedModel
) -> None:
    surroundings.draft.choose(model=opened)
    found = button(page, "welcome_button")
    assert found.text() == "Quantize"
    qtbot.mouseClick(found, Qt.MouseButton.LeftButton)
    assert runs.asked == [f"start {opened.name}"]


def test_the_page_does_not_import_the_plot_before_it_is_needed() -> None:
    code = "import sys, app.pages.run.page; sys.exit('pyqtgraph' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


# --- A run that is on ---


def test_the_end_to_end_stage_is_shown_between_tuning_and_writing(page: RunPage, runs: ReplayedRuns) -> None:
    steps = [EndToEnd(1, 2, 1.5), Progress(0.9, 5.0, 15.0), EndToEnd(2, 2, 1.25)]
    runs.play([*up_to(Stage, when=lambda e: isinstance(e, Stage) and e.name == "write")[:-1]], SPEC)
    line = page.live.findChild(StageLine)
    assert line is not None
    assert "End to end" not in line.accessibleDescription()
    runs.more([Stage("end to end"), *steps])
    assert text(page, "run_doing").endswith("step 2 of 2, KL divergence 1.25")
    assert "Tune: done, End to end: active, Write: pending" in line.accessibleDescription()
    line.grab()
    runs.more(recorded()[-1:])
    assert not runs.active


BLOCK = BlockStarted(0, 2, "layers.0", ("q", "k"))
START = (LayerStarted(0, "q", 0.4, 0.1), LayerStarted(0, "k", 0.2, 0.1))
STEPS = (Loss(0, 1, 4, 0.5), Loss(0, 2, 4, 0.4))
TUNED = (*START, *STEPS, BlockDone(0, 2, 1.0, 0.4, 2, 1.0))


def curves(page: RunPage) -> CurvePane:
    return page.live.findChildren(CurvePane)[0]


def shown_views(page: RunPage) -> list[str]:
    return [view for view in (START_VIEW, LOSS, END_TO_END) if curves(page).views.button(view).isVisible()]


def test_a_recipe_without_iterations_shows_the_errors_of_each_layer(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play([Stage("tune"), BLOCK, START[0]], replace(SPEC, recipe=recipes.load("gptq")))
    assert [(row.kind, bool(row.text)) for row in curves(page).layers.rows] == [("q", True), ("k", False)]
    assert curves(page).layers.isVisible()
    assert text(page.live, "curve_title") == "Start of block 1 of 2"
    assert "start 1 of 2" in blocks(page).table.index(0).data()
    assert shown_views(page) == []  # a single view needs no choice
    runs.more([START[1], BlockDone(0, 2, 1.0, 0.4, 0, 1.0), BlockStarted(1, 2, "layers.1", ("q", "k"))])
    assert [bool(row.text) for row in curves(page).layers.rows] == [False, False]


def test_the_start_gives_way_to_the_loss_of_the_steps(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    runs.play([Stage("tune"), BLOCK, *START], TUNED_SPEC)
    assert curves(page).layers.isVisible()
    runs.more(STEPS)
    assert plot(page).isVisible()
    assert shown_views(page) == [START_VIEW, LOSS]
    qtbot.mouseClick(curves(page).views.button(START_VIEW), Qt.MouseButton.LeftButton)
    assert curves(page).layers.isVisible()
    runs.more([Loss(0, 3, 4, 0.3)])
    assert curves(page).layers.isVisible()  # the choice stays


def test_the_divergence_of_the_end_to_end_steps_grows(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    stage = (Stage("end to end"), EndToEnd(1, 60, 1.5), EndToEnd(2, 60, 1.25))
    runs.play([Stage("tune"), BLOCK, *TUNED, *stage], TUNED_SPEC)
    assert curves(page).divergence.isVisible()
    assert curves(page).divergence.points == 2
    assert text(page.live, "curve_title") == "End-to-end stage"
    runs.more([EndToEnd(3, 60, 1.0)])
    assert curves(page).divergence.points == 3
    place = blocks(page).visualRect(blocks(page).table.index(0)).center()
    qtbot.mouseClick(blocks(page).viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert plot(page).isVisible()
    qtbot.mouseClick(button(page, "follow"), Qt.MouseButton.LeftButton)
    assert curves(page).divergence.isVisible()


def test_the_report_keeps_all_curves(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    stage = (Stage("end to end"), EndToEnd(1, 2, 1.5), EndToEnd(2, 2, 1.25))
    runs.play([Stage("tune"), BLOCK, *TUNED, *stage, recorded()[-1]], TUNED_SPEC)
    pane = page.report.findChildren(CurvePane)[0]
    assert pane.divergence.points == 2
    pane.views.button(START_VIEW).click()
    assert [row.kind for row in pane.layers.rows] == ["q", "k"]
    pane.views.button(LOSS).click()
    assert pane.plot.points == 2


def test_recorded_runs_without_these_events_show_the_loss_alone(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play(in_block(2), SPEC)
    assert plot(page).isVisible()
    assert shown_views(page) == []


def test_a_run_that_begins_shows_its_stage(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play([Stage("prepare")], SPEC)
    assert text(page, "run_title") == "SmolLM2-135M-Instruct to 4 bits"
    assert text(page, "run_doing") == "Opening the model"


def test_the_curve_of_the_current_block_grows(page: RunPage, runs: ReplayedRuns) -> None:
    record = runs.play(in_block(2), SPEC)
    before = plot(page).points
    assert before == len(record.curves[2].losses)
    runs.more([Loss(2, record.iterations, record.iterations, 0.5)])
    assert plot(page).points == before + 1
    assert text(page.live, "curve_title") == f"Loss of block 3 of {record.total}"


def test_finished_blocks_show_their_figures(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play(in_block(2), SPEC)
    table = blocks(page).table
    assert "\N{RIGHTWARDS ARROW}" in table.index(0).data()
    assert "tuning" in table.index(2).data()
    assert table.rowCount() == len([event for event in recorded() if isinstance(event, BlockDone)])


def test_a_click_on_a_block_brings_its_curve_back(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    record = runs.play(in_block(2), SPEC)
    place = blocks(page).visualRect(blocks(page).table.index(0)).center()
    qtbot.mouseClick(blocks(page).viewport(), Qt.MouseButton.LeftButton, pos=place)
    assert text(page.live, "curve_title") == f"Loss of block 1 of {record.total}"
    assert plot(page).points == len(record.curves[0].losses)


def test_a_picked_curve_stays_while_the_run_goes_on(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    record = runs.play(in_block(2), SPEC)
    blocks(page).setFocus()
    qtbot.keyClick(blocks(page), Qt.Key.Key_Up)
    runs.more([BlockDone(2, record.total, 1.0, 0.5, 1, 1.0), BlockStarted(3, record.total, "x", ())])
    assert text(page.live, "curve_title").startswith("Loss of block 2 ")


def test_escape_goes_back_to_the_current_block(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    runs.play(in_block(2), SPEC)
    qtbot.keyClick(blocks(page), Qt.Key.Key_Up)
    qtbot.keyClick(blocks(page), Qt.Key.Key_Escape)
    assert text(page.live, "curve_title").startswith("Loss of block 3 ")


def test_a_button_goes_back_to_the_current_block(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    runs.play(in_block(2), SPEC)
    qtbot.keyClick(blocks(page), Qt.Key.Key_Home)
    qtbot.mouseClick(button(page, "follow"), Qt.MouseButton.LeftButton)
    assert text(page.live, "curve_title").startswith("Loss of block 3 ")


def test_the_list_follows_the_tuning(page: RunPage, runs: ReplayedRuns) -> None:
    record = runs.play(in_block(2), SPEC)
    runs.more([BlockDone(2, record.total, 1.0, 0.5, 1, 1.0), BlockStarted(3, record.total, "x", ())])
    assert blocks(page).currentIndex().row() == 3


def test_pause_becomes_resume(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    runs.play(in_block(1), SPEC)
    qtbot.mouseClick(button(page, "run_pause"), Qt.MouseButton.LeftButton)
    assert button(page, "run_pause").text() == "Resume"
    assert text(page, "run_doing").endswith("pausing after this block")
    qtbot.mouseClick(button(page, "run_pause"), Qt.MouseButton.LeftButton)
    assert runs.asked == ["pause", "resume"]


def test_a_paused_run_says_so(page: RunPage, runs: ReplayedRuns) -> None:
    record = runs.play(in_block(1), SPEC)
    runs.pause()
    runs.more([BlockDone(1, record.total, 1.0, 0.5, 1, 1.0)])
    assert text(page, "run_doing").startswith("Paused")


def test_when_no_block_is_to_come_there_is_no_pause(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play(up_to(Stage, when=lambda event: isinstance(event, Stage) and event.name == "write"), SPEC)
    assert not button(page, "run_pause").isEnabled()


def test_cancel_asks_the_run(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    runs.play(in_block(1), SPEC)
    qtbot.mouseClick(button(page, "run_cancel"), Qt.MouseButton.LeftButton)
    assert runs.asked == ["cancel"]


def test_log_lines_are_added_once(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play([Stage("prepare"), Log("warning", "first")], SPEC)
    runs.more([Log("info", "second")])
    runs.more([Stage("tune")])
    lines = find(page.live, QPlainTextEdit, "run_log").toPlainText().splitlines()
    assert [line.split("  ", 1)[1] for line in lines] == ["warning: first", "second"]


def test_of_a_flood_of_log_lines_the_newest_are_shown(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play([Stage("prepare"), *(Log("info", f"line {number}") for number in range(5000))], SPEC)
    log = find(page.live, QPlainTextEdit, "run_log")
    lines = log.toPlainText().splitlines()
    assert len(lines) < 300
    assert "omitted" in lines[0]
    assert lines[-1].endswith("line 4999")


def test_events_before_the_page_is_seen_are_all_there(qtbot: QtBot, hidden: RunPage, runs: ReplayedRuns) -> None:
    record = runs.play(in_block(2), SPEC)
    hidden.window().show()
    qtbot.waitUntil(lambda: plot(hidden).points > 0, timeout=60_000)
    assert plot(hidden).points == len(record.curves[2].losses)


# --- A run without a result ---


def failed(code: str = "internal", message: str = "It broke.", hint: str = "Mend it.", early: bool = False) -> Failed:
    return Failed(code, message, hint, "tune", early)


def test_a_failure_says_where_why_and_what_to_do(page: RunPage, runs: ReplayedRuns) -> None:
    record = runs.play([*in_block(2), failed()], SPEC)
    assert text(page, "ending_headline") == f"The run failed at block 3 of {record.total}"
    assert (text(page, "ending_message"), text(page, "ending_hint")) == ("It broke.", "Mend it.")


def test_a_failed_run_keeps_its_curves(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    record = runs.play([*in_block(2), failed()], SPEC)
    qtbot.keyClick(blocks(page), Qt.Key.Key_Home)
    assert plot(page).points == len(record.curves[0].losses)


def test_try_again_waits_for_room_on_the_disk(
    page: RunPage, runs: ReplayedRuns, surroundings: Context, opened: OpenedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    surroundings.draft.choose(model=opened)
    monkeypatch.setattr(resource_needs, "free_bytes", lambda _folder: 1000)
    runs.play([*in_block(2), failed()], JobSpec(opened.name, "/models/out"))
    found, reason = button(page, "try_again"), text(page, "ending_obstacle")
    assert (found.isEnabled(), found.toolTip()) == (False, reason)
    assert reason.endswith("of disk space, 1 kB free")


def test_try_again_comes_back_with_the_room(
    page: RunPage,
    runs: ReplayedRuns,
    surroundings: Context,
    opened: OpenedModel,
    monkeypatch: pytest.MonkeyPatch,
    qtbot: QtBot,
) -> None:
    surroundings.draft.choose(model=opened)
    free = [1000]
    monkeypatch.setattr(resource_needs, "free_bytes", lambda _folder: free[0])
    runs.play([*in_block(2), failed()], JobSpec(opened.name, "/models/out"))
    free[0] = 10**12
    qtbot.waitUntil(button(page, "try_again").isEnabled, timeout=10_000)


def test_try_again_starts_the_same_run(page: RunPage, runs: ReplayedRuns, qtbot: QtBot) -> None:
    runs.play([*in_block(2), failed()], SPEC)
    qtbot.mouseClick(button(page, "try_again"), Qt.MouseButton.LeftButton)
    assert runs.asked == ["start demo"]


def test_show_log_shows_the_childs_own_log(page: RunPage, runs: ReplayedRuns, qtbot: QtBot, tmp_path: Path) -> None:
    (tmp_path / store.LOG).write_text("Traceback\nZeroDivisionError\n")
    runs.play([*in_block(2), failed()], SPEC, tmp_path)
    qtbot.mouseClick(button(page, "show_log"), Qt.MouseButton.LeftButton)
    log = find(page.live, QPlainTextEdit, "run_log")
    assert log.toPlainText().endswith("ZeroDivisionError")


def test_a_death_is_told_with_its_sentence(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play([*in_block(2), failed("child-died", "The run was killed (signal 9).")], SPEC)
    assert text(page, "ending_message") == "The run was killed (signal 9)."


def test_a_cancelled_run_says_that_nothing_is_left(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play([*in_block(2), failed("cancelled")], SPEC)
    assert text(page, "ending_headline") == "Cancelled"
    assert "All its files were removed." in text(page, "ending_message")


def test_a_run_that_went_with_its_window_says_so(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play([*in_block(2), failed("cancelled", ORPHANED)], SPEC)
    assert text(page, "ending_headline") == "Stopped with the window"


def test_a_request_that_was_wrong_shows_no_empty_plot(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play([Stage("prepare"), failed(early=True)], SPEC)
    assert not plot(page).isVisible()


# --- The page among others ---


def test_a_finished_run_turns_into_the_report(page: RunPage, runs: ReplayedRuns) -> None:
    runs.play(recorded(), SPEC)
    assert page.report.isVisible()
    assert text(page.report, "verdict")


def test_quantize_another_leaves_the_report(
    page: RunPage, runs: ReplayedRuns, qtbot: QtBot, visited: list[str]
) -> None:
    runs.play(recorded(), SPEC)
    qtbot.mouseClick(button(page, "another"), Qt.MouseButton.LeftButton)
    assert (runs.asked, visited) == (["clear"], ["model"])
    assert page.welcome.isVisible()


def test_the_dot_says_that_a_run_is_on_or_has_ended_unseen(qtbot: QtBot, hidden: RunPage, runs: ReplayedRuns) -> None:
    assert not hidden.dot()
    with qtbot.waitSignal(hidden.dot_changed):
        runs.play(in_block(1), SPEC)
    runs.more([failed()])
    assert hidden.dot()
    with qtbot.waitSignal(hidden.dot_changed):
        hidden.window().show()
    assert not hidden.dot()


def test_the_end_is_said_once(page: RunPage, runs: ReplayedRuns, said: list[str]) -> None:
    runs.play(recorded(), SPEC)
    runs.changed.emit()
    assert len(said) == 1


STATES: dict[str, list[Event]] = {
    "empty": [],
    "preparing": [Stage("prepare")],
    "failed": [Stage("tune"), BlockStarted(0, 3, "x", ()), failed()],
    "report": [],
}


@pytest.mark.parametrize("state", ["empty", "preparing", "tuning", "failed", "report"])
def test_the_page_fits_the_smallest_window(page: RunPage, runs: ReplayedRuns, qtbot: QtBot, state: str) -> None:
    events = {"tuning": in_block(2), "report": list(recorded())}.get(state, STATES.get(state))
    if events:
        runs.play(events, SPEC)
    assert page.minimumSizeHint().width() <= SMALLEST[0]
    assert page.minimumSizeHint().height() <= SMALLEST[1]


@pytest.mark.parametrize("state", ["empty", "tuning", "failed", "report"])
def test_everything_that_can_be_used_has_a_name(page: RunPage, runs: ReplayedRuns, state: str) -> None:
    events = {"tuning": in_block(2), "report": list(recorded())}.get(state, STATES.get(state))
    if events:
        runs.play(events, SPEC)
    nameless = [
        widget.objectName() or type(widget).__name__
        for kind in (QAbstractButton, QComboBox, QPlainTextEdit, BlockList)
        for widget in page.findChildren(kind)
        if not (widget.accessibleName() or getattr(widget, "text", str)() or _buddy(page, widget))
        and widget.objectName() != "qt_spinbox_lineedit"
    ]
    assert nameless == []


def _buddy(page: QWidget, widget: QWidget) -> bool:
    return any(label.buddy() is widget for label in page.findChildren(QLabel))


def test_the_page_can_be_painted_from_right_to_left(page: RunPage, runs: ReplayedRuns) -> None:
    page.setLayoutDirection(Qt.LayoutDirection.RightToLeft)
    runs.play(in_block(2), SPEC)
    image = page.grab().toImage()
    assert not image.isNull()
    assert blocks(page).mapTo(page, QPoint(0, 0)).x() < plot(page).mapTo(page, QPoint(0, 0)).x()
