"""Closing the window during a conversion; test_main_window.py covers runs."""

from __future__ import annotations

from typing import Any

import pytest
from pytestqt.qtbot import QtBot

from app.frame.error_strip import ErrorStrip
from app.frame.leaving import Leaving
from app.theme import Theme
from core.service.messages import ConvertModel
from tests.app.recorded_calls import RecordedCalls
from tests.app.steered_runs import SteeredRuns


@pytest.fixture
def calls() -> RecordedCalls:
    made = RecordedCalls()
    made.start(ConvertModel("demo", "/out", "f32"), on_success=lambda _values: None)
    return made


@pytest.fixture
def strip(qtbot: QtBot, theme: Theme) -> ErrorStrip:
    made = ErrorStrip(theme)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def leaving(calls: RecordedCalls, strip: ErrorStrip) -> Leaving:
    runs: Any = SteeredRuns()
    service: Any = calls
    return Leaving(runs, service, strip)


def test_a_conversion_is_not_ended_without_a_question(leaving: Leaving, strip: ErrorStrip) -> None:
    assert not leaving.may_close()
    assert strip.message == "A conversion is active."


def test_whoever_stops_it_leaves(leaving: Leaving, strip: ErrorStrip, qtbot: QtBot) -> None:
    leaving.may_close()
    with qtbot.waitSignal(leaving.ready):
        strip.press_remedy()
    assert leaving.may_close()


def test_without_one_the_window_closes(leaving: Leaving, calls: RecordedCalls) -> None:
    calls.started[0].stop()
    assert leaving.may_close()
