"""Display of a comparison: differences, statistics, perplexity, pickers, and accessibility."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PySide6.QtWidgets import QComboBox, QTextEdit, QWidget
from pytestqt.qtbot import QtBot

from app.pages.chat.comparison.turn_view import TurnView
from app.pages.chat.comparison.view import ComparisonView
from app.shared.context import Context
from core.errors import DeviceProblem
from core.events import Log, Progress
from core.inference.figures import Perplexity
from core.service.messages import MeasurePerplexity, OutputModel, ReportedPerplexity, Say
from tests.app.find import find
from tests.app.pages.chat.comparison.parts import answer, asked, button, child_of, label_of, load
from tests.app.pages.chat.parts import PlayedRuns
from tests.app.reading_aloud import unnamed, unreachable
from tests.app.scripted_session import ScriptedCalls

FIRST = ("It", " is", " **known**", " for", " wine", ".")
SECOND = ("It", " is", " famous", " for", " wine", ".")


@pytest.fixture
def compared(qtbot: QtBot, view: ComparisonView, calls: ScriptedCalls) -> ComparisonView:
    """Two answers that differ in a word."""
    view.ask("hello")
    left, right = child_of(calls, "original"), child_of(calls, "quantized")
    load(left, memory_bytes=310_000_000, perplexity=ReportedPerplexity(23.9, "23.9 on 12,000 tokens"))
    load(right, memory_bytes=141_000_000)
    answer(left, *FIRST, tokens_per_second=16.5)
    with qtbot.waitSignal(view.session.compared):
        answer(right, *SECOND, tokens_per_second=71.0)
    view._turn_list.lay_out()
    return view


def last(view: ComparisonView) -> TurnView:
    return view._turn_list.turns[-1]


def marked(turn: TurnView, place: int) -> list[str]:
    return [
        selection.cursor.selectedText()
        for edit in turn.answers[place].findChildren(QTextEdit)
        for selection in edit.extraSelections()
    ]


def test_a_side_names_the_format_of_weights_that_are_unpacked(view: ComparisonView, calls: ScriptedCalls) -> None:
    view.ask("hello")
    load(child_of(calls, "original"), schemes={}, unpacked="MXFP4")
    load(child_of(calls, "quantized"), schemes={})
    assert "MXFP4, unpacked to 16 bits" in label_of(view, "comparison_detail_A")
    assert "not quantized" in label_of(view, "comparison_detail_B")


def test_the_difference_is_marked_on_both_sides(compared: ComparisonView) -> None:
    assert [marked(last(compared), place) for place in (0, 1)] == [["known"], ["famous"]]


def test_the_difference_is_said(compared: ComparisonView) -> None:
    assert last(compared).verdict == "They differ after 2 tokens. 83 % of the tokens are the same."


def test_marks_can_be_taken_away(compared: ComparisonView) -> None:
    compared._settings._marks.click()
    compared._turn_list.lay_out()
    assert marked(last(compared), 0) == []


def test_marks_are_kept_when_the_colors_change(compared: ComparisonView, surroundings: Context) -> None:
    surroundings.theme.set_scheme("dark")
    assert marked(last(compared), 1) == ["famous"]


def test_code_is_marked_too(qtbot: QtBot, view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls, "code")
    answer(left, "Here", ":\n", "```python\n", "a", " =", " 1", "\n```", "\nDone", ".")
    with qtbot.waitSignal(view.session.compared):
        answer(right, "Here", ":\n", "```python\n", "a", " =", " 2", "\n```", "\nDone", ".")
    view._turn_list.lay_out()
    assert [marked(last(view), place) for place in (0, 1)] == [["1"], ["2"]]


def test_a_letter_beyond_sixteen_bits_moves_no_mark(qtbot: QtBot, view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls, "smile")
    answer(left, "\N{GRINNING FACE}\N{GRINNING FACE}", " yes", " of", " course")
    with qtbot.waitSignal(view.session.compared):
        answer(right, "\N{GRINNING FACE}\N{GRINNING FACE}", " no", " of", " course")
    view._turn_list.lay_out()
    assert marked(last(view), 0) == ["yes"]


def test_a_comparison_that_comes_late_stays_with_its_turn(
    qtbot: QtBot, view: ComparisonView, calls: ScriptedCalls
) -> None:
    left, right = asked(view, calls, "one")
    answer(left, "a")
    answer(right, "a")
    with qtbot.waitSignal(view.session.compared):
        view.ask("two")
    assert [turn.turn.comparison is not None for turn in view._turn_list.turns] == [True, False]


def test_each_answer_says_what_it_cost(compared: ComparisonView) -> None:
    shown = [list(figures.values().values()) for figures in last(compared).figures]
    assert shown == [["16.5", "0.5 s", "310 MB", "23.9"], ["71", "0.5 s", "141 MB", "\N{EN DASH}"]]


def test_answers_that_came_at_once_say_that_they_were_slowed(compared: ComparisonView) -> None:
    assert all(reply.shared for reply in last(compared).turn.replies)


def test_a_missing_perplexity_can_be_measured(compared: ComparisonView, calls: ScriptedCalls) -> None:
    button(compared, "measure_B").click()
    call = child_of(calls, "quantized").calls[-1]
    assert isinstance(call.request, MeasurePerplexity)
    call.event(Progress(0.42, 1, 2))
    assert button(compared, "measure_B").text() == "Measuring, 42 %"
    call.succeed(Perplexity(25.1, 0.2, 3.2, 4000, 512, "25.1 on 4,000 tokens", ""))
    assert last(compared).figures[1].values()["perplexity"] == "25.1"


def test_measuring_can_be_stopped(compared: ComparisonView, calls: ScriptedCalls) -> None:
    button(compared, "measure_B").click()
    button(compared, "measure_B").click()
    assert child_of(calls, "quantized").calls[-1].stopped
    assert button(compared, "measure_B").text() == "Measure perplexity"


def test_a_measurement_that_fails_is_said_at_the_head(compared: ComparisonView, calls: ScriptedCalls) -> None:
    button(compared, "measure_B").click()
    child_of(calls, "quantized").calls[-1].fail(DeviceProblem("The device is lost.", "Load again."))
    assert label_of(compared, "comparison_trouble_B") == "The device is lost. Load again."


def test_a_question_ends_a_measurement(compared: ComparisonView, calls: ScriptedCalls) -> None:
    button(compared, "measure_B").click()
    child = child_of(calls, "quantized")
    compared.ask("more")
    assert child.calls[-2].stopped
    assert isinstance(child.calls[-1].request, Say)


def test_a_perplexity_that_was_known_is_not_measured(compared: ComparisonView) -> None:
    assert not find(last(compared).figures[0], QWidget, "measure_A").isVisibleTo(compared)


def test_loading_says_what_happens(view: ComparisonView, calls: ScriptedCalls) -> None:
    button(view, "comparison_load_B").click()
    calls.last.event(Log("info", "Packing layer 3"))
    assert label_of(view, "comparison_detail_B") == "Packing layer 3"
    button(view, "comparison_load_B").click()
    assert calls.sessions[0].closed


def test_what_is_picked_is_remembered(view: ComparisonView, qtbot: QtBot, surroundings: Context) -> None:
    again = ComparisonView(surroundings)
    qtbot.addWidget(again)
    assert surroundings.state.value("comparison/left", "").endswith("original")


def test_the_original_is_set_against_what_was_made(
    qtbot: QtBot, surroundings: Context, calls: ScriptedCalls, opened: Any
) -> None:
    calls.outputs = [
        OutputModel(Path("/out/new"), "", "W4 g64 sym", opened.name, 2.0),
        OutputModel(Path("/out/old"), "", "W4 g64 sym", opened.name, 1.0),
    ]
    surroundings.draft.choose(model=opened)
    view = ComparisonView(surroundings)
    qtbot.addWidget(view)
    view.show()
    assert [side.name for side in view.session.sides] == [opened.name, "/out/new"]


def test_without_a_model_the_page_leads_to_one(qtbot: QtBot, surroundings: Context, visited: list[str]) -> None:
    view = ComparisonView(surroundings)
    qtbot.addWidget(view)
    view.show()
    button(view, "comparison_get_model").click()
    assert visited == ["model"]


def test_another_device_is_used_at_the_next_load(view: ComparisonView, calls: ScriptedCalls) -> None:
    button(view, "comparison_load_A").click()
    box = find(view, QComboBox, "comparison_device_A")
    box.setCurrentIndex(1)
    box.activated.emit(1)
    assert calls.sessions[0].closed
    button(view, "comparison_load_A").click()
    assert calls.last.request.device == "cpu"


def test_a_picked_device_is_remembered(view: ComparisonView, qtbot: QtBot, surroundings: Context) -> None:
    view._pick_device(1, "cpu")
    again = ComparisonView(surroundings)
    qtbot.addWidget(again)
    assert [side.device for side in again.session.sides] == ["auto", "cpu"]


def test_a_device_that_is_gone_is_told(view: ComparisonView, calls: ScriptedCalls) -> None:
    button(view, "comparison_load_A").click()
    load(calls.sessions[0], device_note="There is no device cuda:1; using the CPU instead.")
    assert label_of(view, "comparison_trouble_A") == "There is no device cuda:1; using the CPU instead."


def test_a_run_that_takes_its_share_is_said(view: ComparisonView, runs: PlayedRuns) -> None:
    runs.active = True
    runs.changed.emit()
    assert label_of(view, "comparison_slow").startswith("A run is active")


def test_clear_can_be_taken_back(compared: ComparisonView) -> None:
    button(compared, "comparison_clear").click()
    assert compared._turn_list.turns == []
    button(compared, "notice_button").click()
    assert marked(last(compared), 0) == ["known"]


def test_a_complete_pair_is_told(qtbot: QtBot, view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    answer(left, "a")
    with qtbot.waitSignal(view.answered):
        answer(right, "b")


def test_everything_has_a_name_and_can_be_reached(compared: ComparisonView) -> None:
    button(compared, "comparison_settings").click()
    assert unnamed(compared) == []
    # text that has no link is copied with the button of its message
    assert [name for name in unreachable(compared) if not name.startswith(("ProseView", "_Body"))] == []


def test_it_fits_a_small_window(compared: ComparisonView) -> None:
    button(compared, "comparison_settings").click()
    smallest = compared.minimumSizeHint()
    assert (smallest.width() <= 880, smallest.height() <= 540) == (True, True)
