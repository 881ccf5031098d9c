"""Asking two models: at once, in turn, stopping, and errors."""

from __future__ import annotations

import pytest
from PySide6.QtCore import Qt
from PySide6.QtWidgets import QPlainTextEdit
from pytestqt.qtbot import QtBot

from app.pages.chat.comparison import turns
from app.pages.chat.comparison.view import ComparisonView
from core.errors import BadInput, OutOfMemory
from tests.app.find import find
from tests.app.pages.chat.comparison.parts import answer, asked, button, child_of, label_of, load, texts
from tests.app.scripted_session import ANSWERED, ScriptedCalls


@pytest.fixture
def short_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "free_for", lambda _machine, devices: dict.fromkeys(devices, 7e8))


def in_turn(view: ComparisonView) -> None:
    view._settings._order.set_value("in_turn")


def test_showing_it_loads_nothing(view: ComparisonView, calls: ScriptedCalls) -> None:
    assert calls.sessions == []


def test_asking_loads_both_and_asks_both(view: ComparisonView, calls: ScriptedCalls) -> None:
    for child in asked(view, calls):
        assert list(child.calls[-1].request.messages) == [{"role": "user", "content": "hello"}]


def test_both_get_the_same_seed_and_sampling(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    assert left.calls[-1].request.sampling == right.calls[-1].request.sampling


def test_both_answers_stream_at_once(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    left.calls[-1].say("Good ")
    right.calls[-1].say("Bad ")
    assert texts(view) == ["Good ", "Bad "]


def test_the_conversation_goes_on_with_the_own_answers(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    answer(left, "one")
    answer(right, "two")
    view.ask("more")
    for child, own in ((left, "one"), (right, "two")):
        assert [message["content"] for message in child.calls[-1].request.messages] == ["hello", own, "more"]


def test_in_turn_the_second_waits_for_the_first(view: ComparisonView, calls: ScriptedCalls) -> None:
    in_turn(view)
    view.ask("hello")
    assert len(calls.sessions) == 1
    left = child_of(calls, "original")
    load(left)
    assert label_of(view, "comparison_verdict") == "A is generating, B is waiting."
    answer(left, "one")
    right = child_of(calls, "quantized")
    load(right)
    assert not left.closed
    answer(right, "one")
    assert not view.session.busy


def test_where_memory_is_short_the_first_makes_room(
    short_of_memory: None, view: ComparisonView, calls: ScriptedCalls
) -> None:
    view.ask("hello")
    left = child_of(calls, "original")
    load(left)
    answer(left, "one")
    assert left.closed
    load(child_of(calls, "quantized"))
    answer(child_of(calls, "quantized"), "two")
    assert texts(view) == ["one", "two"]


def test_the_next_question_goes_first_to_the_model_that_is_in_memory(
    short_of_memory: None, view: ComparisonView, calls: ScriptedCalls
) -> None:
    view.ask("hello")
    load(child_of(calls, "original"))
    answer(child_of(calls, "original"), "one")
    right = child_of(calls, "quantized")
    load(right)
    answer(right, "two")
    view.ask("more")
    assert len(calls.sessions) == 2
    assert right.calls[-1].request.messages[-1]["content"] == "more"


def test_the_plan_is_said_before_anything_is_asked(short_of_memory: None, view: ComparisonView) -> None:
    view._update()
    assert "700 MB free" in label_of(view, "comparison_plan")


def test_stop_ends_both_and_keeps_what_came(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    left.calls[-1].say("Half")
    button(view, "send").click()
    assert left.calls[-1].stopped
    assert right.calls[-1].stopped
    for child in (left, right):
        child.calls[-1].succeed(ANSWERED, ended_by="stopped")
    assert texts(view)[0] == "Half"
    assert not view.session.busy


def test_a_second_stop_ends_children_that_do_not_hear(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    view.stop()
    view.stop()
    assert left.closed
    assert right.closed
    assert not view.session.busy


def test_stop_while_loading_ends_the_turn(view: ComparisonView, calls: ScriptedCalls) -> None:
    view.ask("hello")
    view.stop()
    assert all(child.closed for child in calls.sessions)
    assert not view.session.busy


def test_stop_leaves_the_waiting_one_unasked(view: ComparisonView, calls: ScriptedCalls) -> None:
    in_turn(view)
    view.ask("hello")
    load(child_of(calls, "original"))
    view.stop()
    child_of(calls, "original").calls[-1].succeed(ANSWERED, ended_by="stopped")
    assert len(calls.sessions) == 1
    assert label_of(view, "comparison_problem_B") == "Stopped before this model was asked."


def test_esc_stops(view: ComparisonView, calls: ScriptedCalls, qtbot: QtBot) -> None:
    view.ask("hello")
    load(child_of(calls, "original"))
    qtbot.keyClick(find(view, QPlainTextEdit, "composer"), Qt.Key.Key_Escape)
    assert child_of(calls, "original").calls[-1].stopped


def test_one_that_cannot_be_loaded_does_not_keep_the_other_from_answering(
    view: ComparisonView, calls: ScriptedCalls
) -> None:
    in_turn(view)
    view.ask("hello")
    child_of(calls, "original").calls[-1].fail(OutOfMemory("There is not enough memory.", "Close other programs."))
    right = child_of(calls, "quantized")
    load(right)
    answer(right, "two")
    assert label_of(view, "comparison_problem_A") == "There is not enough memory. Close other programs."
    assert texts(view)[1] == "two"
    assert label_of(view, "comparison_verdict") == "Only B answered, so there is nothing to compare."


def test_a_child_that_dies_keeps_its_half_answer(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    left.calls[-1].say("Half")
    left.die()
    answer(right, "two")
    assert texts(view) == ["Half", "two"]
    assert not view.session.busy


def test_an_error_of_one_answer_is_said_in_its_column(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, _ = asked(view, calls)
    left.calls[-1].fail(BadInput("The question does not fit.", "Ask less."))
    assert label_of(view, "comparison_problem_A") == "The question does not fit. Ask less."


def test_ask_again_takes_the_place_of_the_last_answers(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    answer(left, "one")
    answer(right, "two")
    button(view, "comparison_again").click()
    assert list(left.calls[-1].request.messages) == [{"role": "user", "content": "hello"}]
    assert len(view.session.turns) == 1


def test_another_model_goes_on_with_the_conversation(view: ComparisonView, calls: ScriptedCalls) -> None:
    left, right = asked(view, calls)
    answer(left, "one")
    answer(right, "two")
    view.open_pair("/models/third", "")
    assert left.closed
    view.ask("more")
    answer(right, "two more")  # nobody knows how large the third is, so it is loaded when this one has answered
    load(child_of(calls, "third"))
    contents = [message["content"] for message in child_of(calls, "third").calls[-1].request.messages]
    assert contents == ["hello", "one", "more"]


def test_both_rest_a_while_after_one_model_is_wanted_again(
    view: ComparisonView, calls: ScriptedCalls, said: list[str]
) -> None:
    button(view, "comparison_load_A").click()
    load(child_of(calls, "original"))
    view.hide()
    assert view._rest.isActive()
    view._rest.timeout.emit()
    assert child_of(calls, "original").closed
    assert said == ["The compared models were unloaded."]


def test_an_answer_that_comes_unseen_is_waited_for(view: ComparisonView, calls: ScriptedCalls) -> None:
    view.ask("hello")
    view.hide()
    view._rest.timeout.emit()
    assert not calls.sessions[0].closed
    assert view._rest.isActive()


def test_coming_back_in_time_keeps_them(view: ComparisonView) -> None:
    view.hide()
    view.show()
    assert not view._rest.isActive()


def test_leaving_gives_both_memories_back(view: ComparisonView, calls: ScriptedCalls) -> None:
    asked(view, calls)
    view.unload()
    assert all(child.closed for child in calls.sessions)
    assert not view.session.busy
