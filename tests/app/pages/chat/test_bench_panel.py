"""The speed measurement: start, display, stop, and reset with the model."""

from __future__ import annotations

import pytest
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QAbstractButton, QLabel, QWidget
from pytestqt.qtbot import QtBot

from app.pages.chat.bench_panel import BenchPanel
from app.pages.chat.session import ChatSession
from app.shared.context import Context
from core.errors import BadInput
from core.events import Progress
from core.inference.figures import SpeedReport, SpeedRow
from core.inference.generation.settings import Sampling
from core.service.messages import MeasurePerplexity
from tests.app.find import find
from tests.app.pages.chat.parts import label_of, shown
from tests.app.reading_aloud import unnamed, unreachable
from tests.app.scripted_session import ANSWERED, OPENED, ScriptedCalls

ROWS = (SpeedRow(32, 141.0, 0.23, 72.4, 141_000_000, 0.41), SpeedRow(512, 212.0, 2.41, 61.8, 160_000_000, 0.36))
FOUND = SpeedReport(ROWS, memory_bandwidth=28.7e9, report_path="/models/tiny/bitwright.json")


@pytest.fixture
def session(surroundings: Context) -> ChatSession:
    return ChatSession(surroundings.calls)


@pytest.fixture
def panel(qtbot: QtBot, surroundings: Context, session: ChatSession) -> BenchPanel:
    return shown(qtbot, BenchPanel(surroundings, session), 280, 400)


@pytest.fixture
def loaded(panel: BenchPanel, session: ChatSession, calls: ScriptedCalls) -> BenchPanel:
    session.load("/models/tiny", "auto")
    calls.last.succeed(OPENED)
    return panel


def go(panel: QWidget) -> QAbstractButton:
    return find(panel, QAbstractButton, "bench")


def cells(panel: QWidget) -> list[str]:
    table = next(each for each in panel.findChildren(QWidget, "bench_table") if each.isVisible())
    return [label.text() for label in table.findChildren(QLabel)]


def test_without_a_model_there_is_nothing_to_measure(panel: BenchPanel) -> None:
    assert not go(panel).isEnabled()
    assert label_of(panel, "bench_note") == "Load a model to measure its speed."


def test_a_page_without_a_session_has_the_panel_too(qtbot: QtBot, surroundings: Context) -> None:
    alone = BenchPanel(surroundings, None)
    qtbot.addWidget(alone)
    assert not go(alone).isEnabled()


def test_the_figures_are_shown(loaded: BenchPanel, calls: ScriptedCalls) -> None:
    go(loaded).click()
    calls.last.event(Progress(0.5, 1, 2))
    calls.last.succeed(FOUND)
    assert cells(loaded)[4:8] == ["32 tok", "141/s", "0.2 s", "72.4/s"]
    assert label_of(loaded, "bench_summary").endswith("Saved to the report of the run.")
    assert find(loaded, QWidget, "bench_plot").isVisible()


def test_a_model_without_a_report_is_not_said_to_have_one(loaded: BenchPanel, calls: ScriptedCalls) -> None:
    go(loaded).click()
    calls.last.succeed(FOUND, report_path="")
    assert "report" not in label_of(loaded, "bench_summary")


def test_one_length_is_no_curve(loaded: BenchPanel, calls: ScriptedCalls) -> None:
    go(loaded).click()
    calls.last.succeed(FOUND, rows=ROWS[:1])
    assert not find(loaded, QWidget, "bench_plot").isVisible()


def test_measuring_can_be_stopped(loaded: BenchPanel, session: ChatSession, calls: ScriptedCalls) -> None:
    go(loaded).click()
    assert go(loaded).text() == "Stop"
    go(loaded).click()
    assert calls.last.stopped
    assert (session.state, go(loaded).text()) == ("ready", "Measure speed")


def test_a_failure_is_a_sentence_in_place(loaded: BenchPanel, calls: ScriptedCalls) -> None:
    go(loaded).click()
    calls.last.fail(BadInput("No prompt fits.", "Choose shorter ones."))
    assert label_of(loaded, "bench_note") == "No prompt fits. Choose shorter ones."
    assert go(loaded).isEnabled()


def test_an_answer_goes_before_a_measurement(loaded: BenchPanel, session: ChatSession, calls: ScriptedCalls) -> None:
    session.generate([{"role": "user", "content": "hi"}], Sampling())
    assert not go(loaded).isEnabled()
    calls.last.succeed(ANSWERED)
    assert go(loaded).isEnabled()


def test_a_measurement_of_somebody_else_is_not_stopped_here(loaded: BenchPanel, session: ChatSession) -> None:
    session.measure(MeasurePerplexity(), on_success=lambda _: None, on_failure=lambda _: None, on_event=lambda _: None)
    assert (go(loaded).isEnabled(), go(loaded).text()) == (False, "Measure speed")


def test_another_model_takes_the_figures_away(loaded: BenchPanel, session: ChatSession, calls: ScriptedCalls) -> None:
    go(loaded).click()
    calls.last.succeed(FOUND)
    session.load("/models/other", "auto")
    assert loaded.bench.rows == ()


def test_the_table_can_be_copied(loaded: BenchPanel, calls: ScriptedCalls) -> None:
    go(loaded).click()
    calls.last.succeed(FOUND)
    find(loaded, QAbstractButton, "bench_copy").click()
    assert QGuiApplication.clipboard().text().splitlines()[2].startswith("512\t212.00")


def test_the_plot_is_painted_and_told(loaded: BenchPanel, calls: ScriptedCalls) -> None:
    go(loaded).click()
    calls.last.succeed(FOUND)
    plot = find(loaded, QWidget, "bench_plot")
    assert plot.accessibleDescription() == "Prefill 141 to 212 tokens per second, decode 61.8 to 72.4"
    assert not plot.grab().isNull()


def test_everything_has_a_name_and_can_be_reached(loaded: BenchPanel, calls: ScriptedCalls) -> None:
    go(loaded).click()
    calls.last.succeed(FOUND)
    assert (unnamed(loaded), unreachable(loaded)) == ([], [])
